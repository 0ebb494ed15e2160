"""What the BatchNorm test is run on, and how much of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from experiments import common
from experiments.recipes import ModelName, Recipe

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
    """How much is scored.

    Attributes:
        images: of each set.
        null_images: held-out trusted images that the p-values are calibrated on.
        draws: Monte-Carlo draws of companions and noise.
        batch_size: b of the test (the paper's is 64).
    """

    images: int
    null_images: int
    draws: int
    batch_size: int = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One trusted set, one model, several OOD sets.

    Attributes:
        experiment: its name in the results record.
        title: of the report.
        preset: name of the preset.
        recipe: the model and its training.
        ensemble: the models behind WAIC; None for no WAIC.
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        sizes: how much is scored.
        notes: paragraphs for the report on choices that were made, and on what.
    """

    experiment: str
    title: str
    preset: str
    recipe: Recipe
    ensemble: Recipe | None = None
    in_dist: str
    ood: tuple[str, ...]
    sizes: Sizes
    notes: str = ""

    @property
    def control(self):
        """Name of the set that is trusted, and judged as if it were not."""
        return f"{self.in_dist} (control)"

    @property
    def null(self):
        """Name of the calibration set."""
        return f"{self.in_dist} (calibration)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """How much of everything, by name: the model and its training, WAIC's ensemble, the scoring."""

    recipe: Recipe
    ensemble: Recipe | None = None
    sizes: Sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
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
        """Where the run is written."""
        return self.out or Path(f"runs/{experiment}-{self.model}-{self.preset}")


def smoke(model: ModelName) -> Preset:
    """The machinery, not the claim: tiny models, few images."""
    recipe = Recipe(model=model, width=4, steps=8)
    return Preset(
        recipe=recipe,
        ensemble=dataclasses.replace(recipe, steps=4, members=2, statistics_images=64),
        sizes=Sizes(images=32, null_images=32, draws=2, batch_size=32),
    )


def study(
    config: Config,
    experiment: str,
    *,
    title: str,
    presets: Mapping[tuple[str, str], Preset],
    sets: tuple[str, tuple[str, ...]],
    smoke_sets: tuple[str, tuple[str, ...]],
    notes: str,
) -> Study:
    """The study that a command line asks for.

    Args:
        config: the command line.
        experiment: its name in the results record.
        title: of the report.
        presets: by (model, preset).
        sets: name of the trusted set, and those of the OOD sets.
        smoke_sets: embedded ones in their place, for the preset smoke.
        notes: for the report.
    """
    is_smoke = config.preset == "smoke"
    preset = smoke(config.model) if is_smoke else presets[config.model, config.preset]
    recipe = preset.recipe
    in_dist, ood = smoke_sets if is_smoke else sets
    if config.steps is not None:
        recipe = dataclasses.replace(recipe, steps=config.steps)
    return Study(
        experiment=experiment,
        title=title,
        preset=config.preset,
        recipe=recipe,
        ensemble=preset.ensemble if config.waic else None,
        in_dist=in_dist,
        ood=ood,
        sizes=preset.sizes,
        notes=notes,
    )
