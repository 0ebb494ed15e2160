"""One training loop for every model: jit-compiled, resumable, with a progress bar."""

import contextlib
import functools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxood import integrity, parallel, progress
from jaxood.density import bits_per_dim
from jaxood.integrity import write_file
from jaxood.parallel import messages
from jaxood.train import checkpoint


class TrainState(NamedTuple):
    """Everything that a run needs to go on: a pytree of arrays.

    Attributes:
        step: int32, updates done.
        params: of the model.
        average: exponential moving average of ``params``; ``params`` itself without averaging.
        batch_stats: running BatchNorm statistics, ``{}`` for a model without BatchNorm.
        opt_state: of the optimizer.
        losses: float32 ``(steps,)``, one a step; zero where still to come.
    """

    step: jax.Array
    params: Any
    average: Any
    batch_stats: Any
    opt_state: Any
    losses: jax.Array

    @property
    def variables(self):
        """What a trained model's functions take: averaged parameters, running statistics."""
        return {"params": self.average, "batch_stats": self.batch_stats}


@messages.carried
class Diverged(RuntimeError):
    """The loss or a gradient became NaN or infinite; the last good state is kept."""


class Unsuitable(ValueError):
    """The images or the devices do not suit the training; the message says what to change."""


def init_state(variables, optimizer, steps):
    """The state before the first of ``steps`` updates."""
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    losses = jnp.zeros(steps, jnp.float32)
    average = jax.tree.map(jnp.copy, params)  # not the same arrays: training donates both
    return TrainState(jnp.int32(0), params, average, batch_stats, optimizer.init(params), losses)


def make_train_steps(loss, optimizer, batch_size, seed, average_decay=0.0, n=None):
    """Compile a whole run of updates into one program.

    Batches are drawn without replacement, epoch by epoch. Batch and noise are functions of
    ``seed`` and the step alone, so a run that is resumed is the run that was not stopped.

    Args:
        loss: ``(variables, batch, key) -> (loss, batch_stats)``.
        optimizer: an optax optimizer.
        batch_size: images an update.
        seed: int.
        average_decay: weight of the old value in the average of the parameters; lower in the
            first steps, ``(1 + step) / (10 + step)``, so that the start is soon forgotten.
        n: batches are drawn from the first n rows of the data; by default from all.

    Returns:
        ``(state, data, stop) -> (state, ok)``, which updates until step ``stop``. It ends early,
        with ``ok`` False and the state before the offending update, when the loss or a gradient
        is not finite. ``data`` is a pytree of arrays with a common leading axis. The state given
        is donated. Batches are divided among the devices that it lies on.
    """
    keys = jax.random.split(jax.random.key(seed))
    shuffle = None

    def train_steps(state, data, stop):
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
    """The order ``(n,)`` of the rows in an epoch. To shuffle 50,000 takes a tenth of a second."""

    epoch: Any
    order: Any


@functools.lru_cache(8)
def _train_program(loss, optimizer, batch_size, average_decay, mesh):
    """The compiled loop: the seed's keys are an argument, so that one program serves all seeds."""
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
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - keep)
        losses = state.losses.at[state.step].set(loss.astype(jnp.float32))
        new = TrainState(state.step + 1, params, average, batch_stats, opt_state, losses)
        ok = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, state)
        return parallel.whole(new, mesh), ok, parallel.whole(shuffle, mesh)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state, data, stop, keys, shuffle):
        return lax.while_loop(
            lambda carry: carry[1] & (carry[0].step < stop),
            lambda carry: step(carry[0], carry[2], data, keys),
            (state, jnp.bool_(True), shuffle),
        )

    return run


def fit(
    loss,
    variables,
    data,
    *,
    steps,
    batch_size=64,
    optimizer=None,
    average_decay=0.0,
    seed=0,
    directory=None,
    settings=None,
    save_every=60.0,
    show_progress=True,
):
    """Train, from the newest checkpoint in ``directory`` if there is one.

    Args:
        loss: ``(variables, batch, key) -> (loss, batch_stats)``; see `neg_log_prob_loss`.
        variables: initial values. Those that `parallel.replicate` put on several devices are
            trained on all of them.
        data: uint8 images ``(n, h, w, c)``, or a pytree of arrays whose first leaf they are. They
            are put on the devices once, each its share.
        steps: updates in all.
        batch_size: images an update.
        optimizer: optax; by default Adam at 1e-3, as in the BatchNorm paper.
        average_decay: of the moving average of the parameters, as in `make_train_steps`.
        seed: fixes the order of the images and all noise.
        directory: for checkpoints; without one none are written. It belongs to one training:
            another seed, other data or another number of steps need another one.
        settings: dictionary of JSON values that must be the same when the training is resumed,
            too. ``loss`` and ``optimizer`` are functions, which cannot be compared: give here what
            they were made from.
        save_every: seconds between checkpoints; one is also written at the end.
        show_progress: draw a progress bar on stderr: the loss, taken for minus a log-likelihood
            and in bits per dimension where ``data`` are images alone, and images a second.

    Returns:
        The final `TrainState`.

    Raises:
        Unsuitable: if there are fewer images than ``batch_size``, or the devices cannot share that
            number evenly.
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
            given = (settings or {}) | {"seed": seed, "steps": steps}
            given |= {"batch_size": batch_size, "average_decay": average_decay}
            parallel.on_writer(keep_beginning, directory, variables, data, given)
            if (newest := checkpoint.restore(directory, state)) is not None:
                state, saved = newest, int(newest.step)
        # A copy: the training loop donates its state, and the caller's variables are the caller's.
        state = jax.tree.map(jnp.copy, parallel.replicate(state, mesh))
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
            recent = np.asarray(state.losses)[before:done].mean()  # on the host: no program a slice
            shown = f"loss {recent:.3f}"
            if images is data:
                shown = f"{bits_per_dim(-recent, images.shape[1:]):.3f} bits/dim"
            rate = (done - before) * batch_size / (now - started)
            advance(done - before, f"{shown}  {rate:,.0f} images/s")
            # The first call compiles. After it, aim at a refresh every second or so.
            if before > 0:
                chunk = max(1, min(2 * chunk, int(chunk / (now - started))))
    return state


def keep_beginning(directory, variables, data, settings):
    """Keep what a training begins with in ``run.json``, or compare it with what is kept there.

    Process 0 alone calls it.

    Args:
        directory: of the training, made if absent.
        variables: initial values. Other machines round them otherwise, so what is kept of them are
            four random projections, which may move a little.
        data: pytree of arrays, of which a digest is kept.
        settings: dictionary of JSON values.

    Raises:
        integrity.Changed: if any of it differs.
        integrity.Damaged: if ``run.json`` is missing from a training or cannot be read.
    """
    file = Path(directory) / "run.json"
    advice = "give the same to go on, or another folder to train anew"
    now = {"data": integrity.digest(data), "initial values": _projections(variables)}
    now |= json.loads(json.dumps(settings))
    if not file.exists():
        if Path(directory).exists() and any(Path(directory).iterdir()):
            raise integrity.Damaged(
                f"{directory} holds a training without its run.json, so that nobody knows what it "
                "was trained on: choose another folder, or delete this one"
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
            f"{file} is not what was written ({type(error).__name__}), so that nobody knows what "
            "was trained there: choose another folder, or delete this one"
        ) from error
    integrity.check_same(before, now, f"the training in {directory}", advice)


def _projections(variables):
    """Onto four random directions; all arrays weigh the same."""
    rng, arrays = np.random.default_rng(0), jax.tree.leaves(variables)
    total = np.zeros(4)
    for array in arrays:
        values = np.asarray(array, np.float32).ravel()
        directions = rng.standard_normal((4, values.size), np.float32)
        total += directions @ values / (np.linalg.norm(values) or 1)
    return np.round(total / np.sqrt(len(arrays)), 4).tolist()
