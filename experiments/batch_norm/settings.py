"""What the BatchNorm test is run on, and how much of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from experiments.lab import common
from jaxood.train import Recipe

ModelName = Literal["realnvp", "vae", "pixelcnn"]
R1, R2 = 0.1, 0.9
"""The paper's main setting (Section 6)."""
SWEEP_R2 = (0.15, 0.3, 0.5, 0.9)
"""Its Table 5, with r1 -> 0."""
RATIOS = tuple(sorted({0.0, R1, R2, 1.0, *SWEEP_R2}))
"""Every ratio r at which sets are scored, for Tables 1, 2 and 5 and Figure 3."""
SMOKE_SETS = ("digits", ("digits/rotated", "digits/scaled_0.5"))
"""Embedded trusted and OOD sets, for the preset smoke."""
CONTAMINATION = (0.1, 0.5)
"""Shares of OOD images in the mixed test sets."""
SMALLEST: Mapping[ModelName, dict[str, Any]] = {
    "realnvp": {"depth": 1},
    "vae": {},
    "pixelcnn": {"depth": 1, "options": {"dropout": 0.0}},
}
"""The depth of each model, where it has one, in the presets smoke and small."""


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


NOTES = """
Choices of model and training that the paper leaves open were made without looking at any OOD set:
Adam at its default 1e-3, no augmentation, evaluation-mode statistics from one pass over the whole
training set (preset small: over part of it). PixelCNN++ learns slowly at that rate for the few
hundred steps of the preset small, which takes 2e-3 after a warm-up: tried on trusted images alone
(Fashion-MNIST at 12×12), it was ahead for as long as neither rate was lowered. Its parameters are
averaged over steps, as its authors do. WAIC's five members are smaller and trained for fewer steps
in the preset small. Rotation is by an angle between 90° and 270°, filled with black.
"""


class Amount(NamedTuple):
    """How much training a preset small can afford.

    Attributes:
        steps: by model.
        statistics_images: that the evaluation-mode statistics are taken over.
    """

    steps: Mapping[ModelName, int]
    statistics_images: int


def smoke(model: ModelName) -> Preset:
    """The machinery, not the claim: tiny models, few images."""
    recipe = Recipe(model=model, width=4, steps=8, **SMALLEST[model])
    return Preset(
        recipe=recipe,
        ensemble=dataclasses.replace(recipe, steps=4, members=2, statistics_images=64),
        sizes=Sizes(images=32, null_images=32, draws=2, batch_size=32),
    )


def small(model: ModelName, amount: Amount, ensemble: Amount) -> Preset:
    """The paper's effect on two CPU cores: narrow models, short training, fewer images."""

    def recipe(width, amount, **settings):
        images = amount.statistics_images
        steps = amount.steps[model]
        settings = SMALLEST[model] | settings
        return Recipe(model=model, width=width, steps=steps, statistics_images=images, **settings)

    if model == "pixelcnn":
        faster = {"learning_rate": 2e-3, "warmup": 16}
        return Preset(
            recipe=recipe(24, amount, average_decay=0.95, **faster),
            ensemble=recipe(8, ensemble, members=5, **faster),
            sizes=Sizes(images=128, null_images=192, draws=2),
        )
    return Preset(
        recipe=recipe(16, amount, **({"depth": 2} if model == "realnvp" else {})),
        ensemble=recipe(8, ensemble, members=5),
        sizes=Sizes(images=200, null_images=300, draws=2),
    )


def paper(recipe: Recipe) -> Preset:
    """A model of the paper's size, five of them for WAIC, and its number of images."""
    return Preset(
        recipe=recipe,
        ensemble=dataclasses.replace(recipe, members=5),
        sizes=Sizes(images=2500, null_images=2500, draws=10),
    )


def presets(
    amount: Amount, ensemble: Amount, *, paper_steps: int, realnvp: Mapping[str, Any]
) -> dict[tuple[str, str], Preset]:
    """Presets by (model, name).

    Width, depth, ensemble and batch size of `paper` are the paper's (Section 6, Appendix C.1); it
    states neither the length of the training nor the draws.

    Args:
        amount: of training, in the preset small.
        ensemble: of training of WAIC's members there.
        paper_steps: 100 epochs.
        realnvp: width and depth of the paper's RealNVP.
    """
    papers = [
        Recipe(model="realnvp", steps=paper_steps, **realnvp),
        Recipe(model="vae", width=32, steps=paper_steps),
        Recipe(
            model="pixelcnn",
            width=80,
            depth=5,
            steps=paper_steps,
            average_decay=0.9995,
            options={"dropout": 0.5},
        ),
    ]
    made: dict[tuple[str, str], Preset] = {(r.model, "paper"): paper(r) for r in papers}
    for model in get_args(ModelName):
        made |= {(model, "small"): small(model, amount, ensemble), (model, "smoke"): smoke(model)}
    return made


def study(
    config: Config,
    experiment: str,
    *,
    title: str,
    presets: Mapping[tuple[str, str], Preset],
    in_dist: str,
    ood: tuple[str, ...],
    notes: str,
) -> Study:
    """The study that a command line asks for; the preset smoke takes embedded images instead.

    Args:
        config: the command line.
        experiment: its name in the results record.
        title: of the report.
        presets: by (model, preset).
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        notes: for the report, besides `NOTES`.
    """
    preset = presets[config.model, config.preset]
    if config.preset == "smoke":
        in_dist, ood = SMOKE_SETS
    return Study(
        experiment=experiment,
        title=title,
        preset=config.preset,
        recipe=preset.recipe.with_steps(config.steps),
        ensemble=preset.ensemble if config.waic else None,
        in_dist=in_dist,
        ood=ood,
        sizes=preset.sizes,
        notes=NOTES + notes,
    )
