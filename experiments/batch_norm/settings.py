"""The settings of the BatchNorm test: sets, models, and how much is trained and scored."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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

    def study(self, presets: Mapping[tuple[str, str], Study]) -> Study:
        """Return the study that the flags ask for, of those by model and preset."""
        study = presets[self.model, self.preset]
        recipe = study.recipe.with_steps(self.steps)
        ensemble = study.ensemble if self.waic else None
        return dataclasses.replace(study, recipe=recipe, ensemble=ensemble)


class Amount(NamedTuple):
    """The amount of training in the preset small.

    Attributes:
        steps: number of updates, by model.
        statistics_images: number of images behind the evaluation-mode statistics.
    """

    steps: Mapping[ModelName, int]
    statistics_images: int


def presets(
    *,
    experiment: str,
    title: str,
    in_dist: str,
    ood: tuple[str, ...],
    realnvp: Mapping[str, Any],
    epochs_100: int,
    small: Amount,
    members: Amount,
) -> dict[tuple[str, str], Study]:
    """Make the presets of one of the paper's experiments, by model and name.

    ``paper`` has width, depth, ensemble and batch size of the paper (Section 6, Appendix C.1),
    which states neither the length of the training nor the number of draws. ``small`` shows the
    paper's effect on two CPU cores. ``smoke`` takes embedded digits and checks that everything
    runs.

    Args:
        experiment: as in `Study`.
        title: likewise.
        in_dist: likewise.
        ood: likewise.
        realnvp: width and depth of the paper's RealNVP.
        epochs_100: training steps of ``paper``, which are those of 100 epochs.
        small: training in ``small``.
        members: training of WAIC's members in ``small``.
    """
    study = functools.partial(Study, experiment=experiment, title=title)
    digits = functools.partial(study, in_dist="digits", ood=("digits/rotated", "digits/scaled_0.5"))
    images = functools.partial(study, in_dist=in_dist, ood=ood)
    made = {}
    for model in get_args(ModelName):
        made[model, "smoke"] = _smoke(digits, model)
        made[model, "small"] = _small(images, model, small, members)
        made[model, "paper"] = _paper(images, model, epochs_100, realnvp)
    return made


_SMALLEST: Mapping[ModelName, dict[str, Any]] = {
    "realnvp": {"depth": 1},
    "vae": {},
    "pixelcnn": {"depth": 1, "options": {"dropout": 0.0}},
}


def _smoke(study: Callable[..., Study], model: ModelName) -> Study:
    recipe = Recipe(model=model, width=4, steps=8, **_SMALLEST[model])
    return study(
        recipe=recipe,
        ensemble=dataclasses.replace(recipe, steps=4, members=2, statistics_images=64),
        sizes=Sizes(images=32, null_images=32, draws=2, batch_size=32),
    )


def _small(study: Callable[..., Study], model: ModelName, amount: Amount, members: Amount) -> Study:
    def recipe(amount: Amount, **settings: Any) -> Recipe:
        settings = {"statistics_images": amount.statistics_images} | settings
        return Recipe(model=model, steps=amount.steps[model], **_SMALLEST[model] | settings)

    if model == "pixelcnn":
        faster = {"learning_rate": 2e-3, "warmup": 16}
        return study(
            recipe=recipe(amount, width=24, average_decay=0.95, **faster),
            ensemble=recipe(members, width=8, members=5, **faster),
            sizes=Sizes(images=128, null_images=192, draws=2),
        )
    deeper = {"depth": 2} if model == "realnvp" else {}
    return study(
        recipe=recipe(amount, width=16, **deeper),
        ensemble=recipe(members, width=8, members=5),
        sizes=Sizes(images=200, null_images=300, draws=2),
    )


def _paper(
    study: Callable[..., Study], model: ModelName, steps: int, realnvp: Mapping[str, Any]
) -> Study:
    settings: Mapping[str, Any] = {
        "realnvp": realnvp,
        "vae": {"width": 32},
        "pixelcnn": {
            "width": 80,
            "depth": 5,
            "options": {"dropout": 0.5},
            "average_decay": 0.9995,
        },
    }
    recipe = Recipe(model=model, steps=steps, **settings[model])
    return study(
        recipe=recipe,
        ensemble=dataclasses.replace(recipe, members=5),
        sizes=Sizes(images=2500, null_images=2500, draws=10),
    )
