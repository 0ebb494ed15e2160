"""Fixtures of all tests: simulated devices, double precision, a small flow, experiments."""

import os
import subprocess
from typing import Any, NamedTuple

# JAX reads these when it is imported. Runs in this process would share the first one's programs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import jax
import numpy as np
import pytest

from jaxood import data
from jaxood.density import DensityModel
from jaxood.models.realnvp import realnvp
from jaxood.parallel import cpu_fusion
from tests.helpers import ROOT, command, initial, perturb

# Most of the tests' time is XLA's compilation, which these flags shorten. A flag of the user's own
# comes later and wins. `tests/parallel/test_fusion.py` compiles every model as users have it.
FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if cpu_fusion.knows("--xla_cpu_use_fusion_emitters"):
    FAST += " --xla_cpu_use_fusion_emitters=false"
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{EIGHT_DEVICES} {FAST} {os.environ.get('XLA_FLAGS', '')}".strip()


class Flow(NamedTuple):
    """A small RealNVP for 8x8 images.

    Attributes:
        model: a RealNVP of width 4 and depth 1.
        initial: its variables at initialization, where the flow is the identity.
        variables: its variables with perturbed parameters and random running statistics.
        images: uint8 ``(256, 8, 8, 1)``, handwritten digits.
    """

    model: DensityModel
    initial: Any
    variables: Any
    images: np.ndarray


@pytest.fixture(scope="session")
def flow():
    images = data.load("digits", "train")[0][:256]
    model = realnvp(images.shape[1:], width=4, depth=1)
    variables = jax.tree.map(np.asarray, initial(model.init, images))
    return Flow(model, variables, perturb(variables), images)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


# ------------------------------------------------------------------------ experiments, as users run


@pytest.fixture(scope="session")
def environment(tmp_path_factory, worker_id):
    """The environment of experiments: one CPU device, as a user has, and fast compilation.

    Compiled programs are kept, so that all runs of a test session compile them once.
    """
    folder = tmp_path_factory.getbasetemp()
    compiled = (folder if worker_id == "master" else folder.parent) / "compiled"
    return os.environ | {
        "XLA_FLAGS": FAST,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


@pytest.fixture(scope="session")
def run(environment):
    """A function that runs a module in a process of its own."""

    def run(*arguments, check=True):
        return subprocess.run(
            command(*arguments),
            cwd=ROOT,
            check=check,
            capture_output=True,
            text=True,
            env=environment,
        )

    return run
