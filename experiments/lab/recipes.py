"""Trained models with their row of the results record; `jaxood.train.Recipe.train` takes over."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxood.density import bits_per_dim
from jaxood.report import record
from jaxood.train import Recipe, fit_or_load
from jaxood.train import Trained as Fit

__all__ = ["Fit", "Recipe", "Trained", "fit_or_load", "trained"]


class Trained(NamedTuple):
    """A trained density model.

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
    """Train by a recipe; see `jaxood.train.Recipe.train`."""
    made = recipe.train(images, seed=seed, directory=directory, devices=devices)
    row = record.ModelRow(
        name=recipe.model,
        in_dist=in_dist,
        parameters=made.parameters,
        steps=recipe.steps,
        train_seconds=made.seconds,
    )
    losses = bits_per_dim(-made.losses, images.shape[1:])
    return Trained(made.model, made.variables, losses, row)
