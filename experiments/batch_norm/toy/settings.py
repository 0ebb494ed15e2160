"""The BatchNorm tests of the toy experiment, by preset."""

import dataclasses
from typing import Any

from experiments.batch_norm.toy.detection import Case
from jaxood.train import Recipe


def _realnvp(width: int, steps: int, depth: int = 1, **settings: Any) -> Recipe:
    return Recipe(model="realnvp", width=width, depth=depth, steps=steps, **settings)


DIGITS = Case(
    in_dist="digits",
    ood=("digits/scaled_0.5", "digits/rotated"),
    recipe=_realnvp(width=8, steps=150),
    batch_size=16,
    images=98,
    draws=2,
)
"""At r = 0.9 a batch of 16 holds 14 test images, so 98 images are seven such groups."""
FASHION = dataclasses.replace(
    DIGITS, in_dist="fashion_mnist", ood=("mnist", "kmnist", "fashion_mnist/rotated")
)
PRESETS = {
    "smoke": (
        dataclasses.replace(
            DIGITS,
            recipe=_realnvp(width=2, steps=4, statistics_images=64),
            batch_size=8,
            images=14,
            draws=1,
        ),
    ),
    # With the exact Jacobian images have 8x8 pixels, as digits do; without it they have 28x28.
    "small": (
        DIGITS,
        dataclasses.replace(
            FASHION,
            shrink=4,
            recipe=_realnvp(width=8, steps=300, statistics_images=8192),
            draws=1,
        ),
        dataclasses.replace(
            FASHION,
            recipe=_realnvp(width=8, steps=120, statistics_images=8192),
            exact=False,
            batch_size=64,
            images=174,
            draws=1,
        ),
    ),
    "paper": (
        dataclasses.replace(DIGITS, images=588, draws=8),
        dataclasses.replace(
            FASHION,
            shrink=2,
            recipe=_realnvp(width=32, depth=4, steps=9_370),
            batch_size=64,
            images=580,
            draws=4,
        ),
        dataclasses.replace(
            FASHION,
            recipe=_realnvp(width=32, depth=4, steps=93_700),
            exact=False,
            batch_size=64,
            images=2_500,
            draws=10,
        ),
    ),
}
