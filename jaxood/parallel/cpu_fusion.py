"""Some of XLA's fusions on the CPU compute wrong products; this module switches them off.

From jaxlib 0.10.1 on, XLA hands convolutions, products and sums on the CPU to YNNPACK, fused with
their neighbours. Fused sums have two faults. Some give wrong values without any error: a product of
many rows (jax issue 39103, in 0.10.2), and a product with a constant matrix (from 0.10.2 to
0.12.0.1 at least). Some sums over seven dimensions abort the process (jax issues 39257 and 40412,
in 0.10.2). So all fusions are off. ``python -m experiments.speed --against fusion`` measures what
that costs in training steps and saves in evaluations. XLA reads its flags when its first backend
starts, so this module is imported before anything computes.
"""

import mmap
import os
import warnings
from pathlib import Path

import jax
import jaxlib
from jax._src import xla_bridge

FLAG = "--xla_cpu_experimental_ynn_fusion_type"

# Options of `jax.stages.Lowered.compile` with which a single program has the fusions that jaxlib
# makes by default; tests and benchmarks use them.
_KINDS = ("INDIVIDUAL_DOT", "INDIVIDUAL_CONVOLUTION", "REDUCE")
FUSED: dict[str, str | bool] = {
    FLAG.removeprefix("--"): ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in _KINDS)
}


def switch_off() -> None:
    """Add the flag that switches the fusions off to ``XLA_FLAGS``, which child processes inherit.

    Nothing is changed if the user has set this flag, or if jaxlib makes no such fusions.

    Warns:
        RuntimeWarning: if a backend already runs, or if ``XLA_FLAGS`` names a file without the
            flag.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    if FLAG in flags or not fuses():
        return
    if xla_bridge.backends_are_initialized():
        remedy = "import jaxood before the first computation"
    elif flags and not flags.startswith("-"):
        if Path(flags).is_file() and FLAG in Path(flags).read_text():
            return
        remedy = f"add {FLAG}= to {flags}, the file that XLA_FLAGS names"
    else:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=".strip()
        return
    warnings.warn(
        "XLA's fusions with YNNPACK are on, which compute some products wrongly on the CPU "
        f"(https://github.com/jax-ml/jax/issues/39103): {remedy}",
        RuntimeWarning,
        stacklevel=2,
    )


def fuses() -> bool:
    """Tell whether jaxlib makes the fusions by default, and knows the flag."""
    return jax.__version_info__ >= (0, 10, 1) and knows(FLAG)


def knows(flag: str) -> bool:
    """Tell whether XLA knows a flag: it aborts the process at any other.

    The library of XLA is searched for the flag's name.
    """
    for library in Path(jaxlib.__file__).parent.glob("*jax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return m.find(flag.removeprefix("--").encode()) >= 0
    return False


switch_off()
