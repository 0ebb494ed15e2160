"""Training: images in, variables out."""

from jaxood.train import checkpoint, optimizers
from jaxood.train.fitting import Trained, fit_or_load
from jaxood.train.loop import (
    Diverged,
    TrainState,
    Unsuitable,
    fit,
    init_state,
    keep_beginning,
    make_train_steps,
)
from jaxood.train.losses import ensemble_loss, neg_log_prob_loss
from jaxood.train.recipe import Recipe
from jaxood.train.statistics import population_statistics

__all__ = [
    "Diverged",
    "Recipe",
    "TrainState",
    "Trained",
    "Unsuitable",
    "checkpoint",
    "ensemble_loss",
    "fit",
    "fit_or_load",
    "init_state",
    "keep_beginning",
    "make_train_steps",
    "neg_log_prob_loss",
    "optimizers",
    "population_statistics",
]
