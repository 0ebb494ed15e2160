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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src.sharding_impls import SPMDAxisContext
from jax.interpreters import mlir

OPERATIONS = (
    "convolve",
    "input_gradient",
    "kernel_gradient",
    "batch_norm",
    "batch_norm_tangent",
    "batch_norm_cotangent",
)
"""The operations. Their arrays have a leading axis of ensemble members."""


@functools.cache
def instructions() -> str | None:
    """Name the instructions that native convolutions use, such as "AVX-512".

    Returns:
        None where there are none: they are turned off, were not built, or cannot be loaded.
    """
    library = _library()
    return None if library is None else library.jaxood_instructions().decode()


def suits(context: mlir.LoweringRuleContext) -> bool:
    """Tell whether native code takes the call that is being lowered.

    It takes arrays that are not empty, all float32 or all float64. A program that XLA divides among
    devices keeps XLA's own operations, which XLA can divide.
    """
    axes = context.module_context.axis_context
    one_device = getattr(axes, "num_devices", None) == 1 or (
        isinstance(axes, SPMDAxisContext) and len(axes.manual_axes) == len(axes.mesh.shape)
    )
    arrays: Any = [*context.avals_in, *context.avals_out]
    dtypes = {array.dtype.name for array in arrays}
    known = len(dtypes) == 1 and dtypes <= {"float32", "float64"}
    return one_device and known and all(a.size for a in arrays) and instructions() is not None


def preferred(
    ours: Callable[..., Any], otherwise: Callable[..., Any], *, multiple_results: bool
) -> Callable[..., Any]:
    """Make the rule by which a primitive is lowered on the CPU.

    Args:
        ours: a function that uses `call`, for what suits native code.
        otherwise: the lowering rule of everything else.
        multiple_results: whether the primitive has several results.
    """
    by_us = mlir.lower_fun(ours, multiple_results=multiple_results)

    def lower(context: mlir.LoweringRuleContext, *args: Any, **params: Any) -> Any:
        return (by_us if suits(context) else otherwise)(context, *args, **params)

    return lower


def call(operation: str, result: Any, *args: jax.Array, attribute: Sequence[float]) -> Any:
    """Call an operation inside a compiled program that it suits.

    Args:
        operation: one of `OPERATIONS`.
        result: the shape and dtype of its result, or a list of them.
        *args: its arrays.
        attribute: its numbers, all ints or all floats.

    Returns:
        One array, or a list of them.
    """
    return jax.ffi.ffi_call(f"jaxood_{operation}", result)(*args, attribute=np.array(attribute))


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
