"""The one shape of a score: an object made of plain data that maps images to numbers.

A builder, such as `jaxood.scores.t_perm`, takes what the score needs and returns a `Score`. What it
computes is a pure function of images and of the score's data, found by the score's name::

    @scored("brightness", per_image=True)
    def _brightness(score, images):
        return images.mean((1, 2, 3)) * score.options["sign"]

    def brightness(sign=1.0):
        return Score("brightness", options={"sign": sign})
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxood.density import Array


class Estimate(NamedTuple):
    """A Monte-Carlo mean, one an image.

    Attributes:
        mean: float32 ``(n,)``.
        stderr: float32 ``(n,)``, its standard error over draws; NaN for a single draw.
    """

    mean: np.ndarray
    stderr: np.ndarray


class _Kind(NamedTuple):
    evaluate: Callable[[Score, Any], np.ndarray | Estimate]
    per_image: bool


_KINDS: dict[str, _Kind] = {}


def scored(name: str, *, per_image: bool):
    """Say what scores of a name compute: a decorator of ``(score, images) -> values``.

    Args:
        name: of the scores, as in a results record.
        per_image: whether an image scores the same, to the bit, whatever images it arrives with.
            Otherwise this is a batch score, which judges sets.

    Returns:
        The decorator. The function that it takes maps a `Score` and uint8 images ``(n, h, w, c)``,
        n > 0, to values ``(n,)``, HIGHER = MORE OOD, or to an `Estimate`.

    Raises:
        ValueError: if scores of that name are there already.
    """

    def register(evaluate: Callable[[Score, Any], np.ndarray | Estimate]):
        if name in _KINDS:
            raise ValueError(f"there are scores with the name {name!r} already: choose another")
        _KINDS[name] = _Kind(evaluate, per_image)
        return evaluate

    return register


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """A score: uint8 images ``(n, h, w, c)`` to float32 ``(n,)``, HIGHER = MORE OOD.

    Attributes:
        name: of the score, under which `scored` knows what it computes.
        model: a `DensityModel`, a `Glow` or an `NRM`; None for a score without a model.
        variables: of the model; each device that they lie on scores batches of its own.
        options: numbers, words and truth values by name.
        arrays: arrays by name, such as the log-likelihoods of trusted images.
    """

    name: str
    model: Any = None
    variables: Any = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.name not in _KINDS:
            raise ValueError(f"no score has the name {self.name!r}; there are {', '.join(_KINDS)}")
        for field in ("options", "arrays"):
            object.__setattr__(self, field, MappingProxyType(dict(getattr(self, field))))

    @property
    def per_image(self) -> bool:
        """Whether an image scores the same whatever images it arrives with."""
        return _KINDS[self.name].per_image

    def __call__(self, images: Array) -> np.ndarray:
        """Score images.

        Args:
            images: uint8 ``(n, h, w, c)``, on the host or the device.

        Returns:
            float32 ``(n,)``, higher = more OOD.

        Raises:
            TypeError: if the images are of another type.
            ValueError: if they have another shape, or are too few for a batch score.
        """
        return self.estimate(images).mean

    def estimate(self, images: Array) -> Estimate:
        """Score images, with standard errors.

        Args:
            images: as of a call.

        Returns:
            An `Estimate`; the standard error of a score that draws nothing is 0.

        Raises:
            TypeError: as a call.
            ValueError: as a call.
        """
        check_images(images)
        if len(images) == 0 and self.per_image:
            return Estimate(np.zeros(0, np.float32), np.zeros(0, np.float32))
        values = _KINDS[self.name].evaluate(self, images)
        if not isinstance(values, Estimate):
            values = Estimate(np.asarray(values), np.zeros(len(images)))
        return Estimate(*(np.asarray(part, np.float32) for part in values))


def check_images(images: Array) -> None:
    """Refuse what is no array of images.

    Args:
        images: uint8 ``(n, h, w, c)``.

    Raises:
        TypeError: if they are of another type.
        ValueError: if they have another shape.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 with levels 0 to 255, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (n, h, w, c), got {images.shape}")
