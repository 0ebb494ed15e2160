"""What the BatchNorm test is run on, and how much of it."""

import dataclasses
from collections.abc import Mapping

from jaxood.density import DensityModel

R1, R2 = 0.1, 0.9
"""The paper's main setting (Section 6)."""
SWEEP_R2 = (0.15, 0.3, 0.5, 0.9)
"""Its Table 5, with r1 -> 0."""
RATIOS = tuple(sorted({0.0, R1, R2, 1.0, *SWEEP_R2}))
"""Every ratio r at which sets are scored, for Tables 1, 2 and 5 and Figure 3."""
CONTAMINATION = (0.1, 0.5)
"""Shares of OOD images in the mixed test sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything. A preset is one of these."""

    channels: int
    """Width of the model's networks."""
    blocks: int
    """Their residual blocks."""
    steps: int
    """Training steps."""
    images: int
    """Images of each set that are scored."""
    null_images: int
    """Held-out trusted images that the p-values are calibrated on."""
    draws: int
    """Monte-Carlo draws of companions and noise."""
    batch_size: int = 64
    """Batch size b, in training and in the test (the paper's is 64)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One trusted set, one model, several OOD sets.

    Attributes:
        experiment: its name in the results record.
        title: of the report.
        preset: name of the preset.
        model_name: in the results record.
        model: the density model.
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        sizes: how much of everything.
        paper_auroc: the paper's Table 2 and, under ``batch_norm_delta@<r2>``, Table 5, by
            (set, score).
        paper_bpd: its Table 1, by (model, set, mode).
        notes: paragraphs for the report on choices that were made, and on what.
    """

    experiment: str
    title: str
    preset: str
    model_name: str
    model: DensityModel
    in_dist: str
    ood: tuple[str, ...]
    sizes: Sizes
    paper_auroc: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    paper_bpd: Mapping[tuple[str, str, str], float] = dataclasses.field(default_factory=dict)
    notes: str = ""

    @property
    def control(self):
        """Name of the set that is trusted, and judged as if it were not."""
        return f"{self.in_dist} (control)"

    @property
    def null(self):
        """Name of the calibration set."""
        return f"{self.in_dist} (calibration)"
