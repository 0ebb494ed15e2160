"""The fusions of XLA that compute wrong products on the CPU are off, and change nothing else."""

import os
import subprocess
import sys

import jax
import jaxlib
import numpy as np
import pytest

import jaxood
from jaxood.parallel import cpu_fusion
from tests.helpers import by_native_code

FLAG = cpu_fusion.FLAG
FUSES = pytest.mark.skipif(not cpu_fusion.fuses(), reason="this jaxlib makes no such fusions")

# These options compile a program as users have it, not as `conftest` does.
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if cpu_fusion.knows("--xla_cpu_use_fusion_emitters"):
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True

MODELS = {
    "realnvp": lambda shape: jaxood.realnvp(shape, width=4, depth=1),
    "glow": lambda shape: jaxood.glow(shape, levels=1, depth=1, width=4),
    "vae": lambda shape: jaxood.vae(shape, width=4, latent=2),
    "pixelcnn": lambda shape: jaxood.pixelcnn(shape, width=4, depth=1, mixtures=2, levels=1),
    "all_cnn_c": lambda shape: jaxood.nrm.all_cnn_c(shape, width=4, batch_norm=True),
    "all_conv_13": lambda shape: jaxood.nrm.all_conv_13(shape, width=4, batch_norm=True),
    "convpool_cnn_c": lambda shape: jaxood.nrm.convpool_cnn_c(shape, width=4, batch_norm=True),
    "resnet": lambda shape: jaxood.nrm.resnet(shape, width=4, depth=1, batch_norm=True),
}


def random_variables(shapes):
    rng = np.random.default_rng(0)

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        if path[-1].key in ("var", "scale"):
            noise = np.exp(0.3 * noise)
        elif path[-1].key == "kernel":
            noise /= np.sqrt(np.prod(value.shape[:-1]))
        else:
            noise *= 0.3
        return noise.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def assert_close(actual, expected, tolerance):
    """Assert that arrays are equal up to a share of the largest value of each."""
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        atol = tolerance * np.abs(b).max()
        np.testing.assert_allclose(a, b, 0, atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", MODELS)
def test_likelihoods_and_gradients_do_not_depend_on_what_is_fused(name, monkeypatch):
    by_native_code(monkeypatch, False)  # XLA fuses its own operations
    shape = (8, 8, 1) if name in ("realnvp", "glow", "vae", "pixelcnn") else (9, 9, 1)
    model = MODELS[name](shape)
    x = np.random.default_rng(1).integers(0, 256, (8, *shape), np.uint8)
    variables = random_variables(jax.eval_shape(model.init, jax.random.key(0), x))

    def loss(params):
        given, key = variables | {"params": params}, jax.random.key(2)
        log_prob = model.log_prob(given, x, train=True, key=key)
        return log_prob.mean(), log_prob

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(variables["params"])
    program = gradient.compile(OPTIMIZED)
    assert "__ynn_fusion" not in str(program.as_text())
    compiled = program(variables["params"])
    assert_close(compiled[0], loss(variables["params"]), 1e-5)  # op by op
    if cpu_fusion.fuses():
        program = gradient.compile(cpu_fusion.FUSED)
        assert "__ynn_fusion" in str(program.as_text())
        fused = program(variables["params"])
        assert_close(fused[0], compiled[0], 1e-5)
        # Without any fusion, float32 gradients are up to 2e-5 away from those in float64.
        assert_close(fused[1], compiled[1], 5e-5)


# ------------------------------------------------------------------------------- switched off

PRODUCTS = """
import jax, jaxood, numpy as np
from jax import numpy as jnp

# jax issue 39103: many rows.
x = np.zeros((32769, 3), np.float32)
x[:, 0] = np.arange(32769)
squares = jax.jit(jax.vmap(lambda row: jnp.sum((np.eye(3, dtype=np.float32) @ row) ** 2)))(x)
np.testing.assert_array_equal(squares, x[:, 0] ** 2)

# A product with a constant matrix.
a, b = np.random.default_rng(0).normal(size=(2, 5, 60, 60)).astype(np.float32)
product = jax.jit(lambda a, b: jnp.sum((a @ jnp.full_like(a, 0.5)) * b))(a, b)
np.testing.assert_allclose(product, np.sum(a.sum(2) * b.sum(2)) / 2, rtol=1e-4)

# jax issue 40412: seven dimensions, one of size 1.
a, b = np.random.default_rng(0).normal(size=(2, 3, 1, 2, 2, 8, 8, 8)).astype(np.float32)
total = jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(a, b)
np.testing.assert_allclose(total, (a * b).sum(3), atol=1e-5)
"""


def run(code, flags=""):
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_products_that_the_fusions_compute_wrongly():
    finished = run(PRODUCTS)
    assert finished.returncode == 0, finished.stderr


@FUSES
def test_a_backend_that_runs_before_the_import_is_told_of():
    code = "import jax; jax.devices(); import jaxood"
    assert "import jaxood before the first computation" in run(code).stderr
    assert run(code, flags=f"{FLAG}=").returncode == 0


@pytest.fixture
def switched(monkeypatch):
    """A function that sets ``XLA_FLAGS`` and returns what an import of jaxood makes of it."""
    monkeypatch.setattr(cpu_fusion, "fuses", lambda: True)
    monkeypatch.setattr(cpu_fusion.xla_bridge, "backends_are_initialized", lambda: False)

    def switched(flags):
        monkeypatch.setenv("XLA_FLAGS", flags)
        cpu_fusion.switch_off()
        return os.environ["XLA_FLAGS"]

    return switched


def test_the_flag_joins_those_of_the_user(switched):
    assert switched("") == f"{FLAG}="
    assert switched("--xla_dump_to=x") == f"--xla_dump_to=x {FLAG}="


def test_what_the_user_says_of_the_fusions_stands(switched):
    assert switched(f"{FLAG}=reduce") == f"{FLAG}=reduce"


def test_a_file_of_flags_is_left_to_the_user(switched, tmp_path):
    flags = tmp_path / "flags"
    flags.write_text("--xla_dump_to=x")
    with pytest.warns(RuntimeWarning, match=f"add {FLAG}= to {flags}"):
        switched(str(flags))
    flags.write_text(f"--xla_dump_to=x {FLAG}=")
    assert switched(str(flags)) == str(flags)


def test_a_jaxlib_without_the_fusions_or_the_flag_is_left_alone(switched, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(cpu_fusion.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setattr(jaxlib, "__file__", str(tmp_path / "__init__.py"))
    library = tmp_path / "libjax_common.so"
    for content, version, there in (
        (b"\0xla_cpu_experimental_ynn_fusion_type\0", (0, 10, 1), True),
        (b"\0xla_cpu_experimental_ynn_fusion_type\0", (0, 10, 0), False),
        (b"\0xla_another_flag\0", (0, 13, 0), False),
    ):
        library.write_bytes(content)
        monkeypatch.setattr(jax, "__version_info__", version)
        monkeypatch.setenv("XLA_FLAGS", "")
        cpu_fusion.switch_off()
        assert (FLAG in os.environ["XLA_FLAGS"]) == there
