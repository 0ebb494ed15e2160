"""The one shape of a score: an object made of plain data that maps images to numbers.

A builder, such as `jaxood.scores.t_perm`, takes what the score needs and returns a `Score`. The
function that computes it takes the score's data and images, and is found by the score's name::

    @scored("brightness", per_image=True)
    def _brightness(score, images):
        return np.asarray(images).mean((1, 2, 3)) * score.options["sign"]

    def brightness(sign=1.0):
        return Score("brightness", options={"sign": sign})
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxood.density import Array, Variables, check_images


class Estimate(NamedTuple):
    """A Monte-Carlo mean, one an image.

    Attributes:
        mean: float32 ``(n,)``.
        stderr: float32 ``(n,)``, its standard error over draws; NaN for a single draw.
    """

    mean: np.ndarray
    stderr: np.ndarray


Evaluate = Callable[["Score", Array], np.ndarray | Estimate]
"""The function that computes a score of uint8 images ``(n, h, w, c)``, n > 0."""


class _Kind(NamedTuple):
    evaluate: Evaluate
    per_image: bool


_KINDS: dict[str, _Kind] = {}


def names() -> tuple[str, ...]:
    """Return the names of all scores that there are."""
    return tuple(_KINDS)


def scored(name: str, *, per_image: bool) -> Callable[[Evaluate], Evaluate]:
    """Register the function that computes the scores of a name: a decorator.

    Args:
        name: name of the scores, as in a results record.
        per_image: whether an image scores the same, to the bit, whatever images it arrives with.
            Otherwise this is a batch score, which judges sets.

    Returns:
        The decorator. The function that it takes maps a `Score` and uint8 images ``(n, h, w, c)``,
        n > 0, to values ``(n,)``, HIGHER = MORE OOD, or to an `Estimate`.

    Raises:
        ValueError: if another function computes scores of that name.
    """

    def register(evaluate: Evaluate) -> Evaluate:
        known = _KINDS.get(name)
        if known and _place(known.evaluate) != _place(evaluate):  # a notebook's cell runs again
            raise ValueError(f"there are scores with the name {name!r} already: choose another")
        _KINDS[name] = _Kind(evaluate, per_image)
        return evaluate

    return register


def _place(function: Any) -> tuple[str, str]:
    return function.__module__, function.__qualname__


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """A score: uint8 images ``(n, h, w, c)`` to float32 ``(n,)``, HIGHER = MORE OOD.

    Attributes:
        name: name of the score; the function that `scored` registered under it computes the score.
        model: a `DensityModel`, a `Glow` or an `NRM`; None for a score without a model.
        variables: variables of the model; each device that they lie on scores batches of its own.
            They are empty for a score without a model.
        options: numbers, strings, truth values and None by name.
        arrays: arrays by name, such as the log-likelihoods of trusted images.

    Raises:
        ValueError: if no score has that name.
        TypeError: if an option or an array is something else.
    """

    name: str
    model: Any = None
    variables: Variables = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.name not in _KINDS:
            raise ValueError(f"no score has the name {self.name!r}; there are {', '.join(_KINDS)}")
        options = {name: self._option(name, value) for name, value in self.options.items()}
        arrays = {name: self._array(name, value) for name, value in self.arrays.items()}
        object.__setattr__(self, "options", MappingProxyType(options))
        object.__setattr__(self, "arrays", MappingProxyType(arrays))

    def _option(self, name: str, value: Any) -> Any:
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"the option {name!r} of {self.name} is {value!r}, not plain data")

    def _array(self, name: str, value: Any) -> Array:
        value = value if isinstance(value, jax.Array) else np.asarray(value)
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise TypeError(f"the array {name!r} of {self.name} is no array of numbers")
        return value

    @property
    def per_image(self) -> bool:
        """True if an image scores the same whatever images it arrives with."""
        return _KINDS[self.name].per_image

    def __call__(self, images: Array) -> np.ndarray:
        """Score images.

        Args:
            images: uint8 ``(n, h, w, c)``, on the host or the device.

        Returns:
            float32 ``(n,)``, higher = more OOD.

        Raises:
            TypeError: if the images are not uint8.
            ValueError: if they have another shape, or are too few for a batch score.
        """
        return self.estimate(images).mean

    def estimate(self, images: Array) -> Estimate:
        """Score images, with standard errors.

        Args:
            images: uint8 ``(n, h, w, c)``, on the host or the device.

        Returns:
            An `Estimate`; the standard error of a score that draws nothing is 0.

        Raises:
            TypeError: if the images are not uint8.
            ValueError: if they have another shape, or are too few for a batch score.
        """
        check_set(images)
        if len(images) == 0 and self.per_image:
            return Estimate(np.zeros(0, np.float32), np.zeros(0, np.float32))
        values = _KINDS[self.name].evaluate(self, images)
        if not isinstance(values, Estimate):
            values = Estimate(np.asarray(values), np.zeros(len(images)))
        return Estimate(*(np.asarray(part, np.float32) for part in values))


def check_set(images: Array) -> None:
    """Check that an array holds uint8 images ``(n, h, w, c)``.

    Raises:
        TypeError: if they are not uint8.
        ValueError: if they have another shape.
    """
    check_images(images)
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (n, h, w, c), got {images.shape}")
