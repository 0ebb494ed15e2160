"""Scores: how strange images are to a model, in float32 ``(n,)``, HIGHER = MORE OOD.

A builder takes what a score needs and returns a `Score`, which maps images to numbers::

    score = jaxood.scores.neg_log_prob(model, variables)
    score(images)

There are two kinds, and `Score.per_image` says which one a score is of:

- a *per-image* score gives an image the same value, to the bit, whatever images it arrives with
  (`neg_log_prob`, `t_perm`, `typicality`, `waic`, `glow_neg_log_pz` and those of the NRM);
- a *batch* score scores images among each other (`batch_norm_delta`, `batch_norm_rank`).

`Score.estimate` adds standard errors. What is no score but is made into some, such as `log_prob`,
is a function of a model, its variables and images; `jaxood.scores.statistics` turns
log-likelihoods that were kept into scores. `to_plain` and `from_plain` write a score down and
rebuild it.
"""

from jaxood.scores import nrm, statistics
from jaxood.scores.batch_norm import batch_norm_delta, batch_norm_rank, mixed_log_prob
from jaxood.scores.glow import glow_log_pz, glow_neg_log_pz
from jaxood.scores.likelihood import log_prob, neg_log_prob, t_perm, typicality, waic
from jaxood.scores.nrm import (
    nrm_latent,
    nrm_latent_class_centred,
    nrm_latent_per_energy,
    nrm_latent_two_sided,
    nrm_measure,
    nrm_neg_log_prob,
    nrm_profile,
    nrm_reconstruction,
    nrm_switches,
)
from jaxood.scores.plain import from_plain, to_plain
from jaxood.scores.score import Estimate, Score, scored

__all__ = [
    "Estimate",
    "Score",
    "batch_norm_delta",
    "batch_norm_rank",
    "from_plain",
    "glow_log_pz",
    "glow_neg_log_pz",
    "log_prob",
    "mixed_log_prob",
    "neg_log_prob",
    "nrm",
    "nrm_latent",
    "nrm_latent_class_centred",
    "nrm_latent_per_energy",
    "nrm_latent_two_sided",
    "nrm_measure",
    "nrm_neg_log_prob",
    "nrm_profile",
    "nrm_reconstruction",
    "nrm_switches",
    "scored",
    "statistics",
    "t_perm",
    "to_plain",
    "typicality",
    "waic",
]
