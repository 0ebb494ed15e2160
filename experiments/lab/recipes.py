"""How a density model is built and trained: a recipe, and the trained model that it makes."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from experiments.lab.common import UsageError
from jaxood import parallel, scores, train
from jaxood.density import bits_per_dim
from jaxood.models.glow import glow
from jaxood.models.pixelcnn.network import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae
from jaxood.report import record
from jaxood.train import checkpoint

ModelName = Literal["realnvp", "vae", "pixelcnn"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model and its training.

    Attributes:
        model: its name.
        width: channels of its networks (PixelCNN++: filters).
        depth: residual blocks (RealNVP: a coupling; PixelCNN++: a stage; the VAE has one depth),
            or steps (Glow: a level).
        steps: training steps.
        batch_size: the paper's is 64.
        learning_rate: of Adam, constant after the warm-up.
        warmup: steps over which the learning rate rises from zero.
        dropout: of PixelCNN++, in training.
        average_decay: of the moving average of the parameters; 0 for none.
        members: 1, or the size of an ensemble that is trained as one program.
        statistics_images: trusted images that the evaluation-mode statistics are taken over; all
            of them by default.
    """

    model: ModelName | Literal["glow"]
    width: int
    depth: int = 1
    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 0
    dropout: float = 0.0
    average_decay: float = 0.0
    members: int = 1
    statistics_images: int | None = None

    def with_steps(self, steps: int | None) -> "Recipe":
        """With this many training steps, if it is a number."""
        return self if steps is None else dataclasses.replace(self, steps=steps)

    def build(self, image_shape):
        """The `DensityModel`, for uint8 images ``(h, w, c)``."""
        if self.model == "glow":
            return glow(image_shape, depth=self.depth, width=self.width)
        if self.model == "realnvp":
            return realnvp(image_shape, width=self.width, depth=self.depth)
        if self.model == "vae":
            return vae(image_shape, width=self.width)
        return pixelcnn(image_shape, width=self.width, depth=self.depth, dropout=self.dropout)

    def optimizer(self):
        """Adam."""
        if not self.warmup:
            return optax.adam(self.learning_rate)
        return optax.adam(optax.linear_schedule(0.0, self.learning_rate, self.warmup))


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        model: the density model; of an ensemble, all members.
        variables: with evaluation-mode statistics over the trusted images.
        losses: ``(steps,)`` bits per dimension, in training mode.
        row: for the results record.
    """

    model: Any
    variables: dict[str, Any]
    losses: np.ndarray
    row: record.ModelRow


def trained(
    recipe: Recipe,
    in_dist: str,
    images,
    *,
    seed: int,
    directory: Path,
    devices: int | None = None,
) -> Trained:
    """Train on ``images``, or go on with what ``directory`` holds, or load what is finished there.

    Args:
        recipe: what to train.
        in_dist: name of the images.
        images: uint8 ``(n, h, w, c)``.
        seed: of everything.
        directory: for checkpoints.
        devices: to train and score on, of each process; all by default.
    """
    member = recipe.build(images.shape[1:])
    model, loss = member, train.neg_log_prob_loss(member)
    if recipe.members > 1:
        model, loss = scores.ensemble(member, recipe.members), scores.ensemble_loss(member)
    fit = fit_or_load(
        model,
        loss,
        images,
        steps=recipe.steps,
        batch_size=recipe.batch_size * recipe.members,
        optimizer=recipe.optimizer(),
        average_decay=recipe.average_decay,
        statistics_batch=recipe.batch_size,
        statistics_images=recipe.statistics_images,
        seed=seed,
        directory=directory,
        devices=devices,
        settings=dataclasses.asdict(recipe),
    )
    row = record.ModelRow(
        name=recipe.model,
        in_dist=in_dist,
        parameters=fit.parameters,
        steps=recipe.steps,
        train_seconds=fit.seconds,
    )
    return Trained(model, fit.variables, bits_per_dim(-fit.losses, images.shape[1:]), row)


class Fit(NamedTuple):
    """What a training ends with.

    Attributes:
        variables: with evaluation-mode statistics over the trusted images, on all devices that
            are to score with them.
        losses: ``(steps,)``.
        seconds: of the training; NaN if it was interrupted.
    """

    variables: dict[str, Any]
    losses: np.ndarray
    seconds: float

    @property
    def parameters(self):
        """Number of parameters."""
        return sum(p.size for p in jax.tree.leaves(self.variables["params"]))


def fit_or_load(
    model,
    loss,
    data,
    *,
    steps: int,
    batch_size: int,
    optimizer,
    seed: int,
    directory: Path,
    devices: int | None = None,
    average_decay=0.0,
    statistics_batch=64,
    statistics_images: int | None = None,
    settings: dict[str, Any] | None = None,
) -> Fit:
    """Train, or go on with what ``directory`` holds, or load what is finished there.

    Args:
        model: with ``init`` and ``log_prob`` as of a `DensityModel`.
        loss: as for `train.fit`.
        data: as for `train.fit`.
        steps: likewise.
        batch_size: likewise.
        optimizer: likewise.
        seed: of everything.
        directory: for checkpoints. What is in it must have been made with the same arguments.
        devices: to train and score on, of each process; all by default.
        average_decay: as for `train.fit`.
        statistics_batch: size of the batches whose BatchNorm statistics are merged.
        statistics_images: number of images for them; all by default.
        settings: as for `train.fit`.

    Raises:
        integrity.Changed: if ``directory`` holds a training with other arguments.
        integrity.Locked: if another run trains there.
        integrity.Damaged: if what is there is damaged.
        UsageError: if a batch cannot be shared evenly among the devices.
    """
    images = jax.tree.leaves(data)[0]
    mesh = parallel.mesh(devices)
    if batch_size % mesh.size or statistics_batch % mesh.size:
        raise UsageError(
            f"batches of {statistics_batch} images cannot be shared evenly among {mesh.size} "
            f"devices: with --devices, take a number that divides {statistics_batch}"
        )
    variables = parallel.replicate(model.init(jax.random.key(seed), images[:64]), mesh)
    given = (settings or {}) | {"seed": seed, "steps": steps, "batch_size": batch_size}
    given |= {"average_decay": average_decay}
    given |= {"statistics_batch": statistics_batch, "statistics_images": statistics_images}
    parallel.on_writer(train.keep_beginning, directory, variables, data, given)
    finished = variables | {"losses": np.zeros(steps, np.float32), "seconds": np.float32(0)}
    restored = checkpoint.restore(directory / "finished", finished)
    if restored is None:
        with parallel.lock(directory):
            start = time.monotonic()
            resumed = (directory / "steps").exists()
            state = train.fit(
                loss,
                variables,
                data,
                steps=steps,
                batch_size=batch_size,
                optimizer=optimizer,
                average_decay=average_decay,
                seed=seed,
                directory=directory / "steps",
                settings=settings,
            )
            elapsed = np.nan if resumed else time.monotonic() - start
            restored = {
                "params": state.variables["params"],
                "losses": state.losses,
                "seconds": np.float32(elapsed),
            }
            if "batch_stats" in variables:
                chosen = images
                if statistics_images is not None:
                    chosen = np.random.default_rng(seed).permutation(images)[:statistics_images]
                restored["batch_stats"] = train.population_statistics(
                    model, state.variables, chosen, batch_size=statistics_batch, seed=seed
                )
            checkpoint.save(directory / "finished", steps, restored)
    variables = parallel.replicate({name: restored[name] for name in variables}, mesh)
    return Fit(variables, np.asarray(restored["losses"]), float(restored["seconds"]))
