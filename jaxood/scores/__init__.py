"""Scores: pure functions from images to float32 ``(n,)``, HIGHER = MORE OOD.

There are two kinds, and a function's return type says which it is:

- a *per-image* score is an array ``(n,)``: an image scores the same to the bit whatever images it
  arrives with (`neg_log_prob`, `t_perm`, `typicality`,
  `waic`, `glow_neg_log_pz`);
- a *batch* score is an `Estimate`: the images are scored among each other, the value is a
  Monte-Carlo mean over random companions, and it comes with its standard error
  (`mixed_log_prob`, `batch_norm_delta`).
"""

from jaxood.models.ensemble import ensemble
from jaxood.models.mates_only import mates_only
from jaxood.scores import rendering
from jaxood.scores.batch_norm import (
    Estimate,
    batch_norm_delta,
    batch_norm_rank,
    delta,
    mixed_log_prob,
)
from jaxood.scores.glow import glow_log_pz, glow_neg_log_pz
from jaxood.scores.likelihood import log_prob, neg_log_prob, t_perm, typicality
from jaxood.scores.rendering import nrm_latent
from jaxood.scores.waic import waic
from jaxood.train.losses import ensemble_loss

__all__ = [
    "Estimate",
    "batch_norm_delta",
    "batch_norm_rank",
    "delta",
    "ensemble",
    "ensemble_loss",
    "glow_log_pz",
    "glow_neg_log_pz",
    "log_prob",
    "mates_only",
    "mixed_log_prob",
    "neg_log_prob",
    "nrm_latent",
    "rendering",
    "t_perm",
    "typicality",
    "waic",
]
