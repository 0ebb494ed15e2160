"""Scores as JSON and arrays, which a file can hold; what is read back runs no code."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxood.density import Array, Spec, build
from jaxood.scores.score import Score

VARIABLES, ARRAYS = "variables", "arrays"
HOST, DEVICE = "host", "device"


def to_plain(score: Score) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Take a score apart into what a file can hold.

    Args:
        score: from a builder, of a model that a builder of `jaxood.density.builder` made.

    Returns:
        A header that `json.dumps` writes, and arrays by name that `np.savez` writes: the model's
        variables, such as ``variables/params/Dense_0/kernel``, and the score's own arrays, such as
        ``arrays/null``. The header says which of them lay on a device.

    Raises:
        ValueError: if the model does not say how it was built.
    """
    spec = getattr(score.model, "spec", None)
    if score.model is not None and spec is None:
        raise ValueError(
            f"the model of {score.name} does not say how it was built, so it cannot be written: "
            "take one from a function with the decorator jaxood.density.builder"
        )
    arrays = _flat(VARIABLES, score.variables) | _flat(ARRAYS, score.arrays)
    places = {name: DEVICE if isinstance(a, jax.Array) else HOST for name, a in arrays.items()}
    header = {
        "score": score.name,
        "model": None if spec is None else spec.to_json(),
        "options": dict(score.options),
        "arrays": places,
    }
    return header, {name: np.asarray(array) for name, array in arrays.items()}


def from_plain(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Score:
    """Rebuild a score from what `to_plain` returned; it scores the same to the bit.

    Args:
        header: from `to_plain`, perhaps by way of JSON.
        arrays: from `to_plain`, perhaps by way of a ``.npz`` file.

    Returns:
        The `Score`. Arrays that lay on a device lie on the default device.

    Raises:
        ValueError: if the header has another form, names a score or a model that there is not (of
            which nothing is imported), or arrays are missing or left over.
    """
    match header:
        case {
            "score": str(name),
            "model": dict() | None as model,
            "options": dict(options),
            "arrays": dict(places),
        } if len(header) == 4:
            pass
        case _:
            raise ValueError(f"this is no header of a score: {header!r}")
    missing, left_over = set(places) - set(arrays), set(arrays) - set(places)
    if missing or left_over:
        raise ValueError(
            f"the arrays of the score {name!r} are not those of its header: "
            f"missing are {sorted(missing)}, left over are {sorted(left_over)}"
        )
    try:
        tree = _nested({key: _placed(arrays[key], place) for key, place in places.items()})
        made = None if model is None else _model(Spec.from_json(model))
        return Score(name, made, tree.pop(VARIABLES, {}), options, tree.pop(ARRAYS, {}))
    except TypeError as error:
        raise ValueError(f"the score {name!r} cannot be rebuilt: {error}") from error


@functools.lru_cache(16)
def _model(spec: Spec) -> Any:
    """Build a model once for all scores of it, which then share their compiled programs."""
    return build(spec)


def _flat(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Name the arrays of nested dicts by their paths."""
    found = {}
    for key, value in tree.items():
        if "/" in key:
            raise ValueError(f"names of arrays hold no slash, but there is {key!r}")
        name = f"{prefix}/{key}"
        found |= _flat(name, value) if isinstance(value, Mapping) else {name: value}
    return found


def _nested(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Undo `_flat`."""
    tree: dict[str, Any] = {}
    for name, value in arrays.items():
        *path, last = name.split("/")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return tree


def _placed(array: np.ndarray, place: str) -> Array:
    """Put an array where it was, unless the device would change its type."""
    same = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jax.device_put(array) if place == DEVICE and same else array
