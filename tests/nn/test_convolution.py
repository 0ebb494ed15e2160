import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxood.nn.convolution import Conv, ConvTranspose, conv_general_dilated, conv_transpose
from tests.helpers import by_native_code

BOTH = pytest.mark.parametrize("native", [False, True], ids=["xla", "native"])

plain = functools.partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def arrays(*shapes, dtype: Any = np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def assert_close(result, expected, tolerance=1e-11):
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def cubic(conv, options, x, kernel):
    """A scalar that is not linear in either argument, so that all second derivatives show."""
    y = conv(x, kernel, **options)
    return jnp.sum(y**3 * jnp.cos(jnp.arange(y.size).reshape(y.shape)))


SAME = {"window_strides": (1, 1), "padding": "SAME"}
STRIDED = {"window_strides": (2, 2), "padding": ((2, 2), (1, 1))}

# Image and kernel shapes, strides, padding.
CASES = {
    "same": ((3, 5, 4, 1), (3, 3, 1, 2), (1, 1), "SAME"),
    "1x1": ((4, 6, 6, 3), (1, 1, 3, 2), (1, 1), "SAME"),
    "even same": ((2, 5, 4, 2), (2, 4, 2, 3), (1, 1), "SAME"),
    "larger than its image": ((2, 1, 2, 2), (5, 3, 2, 2), (1, 1), "SAME"),
    "down": ((2, 4, 5, 2), (2, 3, 2, 3), (1, 1), ((1, 0), (1, 1))),
    "down right": ((2, 4, 5, 2), (2, 2, 2, 3), (1, 1), ((1, 0), (1, 0))),
    "shifted": ((2, 4, 5, 2), (2, 1, 2, 3), (1, 1), ((2, -1), (0, 0))),
    "dense": ((3, 4, 3, 2), (4, 3, 2, 5), (1, 1), "VALID"),
    "dense, padded": ((3, 2, 3, 2), (4, 5, 2, 2), (2, 2), ((1, 1), (1, 2))),
    "5x5/2": ((2, 6, 8, 2), (5, 5, 2, 3), (2, 2), ((2, 2), (2, 2))),
    "1x1/2": ((2, 5, 6, 2), (1, 1, 2, 3), (2, 2), "SAME"),
    "two strides": ((2, 9, 7, 1), (2, 4, 1, 3), (3, 2), "VALID"),
    "two groups": ((6, 32, 32, 1), (3, 2, 1, 2), (1, 1), "SAME"),
    "groups of one": ((5, 32, 32, 1), (3, 3, 1, 1), (1, 1), "SAME"),
}


@pytest.mark.parametrize("name", CASES)
@BOTH
def test_values_and_derivatives_are_those_of_jax(name, native, float64, monkeypatch):
    by_native_code(monkeypatch, native)
    image, kernel, strides, padding = CASES[name]
    options = {"window_strides": strides, "padding": padding}
    x, k, dx, dk = arrays(image, kernel, image, kernel)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(conv, x, k):
        f = functools.partial(cubic, conv, options)
        value, forward = jax.jvp(f, (x, k), (dx, dk))
        gradient = jax.grad(f, (0, 1))
        gradients, forward_over_reverse = jax.jvp(gradient, (x, k), (dx, dk))
        reverse_over_reverse = jax.vjp(gradient, x, k)[1]((dx, dk))
        return value, forward, gradients, forward_over_reverse, reverse_over_reverse

    assert_close(derivatives(conv_general_dilated, x, k), derivatives(plain, x, k))


@BOTH
def test_single_precision(native, monkeypatch):
    by_native_code(monkeypatch, native)
    x, k = arrays((2, 6, 8, 2), (5, 5, 2, 3), dtype=np.float32)
    gradients = [
        jax.jit(jax.grad(functools.partial(cubic, conv, STRIDED), (0, 1)))(x, k)
        for conv in (conv_general_dilated, plain)
    ]
    assert_close(*gradients, tolerance=1e-5)


@pytest.mark.parametrize("options", [SAME, STRIDED], ids=["same", "strided"])
@pytest.mark.parametrize("axes", [[(0, 0)], [(1, None)], [(None, 2)], [(0, 4), (3, None)]], ids=str)
@BOTH
def test_batching(axes, options, native, float64, monkeypatch):
    """Over both arguments, over one, and nested; inside and outside of differentiation."""
    by_native_code(monkeypatch, native)
    x, k = arrays((2, 5, 6, 2), (5, 3, 2, 3))
    for a, b in axes[::-1]:
        x = x if a is None else np.stack([x, x[::-1] - 1, 2 * x], a)
        k = k if b is None else np.stack([k, k[::-1] + 1, -k], b)

    def batched(f):
        for level in axes[::-1]:
            f = jax.vmap(f, level)
        return f

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(conv, x, k):
        f = functools.partial(cubic, conv, options)
        per_member = batched(jax.value_and_grad(f, (0, 1)))(x, k)
        total = jax.grad(lambda x, k: batched(f)(x, k).sum(), (0, 1))(x, k)
        forward = jax.jvp(batched(f), (x, k), (jnp.ones_like(x), jnp.ones_like(k)))
        return per_member, total, forward

    assert_close(derivatives(conv_general_dilated, x, k), derivatives(plain, x, k))


@BOTH
def test_jacobian_in_forward_mode(native, float64, monkeypatch):
    by_native_code(monkeypatch, native)
    x, k = arrays((1, 4, 3, 2), (3, 3, 2, 2))
    jacobians = [
        jax.jit(jax.jacfwd(lambda x, conv=conv: jnp.tanh(conv(x, k, **SAME))))(x)
        for conv in (conv_general_dilated, plain)
    ]
    assert_close(*jacobians)


def test_an_ensemble_runs_without_grouped_convolutions(monkeypatch):
    by_native_code(monkeypatch, False)
    x, k = arrays((5, 2, 6, 6, 2), (5, 3, 3, 2, 3), dtype=np.float32)

    def text(conv):
        f = jax.vmap(jax.grad(functools.partial(cubic, conv, SAME), (0, 1)))
        return jax.jit(f).lower(x, k).as_text()

    assert "feature_group_count = 5" in text(plain)
    ours = text(conv_general_dilated)
    assert "convolution" in ours
    assert "group_count = 5" not in ours


@BOTH
def test_inside_loops(native, float64, monkeypatch):
    """Gradients through a scan, and training inside of a while loop."""
    by_native_code(monkeypatch, native)
    x, kernels = arrays((3, 6, 4, 2), (4, 3, 3, 2, 2))

    def loss(conv, kernels):
        y = lax.scan(lambda x, k: (jnp.tanh(conv(x, k, **SAME)), None), x, kernels)[0]
        return jnp.sum(y**2)

    @functools.partial(jax.jit, static_argnums=0)
    def descend(conv, kernels):
        def step(carry):
            kernels, i = carry
            return kernels - 0.01 * jax.grad(functools.partial(loss, conv))(kernels), i + 1

        return lax.while_loop(lambda carry: carry[1] < 3, step, (kernels, 0))[0]

    result = descend(conv_general_dilated, kernels)
    assert np.abs(result - kernels).max() > 0.01
    assert_close(result, descend(plain, kernels))


OTHERS = {
    "dilated": ((3, 3, 2, 4), {**SAME, "rhs_dilation": (2, 2)}),
    "transposed": (
        (3, 3, 2, 4),
        {"window_strides": (1, 1), "padding": ((1, 2), (1, 2)), "lhs_dilation": (2, 2)},
    ),
    "grouped": ((3, 3, 1, 4), {**SAME, "feature_group_count": 2}),
    "precise": ((3, 3, 2, 4), {**SAME, "precision": lax.Precision.HIGHEST}),
    "other layout": ((2, 4, 3, 3), {**SAME, "dimension_numbers": ("NHWC", "IOHW", "NHWC")}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_convolution_is_the_original(name):
    kernel, options = OTHERS[name]
    x, kernel = arrays((3, 6, 5, 2), kernel, dtype=np.float32)
    f, g = (functools.partial(conv, **options) for conv in (conv_general_dilated, plain))
    assert str(jax.make_jaxpr(f)(x, kernel)) == str(jax.make_jaxpr(g)(x, kernel))


def test_without_jit():
    x, k = arrays((2, 4, 4, 1), (3, 3, 1, 2), dtype=np.float32)
    with jax.disable_jit():
        y = conv_general_dilated(x, k, **SAME)
    np.testing.assert_allclose(y, plain(x, k, **SAME), atol=1e-5)


def test_shapes_that_do_not_fit_are_refused_as_by_jax():
    x, kernel = arrays((3, 6, 5, 2), (3, 3, 4, 2))
    with pytest.raises((TypeError, ValueError), match="feature"):
        conv_general_dilated(x, kernel, **SAME)


# ------------------------------------------------------------------------------------ transposed

# Size, kernel, strides, padding, output padding, resulting size.
TRANSPOSED = {
    "doubles": ((4, 3), (5, 5), (2, 2), ((2, 2), (2, 2)), (1, 1), (8, 6)),
    "from a point": ((1, 1), (4, 3), (1, 1), ((0, 0), (0, 0)), (0, 0), (4, 3)),
    "keeps its size": ((4, 3), (5, 3), (1, 1), ((2, 2), (1, 1)), (0, 0), (4, 3)),
    "asymmetric": ((3, 4), (2, 3), (3, 2), ((1, 0), (0, 2)), (2, 0), (9, 7)),
}


@pytest.mark.parametrize("name", TRANSPOSED)
@BOTH
def test_transposed_convolution_is_the_adjoint(name, native, float64, monkeypatch):
    by_native_code(monkeypatch, native)
    size, kernel, strides, padding, output_padding, result = TRANSPOSED[name]
    y, x, k = arrays((2, *size, 3), (2, *result, 4), (*kernel, 4, 3))
    image = conv_transpose(y, k, strides, padding, output_padding)
    assert image.shape == x.shape
    np.testing.assert_allclose(
        np.vdot(image, x), np.vdot(y, plain(x, k, strides, padding)), rtol=1e-12
    )

    def by_jax(y, k):
        return jax.vjp(lambda x: plain(x, k, strides, padding), x)[1](y)[0]

    def loss(f, y, k):
        return jnp.sum(jnp.sin(f(y, k)) * x)

    ours = functools.partial(
        conv_transpose, window_strides=strides, padding=padding, output_padding=output_padding
    )
    results = [
        jax.jit(jax.value_and_grad(functools.partial(loss, f), (0, 1)))(y, k)
        for f in (ours, by_jax)
    ]
    assert_close(*results)


def test_an_output_padding_that_no_convolution_has_is_refused():
    y, k = arrays((1, 2, 2, 1), (3, 3, 1, 1))
    for wrong in ((0, 2), (-1, 0)):
        with pytest.raises(ValueError, match=r"output padding .* must be in \[0, stride\)"):
            conv_transpose(y, k, (2, 2), ((0, 0), (0, 0)), wrong)


# ---------------------------------------------------------------------------------------- layers


def test_layers():
    (x,) = arrays((2, 4, 6, 3), dtype=np.float32)
    conv: Any = Conv(5, (3, 3), strides=(2, 2), padding=1)
    variables = jax.jit(conv.init)(jax.random.key(0), x)
    assert "convolve" in str(jax.make_jaxpr(conv.apply)(variables, x))
    reference: Any = nn.Conv(5, (3, 3), strides=(2, 2), padding=1)
    np.testing.assert_allclose(conv.apply(variables, x), reference.apply(variables, x), atol=1e-5)

    transposed: Any = ConvTranspose(5, (5, 3), strides=2, padding=(2, 1), output_padding=1)
    variables = jax.jit(transposed.init)(jax.random.key(1), x)
    assert variables["params"]["kernel"].shape == (5, 3, 5, 3)
    moved = {"params": {**variables["params"], "bias": jnp.arange(5.0)}}
    y = transposed.apply(moved, x)
    kernel = variables["params"]["kernel"]
    expected = conv_transpose(x, kernel, (2, 2), ((2, 2), (1, 1)), (1, 1)) + jnp.arange(5.0)
    assert y.shape == (2, 8, 12, 5)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    without: Any = ConvTranspose(5, (5, 3), use_bias=False)
    assert "bias" not in jax.eval_shape(without.init, jax.random.key(2), x)["params"]


def test_transposed_kernels_start_with_the_variance_of_their_inputs():
    layer: Any = ConvTranspose(200, (3, 3))
    x = np.zeros((1, 2, 2, 7), np.float32)
    kernel = jax.jit(layer.init)(jax.random.key(0), x)["params"]["kernel"]
    assert np.var(kernel) == pytest.approx(1 / (3 * 3 * 7), rel=0.05)
