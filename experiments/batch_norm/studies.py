"""The paper's two experiments, on CIFAR-10 and on Fashion-MNIST, in three presets a model."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, get_args

from experiments.batch_norm import study
from experiments.batch_norm.settings import Config, ModelName, Sizes, Study
from jaxood.report import label
from jaxood.report.record import Record
from jaxood.train import Recipe


class Amount(NamedTuple):
    """The amount of training in the preset small.

    Attributes:
        steps: number of updates, by model.
        statistics_images: number of images behind the evaluation-mode statistics.
    """

    steps: Mapping[ModelName, int]
    statistics_images: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One of the paper's experiments.

    Attributes:
        name: name of the command and of the experiment in the results record.
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        realnvp: width and depth of the paper's RealNVP.
        epochs_100: training steps of the preset paper, which are those of 100 epochs.
        small: training in the preset small.
        members: training of WAIC's members in the preset small.
    """

    name: str
    in_dist: str
    ood: tuple[str, ...]
    realnvp: Mapping[str, Any]
    epochs_100: int
    small: Amount
    members: Amount

    def study_of(self, flags: Config) -> Study:
        """Return the study that a command line asks for."""
        chosen = self.presets[flags.model, flags.preset]
        recipe = chosen.recipe.with_steps(flags.steps)
        return dataclasses.replace(
            chosen, recipe=recipe, ensemble=chosen.ensemble if flags.waic else None
        )

    def main(self, flags: Config) -> Record:
        """Run the experiment."""
        return study.run(self.study_of(flags), flags, flags.folder(self.name))

    @cached_property
    def presets(self) -> dict[tuple[str, str], Study]:
        """Studies by model and preset.

        ``paper`` has width, depth, ensemble and batch size of the paper (Section 6, Appendix C.1),
        which states neither the length of the training nor the number of draws. ``small`` shows
        the paper's effect on two CPU cores. ``smoke`` checks on embedded digits that everything
        runs.
        """
        make = {"smoke": self._smoke, "small": self._small, "paper": self._paper}
        return {
            (model, preset): make[preset](model) for model in get_args(ModelName) for preset in make
        }

    def _smoke(self, model: ModelName) -> Study:
        # One batch of statistics: all images would compile a second program, for the last batch.
        recipe = Recipe(model=model, width=4, steps=8, statistics_images=64, **_SMALLEST[model])
        return Study(
            experiment=self.name,
            title=self._title,
            in_dist="digits",
            ood=("digits/rotated", "digits/scaled_0.5"),
            recipe=recipe,
            ensemble=dataclasses.replace(recipe, steps=4, members=2),
            sizes=Sizes(images=32, null_images=32, draws=2, batch_size=32),
        )

    def _small(self, model: ModelName) -> Study:
        def recipe(amount: Amount, **settings: Any) -> Recipe:
            settings = {"statistics_images": amount.statistics_images} | settings
            return Recipe(model=model, steps=amount.steps[model], **_SMALLEST[model] | settings)

        sizes = Sizes(images=200, null_images=300, draws=2)
        slower: dict[str, Any] = {"depth": 2} if model == "realnvp" else {}
        faster: dict[str, Any] = {}
        width = 16
        if model == "pixelcnn":
            faster = {"learning_rate": 2e-3, "warmup": 16}
            slower, width = {"average_decay": 0.95}, 24
            sizes = Sizes(images=128, null_images=192, draws=2)
        return self._study(
            recipe(self.small, width=width, **slower, **faster),
            recipe(self.members, width=8, members=5, **faster),
            sizes,
        )

    def _paper(self, model: ModelName) -> Study:
        settings: Mapping[ModelName, Mapping[str, Any]] = {
            "realnvp": self.realnvp,
            "vae": {"width": 32},
            "pixelcnn": {
                "width": 80,
                "depth": 5,
                "options": {"dropout": 0.5},
                "average_decay": 0.9995,
            },
        }
        recipe = Recipe(model=model, steps=self.epochs_100, **settings[model])
        members = dataclasses.replace(recipe, members=5)
        return self._study(recipe, members, Sizes(images=2500, null_images=2500, draws=10))

    def _study(self, recipe: Recipe, ensemble: Recipe, sizes: Sizes) -> Study:
        return Study(
            experiment=self.name,
            title=self._title,
            in_dist=self.in_dist,
            ood=self.ood,
            recipe=recipe,
            ensemble=ensemble,
            sizes=sizes,
        )

    @property
    def _title(self) -> str:
        return f"The BatchNorm test on {label(self.in_dist)}"


_SMALLEST: Mapping[ModelName, dict[str, Any]] = {
    "realnvp": {"depth": 1},
    "vae": {},
    "pixelcnn": {"depth": 1, "options": {"dropout": 0.0}},
}

_CIFAR10_OOD = (
    "cifar10/rotated",
    "svhn_cropped",
    "downsampled_imagenet",
    "lsun",
    "tiny_imagenet32",
    "celeb_a",
    "cifar100",
)
# The paper has no smoothly resampled rotation: it tells the rotation from the ragged resampling.
_FASHION_MNIST_OOD = (
    "fashion_mnist/rotated",
    "mnist",
    "omniglot",
    "kmnist",
    "fashion_mnist/rotated_bilinear",
)

CIFAR10 = Experiment(
    name="bn_cifar",
    in_dist="cifar10",
    ood=_CIFAR10_OOD,
    realnvp={"width": 64, "depth": 8},
    epochs_100=78_100,
    small=Amount({"realnvp": 500, "vae": 300, "pixelcnn": 250}, statistics_images=9600),
    members=Amount({"realnvp": 60, "vae": 60, "pixelcnn": 50}, statistics_images=1600),
)
FASHION_MNIST = Experiment(
    name="bn_fashion_mnist",
    in_dist="fashion_mnist",
    ood=_FASHION_MNIST_OOD,
    realnvp={"width": 32, "depth": 4},
    epochs_100=93_700,
    small=Amount({"realnvp": 300, "vae": 300, "pixelcnn": 300}, statistics_images=12_800),
    members=Amount({"realnvp": 80, "vae": 80, "pixelcnn": 50}, statistics_images=3200),
)
