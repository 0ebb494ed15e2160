"""A whole training: initial values, updates, BatchNorm statistics, and the folder that keeps it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxood import parallel
from jaxood.train import checkpoint
from jaxood.train.loop import Unsuitable, fit, keep_beginning
from jaxood.train.losses import Loss
from jaxood.train.statistics import population_statistics


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        model: the `DensityModel`, `Glow` or `NRM`; of an ensemble, all members.
        variables: variables of the model: the averaged parameters and, where the model has
            BatchNorm, the evaluation-mode statistics that belong to these parameters. They lie on
            all devices that trained, which then score.
        losses: float32 ``(steps,)``, the training loss of each step. The loss of a density model
            is in nats an image.
        seconds: duration of the training; NaN if it was interrupted.
    """

    model: Any
    variables: dict[str, Any]
    losses: np.ndarray
    seconds: float

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.size for p in jax.tree.leaves(self.variables["params"]))


def fit_or_load(
    model: Any,
    loss: Loss,
    data: Any,
    *,
    steps: int,
    batch_size: int = 64,
    optimizer: optax.GradientTransformation | None = None,
    average_decay: float = 0.0,
    seed: int = 0,
    directory: Path | str | None,
    devices: int | None = None,
    statistics_batch: int = 64,
    statistics_images: int | None = None,
    settings: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> Trained:
    """Train a model, or go on with the training in a folder, or load what is finished there.

    Args:
        model: a `DensityModel`, `Glow` or `NRM`.
        loss: a `Loss`, for example ``neg_log_prob_loss(model)``.
        data: uint8 images ``(n, h, w, c)``, or a pytree of arrays whose first leaf they are.
        steps: number of updates.
        batch_size: images an update.
        optimizer: an optimizer of optax; by default Adam at 1e-3.
        average_decay: decay of the moving average of the parameters, as for `fit`; 0 for none.
        seed: seed of the initial parameters, the order of the images and all noise.
        directory: folder for checkpoints; None writes none. It belongs to one training.
        devices: number of devices to train and score on, of each process; all by default.
        statistics_batch: images in each of the batches whose BatchNorm statistics are merged; see
            `population_statistics`.
        statistics_images: number of images, drawn by the seed, that these statistics are taken
            over; all by default.
        settings: as for `fit`: JSON values that ``model``, ``loss`` and ``optimizer`` were made
            from, which must be the same when the training is resumed.
        show_progress: draw progress bars on stderr.

    Returns:
        The model, with variables that are ready to score with.

    Raises:
        Unsuitable: if a batch cannot be shared evenly among the devices, or the images do not fill
            one.
        ValueError: if there are fewer devices.
        integrity.Changed: if ``directory`` holds a training that began with other arguments.
        integrity.Locked: if another run trains there.
        integrity.Damaged: if what is there is damaged.
        Diverged: if the loss or a gradient is not finite.
    """
    images = jax.tree.leaves(data)[0]
    mesh = parallel.mesh(devices)
    for size in (batch_size, statistics_batch):
        if size % mesh.size:
            raise Unsuitable(
                f"batches of {size} images cannot be shared evenly among {mesh.size} devices: take "
                f"a number of devices that divides {size}"
            )
    variables = parallel.replicate(model.init(jax.random.key(seed), images[:64]), mesh)

    def train(folder: Path | None) -> dict[str, Any]:
        start = time.monotonic()
        resumed = folder is not None and folder.exists()
        state = fit(
            loss,
            variables,
            data,
            steps=steps,
            batch_size=batch_size,
            optimizer=optimizer,
            average_decay=average_decay,
            seed=seed,
            directory=folder,
            settings=settings,
            show_progress=show_progress,
        )
        made = {
            "params": state.average,
            "losses": state.losses,
            "seconds": np.float32(np.nan if resumed else time.monotonic() - start),
        }
        if "batch_stats" in variables:
            chosen = images
            if statistics_images is not None:
                chosen = np.random.default_rng(seed).permutation(images)[:statistics_images]
            made["batch_stats"] = population_statistics(
                model,
                state.variables,
                chosen,
                batch_size=statistics_batch,
                seed=seed,
                show_progress=show_progress,
            )
        return made

    if directory is None:
        made = train(None)
    else:
        directory = Path(directory)
        given = dict(settings or {}) | {"seed": seed, "steps": steps, "batch_size": batch_size}
        given |= {"average_decay": average_decay}
        given |= {"statistics_batch": statistics_batch, "statistics_images": statistics_images}
        parallel.on_writer(keep_beginning, directory, variables, data, given)
        like = variables | {"losses": np.zeros(steps, np.float32), "seconds": np.float32(0)}
        made = checkpoint.restore(directory / "finished", like)
        if made is None:
            with parallel.lock(directory):
                made = train(directory / "steps")
                checkpoint.save(directory / "finished", steps, made)
    whole = parallel.replicate({name: made[name] for name in variables}, mesh)
    return Trained(model, whole, np.asarray(made["losses"]), float(made["seconds"]))
