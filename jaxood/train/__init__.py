"""Training: images in, variables out."""

from jaxood.train import checkpoint, optimizers
from jaxood.train.loop import (
    Diverged,
    TrainState,
    fit,
    init_state,
    keep_beginning,
    make_train_steps,
)
from jaxood.train.losses import ensemble_loss, neg_log_prob_loss
from jaxood.train.statistics import population_statistics

__all__ = [
    "Diverged",
    "TrainState",
    "checkpoint",
    "ensemble_loss",
    "fit",
    "init_state",
    "keep_beginning",
    "make_train_steps",
    "neg_log_prob_loss",
    "optimizers",
    "population_statistics",
]
