"""The settings of the NRM experiments: sets, recipes, and how much is trained and measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jaxood.models.nrm import LossWeights
from jaxood.train import Recipe

Architecture = Literal["all_cnn_c", "convpool_cnn_c", "all_conv_13", "resnet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One trusted set, some models of it that differ in their seed, and several OOD sets.

    Attributes:
        recipe: the model and its training.
        in_dist: name of the trusted set.
        ood: names of the OOD sets, those of the paper's main claim first.
        main: number of OOD sets that the main claim is about.
        classes: sets of one class each, by name: (set, label).
        families: names of sets that are to look alike (the paper's Figure 4b).
        seeds: seeds of the models.
        images: number of images of each set.
        null_images: number of images in the calibration set.
        layer: the layer whose features and reconstruction loss are shown (the paper's is 6).
    """

    recipe: Recipe
    in_dist: str
    ood: tuple[str, ...]
    main: int
    classes: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    families: tuple[tuple[str, ...], ...] = ()
    seeds: tuple[int, ...] = (0,)
    images: int
    null_images: int
    layer: int = 6

    @property
    def null(self) -> str:
        """Name of the calibration set."""
        return f"{self.in_dist} (calibration)"

    @property
    def train(self) -> str:
        """Name of the training images that are judged as if they were OOD images."""
        return f"{self.in_dist} (train)"


def recipe(
    width: int,
    steps: int,
    *,
    model: Architecture = "all_cnn_c",
    batch_size: int = 64,
    augment: bool = False,
) -> Recipe:
    """Return the recipe that was chosen on trusted images; `experiments.nrm_ablation` varies it."""
    return Recipe(
        model=model,
        width=width,
        options={"batch_norm": False, "template": 1.0},
        steps=steps,
        batch_size=batch_size,
        optimizer="muon",
        learning_rate=0.02,
        schedule="cosine",
        loss_weights=LossWeights(cross_entropy=1, reconstruction=10, negativity=40, path=3),
        augment=augment,
    )


SMALL = Study(
    recipe=recipe(16, 1000),
    in_dist="cifar10",
    ood=(
        "svhn_cropped",
        "celeb_a/scaled_0.8",
        "celeb_a/unit_scaled_0.8",
        "cifar100",
        "tiny_imagenet32",
    ),
    main=3,
    classes={
        "cifar10 (automobile)": ("cifar10", 1),
        "cifar10 (truck)": ("cifar10", 9),
        "cifar100 (pickup truck)": ("cifar100", 58),
        "cifar100 (girl)": ("cifar100", 35),
    },
    families=(
        ("cifar10 (automobile)", "cifar10 (truck)", "cifar100 (pickup truck)"),
        ("celeb_a/scaled_0.8", "cifar100 (girl)"),
    ),
    images=2000,
    null_images=2000,
)
PRESETS = {
    "smoke": Study(
        recipe=recipe(4, 6, batch_size=16),
        in_dist="photos",
        ood=("photos/scaled_0.5", "photos/rotated"),
        main=1,
        classes={"photos (china)": ("photos", 0)},
        families=(("photos/rotated", "photos (china)"),),
        images=32,
        null_images=32,
    ),
    "small": SMALL,
    # The paper's network and images; it states no training. 200 epochs are usual for the network.
    "paper": dataclasses.replace(
        SMALL,
        recipe=recipe(96, 78_100, batch_size=128, augment=True),
        images=5000,
        null_images=5000,
    ),
}
