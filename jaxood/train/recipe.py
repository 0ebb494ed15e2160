"""A model and its training as plain data, which can be written down and trained again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optax

from jaxood.data.augment import crop_and_flip
from jaxood.density import Spec, build
from jaxood.models.ensemble import ensemble
from jaxood.models.nrm import losses as nrm_losses
from jaxood.models.nrm.losses import LossWeights
from jaxood.train import optimizers
from jaxood.train.fitting import Trained, fit_or_load
from jaxood.train.loop import Unsuitable
from jaxood.train.losses import Loss, ensemble_loss, neg_log_prob_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model and its training: of a density model, or of a neural rendering model (NRM).

    Attributes:
        model: name of the builder (`jaxood.density.builder`), such as ``"realnvp"``.
        width: width of the model.
        depth: depth of the model; None for a model without one (the VAE), or for the default.
        options: the builder's other arguments by name.
        steps: number of updates.
        batch_size: images an update, for each member of an ensemble.
        optimizer: name of an optimizer of `jaxood.train.optimizers`.
        learning_rate: learning rate of the optimizer, at its highest.
        schedule: schedule of the learning rate, as in `jaxood.train.optimizers`.
        warmup: steps over which the learning rate rises from zero; None for the schedule's own.
        average_decay: decay of the moving average of the parameters; 0 for none.
        members: 1, or the size of an ensemble of density models, trained as one program.
        statistics_images: number of trusted images that the evaluation-mode statistics of BatchNorm
            are taken over; all by default.
        loss_weights: weights of the terms of an NRM's loss; None says that the model is a density
            model, trained by maximum likelihood.
        temperature: temperature of an NRM's softmax.
        augment: crop and flip an NRM's training images.
        labelled: share of the images whose labels an NRM's training uses.
    """

    model: str
    width: int
    depth: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    steps: int
    batch_size: int = 64
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int | None = None
    average_decay: float = 0.0
    members: int = 1
    statistics_images: int | None = None
    loss_weights: LossWeights | None = None
    temperature: float = 1.0
    augment: bool = False
    labelled: float = 1.0

    def with_steps(self, steps: int | None) -> Recipe:
        """Return the recipe with this number of updates; None changes nothing."""
        return self if steps is None else dataclasses.replace(self, steps=steps)

    def make_optimizer(self) -> optax.GradientTransformation:
        """Make the recipe's optimizer."""
        make = getattr(optimizers, self.optimizer)
        return make(self.steps, self.learning_rate, schedule=self.schedule, warmup=self.warmup)

    def build(self, image_shape: Sequence[int], classes: int | None = None) -> Any:
        """Build the model; for an ensemble, all members.

        Args:
            image_shape: ``(h, w, c)`` of uint8 images.
            classes: number of classes of an NRM.

        Raises:
            ValueError: if no builder has that name, or takes these arguments.
        """
        return _program(self, tuple(image_shape), classes).model

    def train(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        seed: int,
        directory: Path | str | None,
        devices: int | None = None,
        show_progress: bool = True,
    ) -> Trained:
        """Train, or go on with the training in a folder, or load what is finished there.

        Trainings that differ in their seed alone compile once.

        Args:
            images: uint8 ``(n, h, w, c)``.
            labels: int ``(n,)``, of an NRM; density models take none.
            seed: seed of everything.
            directory: as for `fit_or_load`.
            devices: likewise.
            show_progress: likewise.

        Raises:
            Unsuitable: if an NRM has no labels, or as by `fit_or_load`, which says what else.
        """
        data, classes = images, None
        if self.loss_weights is not None:
            if labels is None:
                raise Unsuitable("the NRM is trained on labelled images, and these have no labels")
            classes = 1 + int(labels.max())
            hidden = np.random.default_rng(seed).random(len(labels)) >= self.labelled
            data = (images, np.where(hidden, -1, labels).astype(np.int32))
        program = _program(self, images.shape[1:], classes)
        return fit_or_load(
            program.model,
            program.loss,
            data,
            steps=self.steps,
            batch_size=self.batch_size * self.members,
            optimizer=program.optimizer,
            average_decay=self.average_decay,
            seed=seed,
            directory=directory,
            devices=devices,
            statistics_batch=self.batch_size,
            statistics_images=self.statistics_images,
            settings=dataclasses.asdict(self),
            show_progress=show_progress,
        )


class _Program(NamedTuple):
    model: Any
    loss: Loss
    optimizer: optax.GradientTransformation


@functools.lru_cache(8)
def _program(recipe: Recipe, image_shape: tuple[int, ...], classes: int | None) -> _Program:
    """Make the model, its loss and its optimizer: one object of each for all seeds."""
    arguments = {"image_shape": image_shape, "width": recipe.width, **recipe.options}
    if recipe.depth is not None:
        arguments["depth"] = recipe.depth
    if classes is not None:
        arguments["classes"] = classes
    model = build(Spec(recipe.model, tuple(arguments.items())))
    if recipe.loss_weights is not None:
        loss = nrm_losses.loss(
            model,
            recipe.loss_weights,
            temperature=recipe.temperature,
            augment=crop_and_flip if recipe.augment else None,
        )
    elif recipe.members > 1:
        model, loss = ensemble(model, recipe.members), ensemble_loss(model)
    else:
        loss = neg_log_prob_loss(model)
    return _Program(model, loss, recipe.make_optimizer())
