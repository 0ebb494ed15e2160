"""Native operations: every width of channels and type, every instruction set, and the build."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxood.nn import native
from jaxood.nn.convolution import conv_general_dilated
from tests.helpers import ROOT

BUILT = pytest.mark.skipif(native.instructions() is None, reason="they are not built")
COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")

# Images, kernel, stride, padding. Widths of channels fill one to three vectors, or not; rows are
# longer than a tile of pixels; more pixels than one piece of a matrix product.
CASES = [
    ((3, 9, 31, 1), (3, 3, 1, 20), 1, 1),
    ((5, 6, 17, 33), (3, 2, 33, 40), 1, 1),
    ((2, 5, 5, 64), (3, 3, 64, 100), 1, 1),
    ((1, 12, 12, 7), (5, 5, 7, 49), 2, 2),
    ((9, 7, 8, 5), (3, 3, 5, 3), 3, 0),
    ((6, 21, 23, 10), (1, 1, 10, 48), 1, 0),
    ((4, 3, 3, 16), (3, 3, 16, 32), 1, 0),
    ((3, 8, 8, 6), (2, 2, 6, 17), 4, 0),
]


def check(dtype, tolerance):
    """Compare the operation and both gradients with NumPy's float64 through XLA."""
    for image, kernel, stride, pad in CASES:
        rng = np.random.default_rng(0)
        x, k = rng.normal(size=image).astype(dtype), rng.normal(size=kernel).astype(dtype)

        def loss(conv, x, k, stride=stride, pad=pad):
            options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            y = conv(x, k, (stride, stride), ((pad, pad), (pad, pad)), **options)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))), y

        ours, theirs = (
            jax.jit(jax.value_and_grad(loss, (1, 2), has_aux=True), static_argnums=0)(conv, x, k)
            for conv in (conv_general_dilated, lax.conv_general_dilated)
        )
        for a, b in zip(
            jax.tree.leaves(ours[0][1:] + ours[1]),
            jax.tree.leaves(theirs[0][1:] + theirs[1]),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@BUILT
def test_single_precision():
    check(np.float32, 1e-5)


@BUILT
def test_double_precision(float64):
    check(np.float64, 1e-12)


@BUILT
@pytest.mark.parametrize("name", ["AVX2", "portable"])
def test_other_instructions(name):
    code = (
        "from jaxood.nn import native; from tests.nn.test_native import check, np; "
        "check(np.float32, 1e-5); print(native.instructions())"
    )
    environment = os.environ | {"JAXOOD_NATIVE": name}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] in (name, "NEON")


@BUILT
def test_one_program_gives_the_same_to_the_bit_whatever_runs_beside_it():
    """Sums over images are taken in an order that no thread changes."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 13, 17, 17, 24)).astype(np.float32)

    @jax.jit
    def gradients(x, dy):
        return jax.vjp(
            lambda k: conv_general_dilated(x, k, (1, 1), "SAME"), jnp.zeros((3, 3, 24, 24))
        )[1](dy)

    first = gradients(x, dy)
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, gradients(x, dy), first)


def test_they_can_be_turned_off():
    code = "from jaxood.nn import native; print(native.instructions())"
    environment = os.environ | {"JAXOOD_NATIVE": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert run.stdout.strip() == b"None", run.stderr


@BUILT
def test_a_program_that_is_divided_among_devices_keeps_the_convolutions_of_xla():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.device_put(np.ones((4, 5, 5, 2), np.float32), rows)
    k = np.ones((3, 3, 2, 3), np.float32)
    conv = jax.jit(lambda x, k: conv_general_dilated(x, k, (1, 1), "SAME"))
    assert "jaxood_convolve" not in conv.lower(x, k).as_text()
    assert "jaxood_convolve" in conv.lower(np.asarray(x), k).as_text()


# -------------------------------------------------------------------------------------- the build

# What of xla.h must lie where jaxlib's header has it.
FIELDS = {
    "CallFrame": "api ctx:context stage args:arguments rets:results attrs:attributes",
    "Args": "size types args:buffers",
    "Rets": "size types rets:buffers",
    "Attrs": "size types names attrs:arrays",
    "Buffer": "dtype data rank dims",
    "Metadata": "api_version:version traits",
    "Metadata_Extension": "metadata",
    "Api_Version": "major_version minor_version",
    "Error_Create_Args": "message errc:code",
    "Error_Destroy_Args": "error",
    "ThreadPool_Schedule_Args": "ctx:context task data",
    "ThreadPool_NumThreads_Args": "ctx:context num_threads",
    "Array": "dtype size data",
    "Api": (
        "api_version:version XLA_FFI_Error_Create:error_create XLA_FFI_Error_Destroy:error_destroy "
        "XLA_FFI_ThreadPool_Schedule:schedule XLA_FFI_ThreadPool_NumThreads:num_threads"
    ),
}
OURS = {
    "Args": "Buffers",
    "Rets": "Buffers",
    "Attrs": "Attributes",
    "Api_Version": "ApiVersion",
    "Metadata_Extension": "MetadataExtension",
    "Error_Create_Args": "ErrorCreateArgs",
    "Error_Destroy_Args": "ErrorDestroyArgs",
    "ThreadPool_Schedule_Args": "ScheduleArgs",
    "ThreadPool_NumThreads_Args": "NumThreadsArgs",
}


@COMPILER
def test_our_declarations_are_those_of_jaxlib(tmp_path):
    lines = [
        "#include <cstddef>",
        '#include "xla/ffi/api/c_api.h"',
        '#include "xla.h"',
        "static_assert(XLA_FFI_API_MAJOR == xla_ffi::kMajor);",
        "static_assert(XLA_FFI_API_MINOR >= xla_ffi::kMinor);",
        "static_assert(XLA_FFI_Extension_Metadata == xla_ffi::kMetadata);",
        "static_assert(XLA_FFI_DataType_F32 == xla_ffi::kF32);",
        "static_assert(XLA_FFI_DataType_F64 == xla_ffi::kF64);",
    ]
    for theirs, fields in FIELDS.items():
        for field in fields.split():
            name, _, own = field.partition(":")
            lines.append(
                f"static_assert(offsetof(XLA_FFI_{theirs}, {name}) == "
                f"offsetof(xla_ffi::{OURS.get(theirs, theirs)}, {own or name}));"
            )
    (tmp_path / "compare.cc").write_text("\n".join(lines) + "\n")
    source = ROOT / "jaxood/nn/native/src"
    command = ["c++", "-std=gnu++17", "-fsyntax-only", "-Wno-invalid-offsetof"]
    includes = [f"-I{jax.ffi.include_dir()}", f"-I{source}"]
    subprocess.run([*command, *includes, tmp_path / "compare.cc"], check=True)


@COMPILER
@pytest.mark.skipif(os.environ.get("JAXOOD_NATIVE") == "0", reason="they are turned off")
def test_where_a_compiler_is_they_are_built():
    """All other tests of native code would be skipped without a word."""
    assert native.instructions() is not None


def test_an_installation_without_a_compiler_succeeds(tmp_path):
    pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml asks
    environment = os.environ | {"CC": "false", "CXX": "false"}
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path / "lib"]
    run = subprocess.run(
        [*command, "--build-temp", tmp_path / "temp"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert not [*tmp_path.rglob("*.so")]
