"""BatchNorm: its moments, its running statistics, and its derivatives in every direction."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.nn.batch_norm import BATCH_NORM_MOMENTUM, BatchNorm, normalize
from tests.helpers import by_native_code


def arrays(*shapes, dtype: Any = np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def batch_norm(x, mean=0.0, var=1.0):
    c = x.shape[-1]
    variables = {
        "params": {"scale": np.ones(c, np.float32), "bias": np.zeros(c, np.float32)},
        "batch_stats": {
            "mean": np.full(c, mean, np.float32),
            "var": np.full(c, var, np.float32),
        },
    }
    norm: Any = BatchNorm(use_running_average=False)
    y, updates = norm.apply(variables, x, mutable=["batch_stats"])
    return y, updates["batch_stats"]


def test_batch_norm_takes_moments_over_batch_and_space():
    (x,) = arrays((2, 1, 2, 3), dtype=np.float32)  # 4 values a channel: 4 or 3 below the line?
    y, running = batch_norm(x, mean=5, var=7)
    mean, var = x.mean((0, 1, 2), np.float64), x.var((0, 1, 2), np.float64, ddof=0)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    np.testing.assert_allclose(running["mean"], 0.9 * 5 + 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(running["var"], 0.9 * 7 + 0.1 * var, rtol=1e-6)
    assert BATCH_NORM_MOMENTUM == 0.9


def test_batch_norm_keeps_its_precision_far_from_zero():
    (noise,) = arrays((16, 8, 8, 1))
    x = np.float32(100) + np.float32(0.01) * noise
    y, running = batch_norm(x)
    exact = (x - x.mean(dtype=np.float64)) / np.sqrt(x.var(dtype=np.float64) + 1e-5)
    # The mean of 100 is good to 1e-6 of itself, a hundredth of the standard deviation.
    np.testing.assert_allclose(y, exact, rtol=0, atol=0.02)
    np.testing.assert_allclose((running["var"] - 0.9) / 0.1, x.var(dtype=np.float64), atol=2e-6)


def test_batch_norm_in_evaluation_mode_takes_the_running_statistics():
    (x,) = arrays((2, 2, 2, 1))
    variables = {
        "params": {"scale": np.array([3.0]), "bias": np.array([0.5])},
        "batch_stats": {"mean": np.array([2.0]), "var": np.array([4.0])},
    }
    norm: Any = BatchNorm(use_running_average=True)
    y = norm.apply(variables, x)
    np.testing.assert_allclose(y, 3 * (x - 2) / np.sqrt(4 + 1e-5) + 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_it_is_that_of_flax(train):
    (x,) = arrays((4, 5, 3, 6))
    scale, bias = arrays((6,), (6,), seed=1)
    ours: Any = BatchNorm(not train)
    rectified: Any = BatchNorm(not train, relu=True)
    flaxs: Any = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False)
    variables: Any = ours.init(jax.random.key(0), x)
    made: Any = flaxs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, made)
    stats = {"mean": bias, "var": np.square(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    results: Any = [
        norm.apply(variables, x, mutable=["batch_stats"]) for norm in (ours, rectified, flaxs)
    ]
    (y, updates), (on, _), (expected, expected_updates) = results
    np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_allclose(on, np.maximum(expected, 0), atol=2e-6)
    for name in ("mean", "var"):
        new, old = updates["batch_stats"][name], expected_updates["batch_stats"][name]
        np.testing.assert_allclose(new, old, atol=1e-6)


# ------------------------------------------------------------------------------------ derivatives


def plain(x, scale, bias, relu):
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    var = jnp.square(x - mean).mean(axes)
    y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
    return (jnp.maximum(y, 0) if relu else y), mean, var


def ours(x, scale, bias, relu):
    return normalize(x, scale, bias, relu=relu)


def total(f, relu, x, scale, bias):
    """A scalar that is not linear in any argument or result."""
    y, mean, var = f(x, scale, bias, relu)
    weights = jnp.cos(jnp.arange(y.size).reshape(y.shape))
    return jnp.sum(y**3 * weights) + jnp.sum(jnp.sin(mean) * var) * y[..., 0].mean()


def assert_close(result, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (np.abs(b).max() + 1e-3))


# Rows fill whole vectors of a processor or not, and the pieces that a sum is taken over or not.
SHAPES = [(2, 3, 5, 1), (7, 2), (1, 3), (3, 11, 20), (40, 9, 16), (5, 9, 1, 40), (700, 37)]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("native", [False, True], ids=["xla", "native"])
def test_values_and_derivatives(shape, relu, native, float64, monkeypatch):
    by_native_code(monkeypatch, native)
    primals = arrays(shape, shape[-1:], shape[-1:], dtype=np.float64)
    tangents = arrays(shape, shape[-1:], shape[-1:], dtype=np.float64, seed=1)

    def derivatives(f):
        def scalar(*primals):
            return total(f, relu, *primals)

        gradient = jax.grad(scalar, (0, 1, 2))
        value, forward = jax.jvp(scalar, primals, tangents)
        gradients, forward_over_reverse = jax.jvp(gradient, tuple(primals), tuple(tangents))
        reverse_over_reverse = jax.vjp(gradient, *primals)[1](tuple(tangents))
        outputs = f(*primals, relu)
        return outputs, value, forward, gradients, forward_over_reverse, reverse_over_reverse

    results = [jax.jit(derivatives, static_argnums=0)(f) for f in (ours, plain)]
    assert_close(*results)


@pytest.mark.parametrize("native", [False, True], ids=["xla", "native"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_stays_so(native, dtype, float64, monkeypatch):
    """A ReLU that made zeros of it would hide that a training has diverged."""
    by_native_code(monkeypatch, native)
    x, scale, bias = arrays((40, 20), (20,), (20,), dtype=dtype)
    x[17, 3] = np.nan
    y, mean, var = jax.jit(lambda x: normalize(x, scale, bias, relu=True))(x)
    for values in (y, mean, var):
        lost = np.isnan(values).reshape(-1, 20)
        assert lost[:, 3].all() and lost.sum() == len(lost)


@pytest.mark.parametrize("native", [False, True], ids=["xla", "native"])
@pytest.mark.parametrize("axes", [(1, 0, None), (None, 0, 0), (None, None, 1), (0, None, None)])
def test_batching(axes, native, float64, monkeypatch):
    """Over some of the arguments, inside and outside of differentiation."""
    by_native_code(monkeypatch, native)
    x, scale, bias = arrays((4, 5, 3), (3,), (3,), dtype=np.float64)
    stacked = [
        a if axis is None else np.stack([a, 2 * a + 1], axis)
        for a, axis in zip((x, scale, bias), axes, strict=True)
    ]

    def derivatives(f):
        def scalar(x, scale, bias):
            return total(f, True, x, scale, bias)

        each = jax.vmap(jax.value_and_grad(scalar, (0, 1, 2)), axes)(*stacked)
        whole = jax.grad(lambda *args: jax.vmap(scalar, axes)(*args).sum(), (0, 1, 2))(*stacked)
        return each, whole

    assert_close(*(jax.jit(derivatives, static_argnums=0)(f) for f in (ours, plain)))


def test_single_precision_and_its_dtype():
    x, scale, bias = arrays((60, 50, 24), (24,), (24,))
    x = x + 3

    def gradients(f):
        return jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args, True)[0])), (0, 1, 2))(
            x, scale, bias
        )

    assert_close(gradients(ours), gradients(plain), 1e-5)


def test_jacobian_in_forward_mode(float64):
    """What `jaxood.nn.jacobian` takes: many directions, one point."""
    x, scale, bias = arrays((3, 4, 2), (2,), (2,), dtype=np.float64)
    jacobians = [
        jax.jit(jax.jacfwd(lambda x, f=f: jnp.tanh(f(x, scale, bias, False)[0])))(x)
        for f in (ours, plain)
    ]
    assert_close(*jacobians)
