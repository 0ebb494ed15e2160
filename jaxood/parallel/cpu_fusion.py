"""XLA's fusions that compute some products wrongly on the CPU are switched off.

From jaxlib 0.10.1 on, XLA hands convolutions, products and sums on the CPU to YNNPACK, fused with
their neighbours. Fused sums go wrong: without a word for a product of many rows (jax issue 39103,
in 0.10.2) and for one with a constant matrix (from 0.10.2 to 0.12.0.1 at least), and some over
seven dimensions end the process (jax issues 39257 and 40412, in 0.10.2). All fusions are off:
``python -m experiments.speed --against fusion`` prints what this costs a training step and, with
``--evaluation``, what it gains. XLA reads its flags when its first backend starts, so this module
is imported before anything that computes.
"""

import mmap
import os
import warnings
from pathlib import Path

import jax
import jaxlib
from jax._src import xla_bridge

FLAG = "--xla_cpu_experimental_ynn_fusion_type"

# The options of `jax.stages.Lowered.compile` with which one program has the fusions none the less,
# those that jaxlib makes by default; for tests and benchmarks.
_KINDS = ("INDIVIDUAL_DOT", "INDIVIDUAL_CONVOLUTION", "REDUCE")
FUSED: dict[str, str | bool] = {
    FLAG.removeprefix("--"): ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in _KINDS)
}


def switch_off():
    """Add a flag that switches the fusions off to ``XLA_FLAGS``, which child processes inherit.

    Nothing is changed where the user has set this flag, or where jaxlib makes no such fusions.

    Warns:
        RuntimeWarning: if it is too late, since a backend runs, or if ``XLA_FLAGS`` names a file.
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


def fuses():
    """Whether jaxlib makes the fusions unless told not to, and knows the flag.

    XLA ends the process at a flag that it does not know, so its library is searched for the name.
    """
    if jax.__version_info__ < (0, 10, 1):
        return False
    for library in Path(jaxlib.__file__).parent.glob("*jax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return m.find(FLAG.removeprefix("--").encode()) >= 0
    return False


switch_off()
