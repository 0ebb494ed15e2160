"""Programs that compile sooner on the CPU, and run as fast.

The last optimizations of LLVM take a third of the time in which XLA compiles a training step for
the CPU, and the step is not faster for them: its time goes into convolutions and normalization,
which are compiled already. Here they are left out.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax._src.core import trace_state_clean

FLAG = "xla_backend_optimization_level"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def sooner(device: Any) -> dict[str, Any]:
    """Return the arguments of `jax.jit` with which a program compiles sooner.

    There are none on accelerators, or where ``XLA_FLAGS`` has an optimization level.

    Args:
        device: one of the devices that the program runs on.
    """
    if device.platform != "cpu" or FLAG in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"compiler_options": {FLAG: "1"}}


def jit(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function as `jax.jit` does, but sooner: a decorator.

    JAX looks for devices when the function is called, and not before: models are built without.
    Inside another compiled program the function is a part of it.
    """
    inside = jax.jit(function)

    @functools.lru_cache
    def alone(device: Any) -> Callable[..., Result]:
        return jax.jit(function, **sooner(device))

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # JAX takes options for whole programs alone.
        program = alone(jax.devices()[0]) if trace_state_clean() else inside
        return program(*args, **kwargs)

    return call
