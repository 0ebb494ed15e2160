"""Every score of the NRM experiments, from the measurements of a set."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxood.report import label
from jaxood.scores.nrm import Measurement, statistics
from jaxood.scores.nrm.statistics import Reduction
from jaxood.scores.statistics import class_centred, typicality


class Key(NamedTuple):
    """A score by its name and its settings.

    Attributes:
        name: name of the score in the results record.
        layer: layer of a reconstruction loss.
        reduction: over features.
    """

    name: str
    layer: int | None = None
    reduction: Reduction = "sum"

    @property
    def params(self) -> dict[str, Any]:
        """Settings for the results record; the sum over features goes without saying."""
        layer = {} if self.layer is None else {"layer": self.layer}
        return layer | ({} if self.reduction == "sum" else {"reduction": self.reduction})

    @property
    def label(self) -> str:
        """The score as a person writes it."""
        return label(self.name, self.params)


LATENT, LATENT_MEAN = Key("nrm_latent"), Key("nrm_latent", reduction="mean")
NEG_LOG_PROB = Key("nrm_neg_log_prob")
NEG_LOG_PROB_MEAN = Key("nrm_neg_log_prob", reduction="mean")
PER_ENERGY = Key("nrm_latent_per_energy")
TWO_SIDED = Key("nrm_latent_two_sided")
CLASS_CENTRED = Key("nrm_latent_class_centred")
WAIC = Key("nrm_latent_waic")
PROFILE, SWITCHES = Key("nrm_profile"), Key("nrm_switches")


def reconstruction(layer: int, reduction: Reduction = "sum") -> Key:
    """Return the key of the reconstruction loss of a layer."""
    return Key("nrm_reconstruction", layer, reduction)


def scored(m: Measurement, null: Measurement) -> dict[Key, np.ndarray]:
    """Compute every score of one model, ``(n,)``, higher = more OOD.

    Args:
        m: measurement of the images to judge.
        null: measurement of the calibration set.
    """
    found: dict[Key, np.ndarray] = {}
    reductions: tuple[Reduction, ...] = ("sum", "mean")
    for reduction in reductions:
        found[LATENT._replace(reduction=reduction)] = statistics.latent(m, reduction=reduction)
        key = NEG_LOG_PROB._replace(reduction=reduction)
        found[key] = statistics.neg_log_prob(m, reduction=reduction)
        for layer in range(len(m.sizes)):
            key = reconstruction(layer, reduction)
            found[key] = statistics.reconstruction(m, layer, reduction=reduction)
    latent, null_latent = found[LATENT], statistics.latent(null)
    return found | {
        PER_ENERGY: statistics.per_energy(latent, m.energy),
        TWO_SIDED: typicality(-latent, -null_latent),
        CLASS_CENTRED: class_centred(latent, m.label, null_latent, null.label),
        PROFILE: statistics.profile(m, null),
        SWITCHES: statistics.switches(m, null),
    }
