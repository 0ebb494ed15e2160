"""Scores of a neural rendering model: builders, measurements, and functions of measurements."""

from jaxood.scores.nrm import statistics
from jaxood.scores.nrm.builders import (
    nrm_latent,
    nrm_latent_class_centred,
    nrm_latent_per_energy,
    nrm_latent_two_sided,
    nrm_neg_log_prob,
    nrm_profile,
    nrm_reconstruction,
    nrm_switches,
)
from jaxood.scores.nrm.measurement import latent_log_prob, measure_batch, nrm_measure
from jaxood.scores.nrm.statistics import Measurement

__all__ = [
    "Measurement",
    "latent_log_prob",
    "measure_batch",
    "nrm_latent",
    "nrm_latent_class_centred",
    "nrm_latent_per_energy",
    "nrm_latent_two_sided",
    "nrm_measure",
    "nrm_neg_log_prob",
    "nrm_profile",
    "nrm_reconstruction",
    "nrm_switches",
    "statistics",
]
