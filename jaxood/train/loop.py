"""The training loop of every model: compiled, resumable, with a progress bar."""

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh

from jaxood import compilation, integrity, parallel, progress
from jaxood.density import Variables, bits_per_dim
from jaxood.integrity import write_file
from jaxood.parallel import messages
from jaxood.train import checkpoint
from jaxood.train.losses import Loss


class TrainState(NamedTuple):
    """The state of a training, a pytree of arrays that holds all that it needs to go on.

    Attributes:
        step: int32, number of updates done.
        params: parameters of the model.
        average: exponential moving average of ``params``; equal to ``params`` without averaging.
        batch_stats: running BatchNorm statistics, ``{}`` for a model without BatchNorm.
        opt_state: state of the optimizer.
        losses: float32 ``(steps,)``, the loss of each update; zero for updates still to come.
    """

    step: jax.Array
    params: Any
    average: Any
    batch_stats: Any
    opt_state: Any
    losses: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """The averaged parameters, and the running statistics.

        The running statistics belong to ``params``: `population_statistics` gives those of the
        averaged parameters.
        """
        return {"params": self.average, "batch_stats": self.batch_stats}


@messages.carried
class Diverged(RuntimeError):
    """The loss or a gradient became NaN or infinite; the last good state is kept."""


class Unsuitable(ValueError):
    """The images or the devices do not suit the training; the message says what to change."""


def init_state(
    variables: Variables, optimizer: optax.GradientTransformation, steps: int
) -> TrainState:
    """Make the state before the first of ``steps`` updates, on the devices of the variables.

    Its arrays are copies, since training donates them.
    """
    return _state_program(optimizer, steps, parallel.mesh_of(variables))(variables)


@functools.lru_cache(8)
def _state_program(
    optimizer: optax.GradientTransformation, steps: int, mesh: Mesh
) -> Callable[[Variables], TrainState]:
    """Compile `init_state`: one program takes a third of the time of one for each shape."""

    @functools.partial(jax.jit, **compilation.sooner(mesh.devices.flat[0]))
    def make(variables):
        params, average = (jax.tree.map(jnp.copy, variables["params"]) for _ in range(2))
        batch_stats = jax.tree.map(jnp.copy, variables.get("batch_stats", {}))
        losses = jnp.zeros(steps, jnp.float32)
        state = TrainState(
            jnp.int32(0), params, average, batch_stats, optimizer.init(params), losses
        )
        return parallel.whole(state, mesh)

    return make


def make_train_steps(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    seed: int,
    average_decay: float = 0.0,
    n: int | None = None,
) -> Callable[[TrainState, Any, int], tuple[TrainState, jax.Array]]:
    """Compile any number of updates into one program.

    Batches are drawn without replacement, epoch by epoch. A batch and its noise are functions of
    ``seed`` and the step alone, so a training that was interrupted ends, to the bit, as one that
    was not.

    Args:
        loss: a `Loss`.
        optimizer: an optax optimizer.
        batch_size: images an update.
        seed: seed of the order of the images and all noise.
        average_decay: weight of the old value in the average of the parameters. In the first steps
            it is at most ``(1 + step) / (10 + step)``, so that the start is soon forgotten.
        n: number of rows of the data, from the first on, that batches are drawn from; all by
            default.

    Returns:
        A function ``(state, data, stop) -> (state, ok)`` that updates until step ``stop``. It ends
        early, with ``ok`` False and the state before that update, when the loss or a gradient is
        not finite. ``data`` is a pytree of arrays with a common leading axis. The given state is
        donated. The devices that it lies on share each batch.
    """
    keys = jax.random.split(jax.random.key(seed))
    shuffle = None

    def train_steps(state: TrainState, data: Any, stop: int) -> tuple[TrainState, jax.Array]:
        nonlocal shuffle
        mesh = parallel.mesh_of(state)
        program = _train_program(loss, optimizer, batch_size, average_decay, mesh)
        rows = n or len(jax.tree.leaves(data)[0])
        if shuffle is None or len(shuffle.order) != rows:
            shuffle = parallel.replicate(_Shuffle(np.int32(-1), np.zeros(rows, np.int32)), mesh)
        state, ok, shuffle = program(state, data, stop, keys, shuffle)
        return state, ok

    return train_steps


class _Shuffle(NamedTuple):
    """The order ``(n,)`` of the rows in an epoch; to shuffle 50,000 takes a tenth of a second."""

    epoch: Any
    order: Any


@functools.lru_cache(8)
def _train_program(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    average_decay: float,
    mesh: Mesh,
) -> Callable[..., Any]:
    """Compile the loop. The seed's keys are an argument, so that one program serves all seeds."""
    gradient = jax.value_and_grad(
        lambda params, batch_stats, batch, key: loss(
            {"params": params, "batch_stats": batch_stats}, batch, key
        ),
        has_aux=True,
    )

    def shuffled(shuffle, epoch, key):
        def anew():
            order = jax.random.permutation(jax.random.fold_in(key, epoch), len(shuffle.order))
            return _Shuffle(epoch, order)

        return lax.cond(shuffle.epoch == epoch, lambda: shuffle, anew)

    def step(state, shuffle, data, keys):
        order_key, noise_key = keys
        batches = len(shuffle.order) // batch_size
        epoch, place = state.step // batches, state.step % batches
        shuffle = shuffled(shuffle, epoch, order_key)
        chosen = lax.dynamic_slice_in_dim(shuffle.order, place * batch_size, batch_size)
        batch = parallel.split_rows(jax.tree.map(lambda a: a[chosen], data), mesh)
        key = jax.random.fold_in(noise_key, state.step)
        (loss, batch_stats), grads = gradient(state.params, state.batch_stats, batch, key)
        ok = jnp.isfinite(loss) & jnp.isfinite(_squares(grads))

        def updated():
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = average = optax.apply_updates(state.params, updates)
            if average_decay:
                keep = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
                average = optax.incremental_update(params, state.average, 1 - keep)
            losses = state.losses.at[state.step].set(loss.astype(jnp.float32))
            return TrainState(state.step + 1, params, average, batch_stats, opt_state, losses)

        # Not a choice for each array: XLA would compile a kernel for each.
        new = lax.cond(ok, updated, lambda: state)
        return parallel.whole(new, mesh), ok, parallel.whole(shuffle, mesh)

    @functools.partial(jax.jit, donate_argnums=0, **compilation.sooner(mesh.devices.flat[0]))
    def run(state, data, stop, keys, shuffle):
        return lax.while_loop(
            lambda carry: carry[1] & (carry[0].step < stop),
            lambda carry: step(carry[0], carry[2], data, keys),
            (state, jnp.bool_(True), shuffle),
        )

    return run


def _squares(tree: Any) -> jax.Array:
    """Sum the squares of all values. Arrays of one shape share a kernel, which compiles sooner."""
    sums: dict[tuple[int, ...], jax.Array] = {}
    for leaf in jax.tree.leaves(tree):
        sums[leaf.shape] = sums.get(leaf.shape, 0) + leaf**2
    return sum((total.sum() for total in sums.values()), jnp.float32(0))


def fit(
    loss: Loss,
    variables: Variables,
    data: Any,
    *,
    steps: int,
    batch_size: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    average_decay: float = 0.0,
    seed: int = 0,
    directory: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    save_every: float = 60.0,
    show_progress: bool = True,
) -> TrainState:
    """Train, from the newest checkpoint in ``directory`` if there is one.

    `fit_or_load` also makes the initial values and the BatchNorm statistics.

    Args:
        loss: a `Loss`, for example ``neg_log_prob_loss(model)``.
        variables: initial values. Those that `parallel.replicate` put on several devices are
            trained on all of them.
        data: uint8 images ``(n, h, w, c)``, or a pytree of arrays whose first leaf they are. Each
            device receives its share of the rows, once.
        steps: number of updates in all.
        batch_size: images an update.
        optimizer: an optimizer of optax; by default Adam at 1e-3, as in the BatchNorm paper.
        average_decay: decay of the moving average of the parameters, as in `make_train_steps`.
        seed: seed of the order of the images and all noise.
        directory: folder for checkpoints; None writes none. It belongs to one training: another
            seed, other data or another number of steps need another folder.
        settings: JSON values by name that must be the same when the training is resumed. ``loss``
            and ``optimizer`` are functions, which cannot be compared: give here what they were
            made from.
        save_every: seconds between checkpoints; one is also written at the end.
        show_progress: draw a progress bar on stderr. It shows images a second and the loss, which
            is taken for minus a log-likelihood, and shown in bits per dimension, where ``data`` is
            an array of images alone.

    Returns:
        The final `TrainState`.

    Raises:
        Unsuitable: if there are fewer images than ``batch_size``, or the devices cannot share a
            batch evenly.
        integrity.Changed: if ``directory`` holds a training that began with other arguments.
        integrity.Locked: if another run trains there.
        checkpoint.Unreadable: if the checkpoint there is damaged, or of another model.
        Diverged: if the loss or a gradient is not finite.
    """
    optimizer = optimizer or optax.adam(1e-3)
    mesh = parallel.mesh_of(variables)
    state = init_state(variables, optimizer, steps)
    images = jax.tree.leaves(data)[0]
    if len(images) < batch_size:
        raise Unsuitable(
            f"{len(images)} images do not fill one batch of {batch_size}: lower the batch size"
        )
    if batch_size % mesh.size:
        raise Unsuitable(
            f"a batch of {batch_size} images cannot be shared evenly among {mesh.size} devices"
        )
    train_steps = make_train_steps(loss, optimizer, batch_size, seed, average_decay, len(images))
    with contextlib.ExitStack() as held:
        saved = None
        if directory is not None:
            held.enter_context(parallel.lock(directory))
            given = dict(settings or {}) | {"seed": seed, "steps": steps}
            given |= {"batch_size": batch_size, "average_decay": average_decay}
            parallel.on_writer(keep_beginning, directory, variables, data, given)
            if (newest := checkpoint.restore(directory, state)) is not None:
                state, saved = newest, int(newest.step)
        state = parallel.replicate(state, mesh)
        on_device = parallel.shard(data, mesh)
        done = int(state.step)
        saved_at = time.monotonic()
        chunk = 1
        advance = held.enter_context(progress.bar("training", steps, done=done, show=show_progress))
        while done < steps:
            started = time.monotonic()
            chunk = parallel.agree(chunk)  # clocks differ
            state, ok = train_steps(state, on_device, min(done + chunk, steps))
            before, done, ok = done, int(state.step), bool(ok)
            now = time.monotonic()
            if directory is not None:
                due = parallel.agree(now - saved_at > save_every)
                if (done == steps or not ok or due) and done != saved:
                    checkpoint.save(directory, done, state)
                    saved, saved_at = done, now
            if not ok:
                raise Diverged(
                    f"the loss or a gradient became NaN or infinite in step {done + 1} of {steps}; "
                    + (f"the state before it is in {directory}. " if directory else "")
                    + "Lower the learning rate, or start from another seed."
                )
            # On the host: on the device each length of the slice would compile a program.
            recent = np.asarray(state.losses)[before:done].mean()
            shown = f"loss {recent:.3f}"
            if images is data:
                shown = f"{bits_per_dim(-recent, images.shape[1:]):.3f} bits/dim"
            rate = (done - before) * batch_size / (now - started)
            advance(done - before, f"{shown}  {rate:,.0f} images/s")
            # The first call compiles. After it, the bar is refreshed every few seconds. Each call
            # takes its memory anew, which makes its first step a tenth slower on the CPU.
            if before > 0:
                chunk = max(1, min(2 * chunk, int(4 * chunk / (now - started))))
    return state


def keep_beginning(
    directory: Path | str, variables: Variables, data: Any, settings: Mapping[str, Any]
) -> None:
    """Write what a training begins with into ``run.json``, or compare it with what is there.

    Of several processes, process 0 alone calls it.

    Args:
        directory: folder of the training, made if absent.
        variables: initial values. Machines round them differently, so four random projections of
            them are kept, and may differ a little.
        data: pytree of arrays, of which a digest is kept.
        settings: JSON values by name.

    Raises:
        integrity.Changed: if any of it differs from what is there.
        integrity.Damaged: if a training has no ``run.json``, or one that cannot be read.
    """
    file = Path(directory) / "run.json"
    advice = "give the same to go on, or another folder to train anew"
    now = {"data": integrity.digest(data), "initial values": _projections(variables)}
    now |= json.loads(json.dumps(settings))
    if not file.exists():
        if Path(directory).exists() and any(Path(directory).iterdir()):
            raise integrity.Damaged(
                f"{directory} holds a training without its run.json, which says what it was "
                "trained on: choose another folder, or delete this one"
            )
        write_file(file, json.dumps(now, indent=1).encode())
        return
    try:
        before = {} | json.loads(file.read_text())
        projections = before["initial values"]
        if np.allclose(projections, now["initial values"], rtol=0, atol=0.05, equal_nan=True):
            now["initial values"] = projections
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise integrity.Damaged(
            f"{file} is not what was written ({type(error).__name__}), and so what was trained "
            "there is unknown: choose another folder, or delete this one"
        ) from error
    integrity.check_same(before, now, f"the training in {directory}", advice)


def _projections(variables: Variables) -> list[float]:
    """Project all arrays, each scaled to norm 1, onto four random directions."""
    rng, arrays = np.random.default_rng(0), jax.tree.leaves(variables)
    total = np.zeros(4)
    for array in arrays:
        values = np.asarray(array, np.float32).ravel()
        directions = rng.standard_normal((4, values.size), np.float32)
        total += directions @ values / (np.linalg.norm(values) or 1)
    return np.round(total / np.sqrt(len(arrays)), 4).tolist()
