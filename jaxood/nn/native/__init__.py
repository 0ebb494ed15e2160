"""Convolutions for the CPU in C++, called by XLA; without them everything works, more slowly.

They are built when the package is installed where a C++ compiler is (``setup.py``), and used where
shapes and types fit. ``JAXOOD_NATIVE=0`` in the environment turns them off.

The three operations are direct convolutions of images with channels last, in registers, on XLA's
own threads, with AVX-512, AVX2 or NEON as the processor has them. oneDNN, which PyTorch uses, was
the alternative. Its kept wheels need the runtime of SYCL, those without it end with version 3.2 of
2023, all of them bring a thread pool of their own, and calling it from XLA takes the same compiled
extension as here.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import jax
import numpy as np

OPERATIONS = ("convolve", "input_gradient", "kernel_gradient")
"""The operations, each of two arrays with a leading axis of ensemble members."""


@functools.cache
def instructions() -> str | None:
    """Name the instructions that native convolutions use, such as "AVX-512".

    Returns:
        None where there are none: they are turned off, were not built, or cannot be loaded.
    """
    library = _library()
    return None if library is None else library.jaxood_instructions().decode()


def lower(
    operation: str,
    a: jax.Array,
    b: jax.Array,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
) -> jax.Array:
    """Call an operation, inside a compiled program for one CPU device.

    Args:
        operation: one of `OPERATIONS`.
        a: its first array, of five dimensions, float32 or float64.
        b: its second, of the same dtype.
        shape: shape of the result.
        strides: strides of the convolution.
        padding: its padding.

    Returns:
        An array of this shape and of the dtype of ``a``.
    """
    result = jax.ShapeDtypeStruct(shape, a.dtype)
    geometry = np.array([*strides, *(low for low, _ in padding)], np.int64)
    return jax.ffi.ffi_call(f"jaxood_{operation}", result)(a, b, geometry=geometry)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Load the library and tell XLA of its operations, once a process."""
    if os.environ.get("JAXOOD_NATIVE", "1") == "0":
        return None
    for path in Path(__file__).parent.glob("_native.*"):
        if path.suffix in (".so", ".pyd", ".dylib"):
            try:
                library = ctypes.CDLL(str(path))
            except OSError:  # built for another machine
                continue
            library.jaxood_instructions.restype = ctypes.c_char_p
            for operation in OPERATIONS:
                handler = jax.ffi.pycapsule(getattr(library, f"jaxood_{operation}"))
                jax.ffi.register_ffi_target(f"jaxood_{operation}", handler, platform="cpu")
            return library
    return None
