"""Messages between processes: plain values, arrays and errors, written as bytes and read back.

A message is one line of JSON, which describes a value, followed by the bytes of its arrays. It
names no functions, and no classes but the dtypes and errors of the tables below, so that reading a
message never runs code that its sender chose.
"""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxood import integrity

DTYPES = {t.name: t for t in map(np.dtype, [*"?bhilBHILefd", jnp.bfloat16])}
"""The dtypes that arrays of a message may have, by name."""

ERRORS: dict[str, type[Exception]] = {
    e.__name__: e
    for e in (
        *(ValueError, TypeError, KeyError, RuntimeError, OSError, FileNotFoundError),
        *(integrity.IntegrityError, integrity.Damaged, integrity.Changed, integrity.Locked),
    )
}
"""Errors that are raised with their own class where they arrive, by name; `carried` adds one."""

Error = TypeVar("Error", bound=type[Exception])


class Malformed(integrity.Damaged):
    """Some bytes are not a message."""


def carried(error: Error) -> Error:
    """Add a class of errors to `ERRORS`: a decorator.

    Its constructor must take the error's message as its only argument.
    """
    ERRORS[error.__name__] = error
    return error


def encode(value: Any) -> bytes:
    """Write a value as a message.

    Args:
        value: None, a bool, int, float, str, `pathlib.Path`, an array of one of `DTYPES`, or a
            list, tuple or dictionary (its keys are str) of such values.

    Raises:
        TypeError: if it is or holds anything else.
    """
    arrays: list[np.ndarray] = []
    header = json.dumps({"value": _describe(value, arrays)})
    return b"".join([header.encode(), b"\n", *(a.tobytes() for a in arrays)])


def encode_error(error: Exception) -> bytes:
    """Write an error as a message: its nearest class in `ERRORS`, and its text."""
    name = next((c.__name__ for c in type(error).__mro__ if ERRORS.get(c.__name__) is c), None)
    said = str(error)
    if name != type(error).__name__:
        said = f"{type(error).__name__}: {said}"
    return json.dumps({"error": [name or "RuntimeError", said]}).encode() + b"\n"


def decode(message: bytes) -> Any:
    """Read the value of a message.

    Args:
        message: bytes of `encode` or `encode_error`.

    Returns:
        The value; its arrays are NumPy's.

    Raises:
        Malformed: if the bytes are not a message.
        Exception: the error that the message holds, if it holds one.
    """
    try:
        value, error = _read(message)
    except (ValueError, TypeError, KeyError, RecursionError) as malformed:
        raise Malformed(
            f"another process sent {len(message)} bytes that are no message ({malformed}): start "
            "all processes again, with one version of jaxood, on a network that you trust"
        ) from malformed
    if error is not None:
        raise error
    return value


def _read(message: bytes) -> tuple[Any, Exception | None]:
    header, _, rest = message.partition(b"\n")
    content, arrays = json.loads(header), _Bytes(rest)
    value, error = None, None
    if "error" in content:
        name, said = content["error"]
        error = ERRORS[name](str(said))
    else:
        value = _rebuild(content["value"], arrays)
    if arrays.left:
        raise ValueError(f"{arrays.left} bytes are left over")
    return value, error


def _describe(value: Any, arrays: list[np.ndarray]) -> Any:
    """Describe a value in JSON; its arrays are appended to ``arrays``."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_describe(v, arrays) for v in value]
    if type(value) is tuple:
        return {"tuple": [_describe(v, arrays) for v in value]}
    if type(value) is dict and all(type(k) is str for k in value):
        return {"dict": {k: _describe(v, arrays) for k, v in value.items()}}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if DTYPES.get(array.dtype.name) == array.dtype:
            arrays.append(array)
            return {"array": [array.dtype.name, *array.shape]}
    kind = getattr(value, "dtype", type(value).__name__)
    raise TypeError(f"{kind} cannot be told to other processes: tell plain values and arrays")


def _rebuild(described: Any, arrays: "_Bytes") -> Any:
    """Make the value that `_describe` described."""
    if isinstance(described, list):
        return [_rebuild(d, arrays) for d in described]
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tuple":
        return tuple(_rebuild(d, arrays) for d in content)
    if kind == "dict":
        return {k: _rebuild(d, arrays) for k, d in content.items()}
    if kind == "path":
        return Path(content)
    if kind == "array":
        name, *shape = content
        return arrays.take(DTYPES[name], shape)
    raise ValueError(f"there is no kind {kind!r}")


class _Bytes:
    """The bytes of a message's arrays, which are taken one after another."""

    def __init__(self, content: bytes) -> None:
        self.content, self.left = content, len(content)

    def take(self, dtype: np.dtype, shape: list[int]) -> np.ndarray:
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{shape} is no shape")
        size = math.prod(shape) * dtype.itemsize
        if size > self.left:
            raise ValueError(f"{size - self.left} bytes are missing")
        start = len(self.content) - self.left
        self.left -= size
        return np.frombuffer(self.content[start : start + size], dtype).reshape(shape).copy()
