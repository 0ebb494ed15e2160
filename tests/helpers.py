"""Helpers of all tests: the repository's root, command lines, variables of models."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxood.nn import native

ROOT = Path(__file__).parents[1]


def command(*arguments: Any) -> list[str]:
    """The command line that runs a module with arguments."""
    return [sys.executable, "-m", *map(str, arguments)]


def by_native_code(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Compile with native operations, or skip the test where there are none; or without them."""
    if not wanted:
        monkeypatch.setattr(native, "instructions", lambda: None)
    elif native.instructions() is None:
        pytest.skip("the native operations are not built")


def perturb(variables: Any, scale: float = 0.1, seed: int = 0) -> Any:
    """Variables away from initialization.

    Args:
        variables: variables of a model, as its ``init`` returns them.
        scale: standard deviation of the noise that is added to each parameter.
        seed: seed of the noise.

    Returns:
        Variables of the same shapes, with noisy parameters and random running statistics.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        if path[0].key == "params":
            value = np.asarray(value) + scale * noise
        else:
            value = 0.3 * noise if path[-1].key == "mean" else np.exp(0.3 * noise)
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, variables)


def initial(init: Callable[..., Any], *args: Any) -> Any:
    """The variables that a model's ``init`` returns for the random key 0, compiled."""
    return jax.jit(init)(jax.random.key(0), *args)


@dataclasses.dataclass(frozen=True)
class TinyScore:
    """A function of images as a score that a detector takes.

    Attributes:
        function: maps images ``(n, h, w, c)`` to scores ``(n,)``.
        per_image: whether an image scores the same whatever images it arrives with.
        name: name of the score.
    """

    function: Callable[[Any], Any]
    per_image: bool = True
    name: str = "tiny"

    def __call__(self, images: Any, /) -> Any:
        """Score images."""
        return self.function(images)
