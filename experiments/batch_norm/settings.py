"""The settings of the BatchNorm test: sets, models, and how much is trained and scored."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import lab
from jaxood.train import Recipe

ModelName = Literal["realnvp", "vae", "pixelcnn"]
R1, R2 = 0.1, 0.9
"""The paper's main setting (Section 6)."""
SWEEP_R2 = (0.15, 0.3, 0.5, 0.9)
"""Values of r2 in its Table 5, with r1 -> 0."""
RATIOS = tuple(sorted({0.0, R1, R2, 1.0, *SWEEP_R2}))
"""Every ratio r at which sets are scored, for Tables 1, 2 and 5 and Figure 3."""
CONTAMINATION = (0.1, 0.5)
"""Shares of OOD images in the mixed test sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """The amount of scoring.

    Attributes:
        images: number of images of each set.
        null_images: number of images in the calibration set.
        draws: Monte-Carlo draws of companions and noise.
        batch_size: b of the test (the paper's is 64).
    """

    images: int
    null_images: int
    draws: int
    batch_size: int = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A model, the images that it trusts, and OOD sets that it is to tell from them.

    Attributes:
        experiment: name of the experiment in the results record.
        title: title of the report.
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        recipe: the model and its training.
        ensemble: the models behind WAIC; None for no WAIC.
        sizes: the amount of scoring.
    """

    experiment: str
    title: str
    in_dist: str
    ood: tuple[str, ...]
    recipe: Recipe
    ensemble: Recipe | None = None
    sizes: Sizes

    @property
    def control(self) -> str:
        """Name of trusted images that are judged as if they were OOD images."""
        return f"{self.in_dist} (control)"

    @property
    def null(self) -> str:
        """Name of the calibration set."""
        return f"{self.in_dist} (calibration)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the paper's experiments."""

    model: ModelName = "realnvp"
    """Density model; each has a run and a report of its own."""
    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds, embedded digits, checks that everything runs. small: the paper's effect in
    a quarter to half an hour on 2 CPU cores. paper: the paper's sizes, for an accelerator."""
    steps: int | None = None
    """Training steps, in place of the preset's."""
    waic: bool = True
    """Train an ensemble as well, for WAIC."""

    def folder(self, experiment: str) -> Path:
        """Return the folder of the run."""
        return self.out or Path(f"runs/{experiment}-{self.model}-{self.preset}")
