import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxood.nn import layers
from tests.helpers import initial, perturb


def arrays(*shapes, dtype: Any = np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


sizes = st.integers(1, 4)


@given(sizes, sizes, sizes, sizes)
@settings(deadline=None, max_examples=20)
def test_squeeze_moves_patches_into_channels_and_back(n, h, w, c):
    x = np.arange(n * 4 * h * w * c).reshape(n, 2 * h, 2 * w, c)
    squeezed = layers.squeeze(x)
    assert squeezed.shape == (n, h, w, 4 * c)
    np.testing.assert_array_equal(layers.unsqueeze(squeezed), x)
    for i, j in np.ndindex(h, w):
        patch = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        np.testing.assert_array_equal(squeezed[:, i, j], patch.reshape(n, 4 * c))


def test_checkerboard_shows_every_other_pixel():
    mask = np.asarray(layers.checkerboard((7, 4, 6, 3)))
    assert mask.shape == (4, 6, 3)
    assert mask.dtype == np.float32
    assert mask[0, 0, 0] == 1
    np.testing.assert_array_equal(mask[1:] + mask[:-1], 1)
    np.testing.assert_array_equal(mask[:, 1:] + mask[:, :-1], 1)
    np.testing.assert_array_equal(mask, np.repeat(mask[:, :, :1], 3, axis=2))


def test_channelwise_shows_the_first_half_of_the_channels():
    mask = np.asarray(layers.channelwise((7, 4, 6, 8)))
    assert mask.shape == (4, 6, 8)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask[:, :, :4], 1)
    np.testing.assert_array_equal(mask[:, :, 4:], 0)


def test_residual_network_starts_at_zero_and_does_not_stay_there():
    (x,) = arrays((2, 4, 4, 2))
    net = layers.ResNet(width=3, depth=2, out_channels=5)
    variables = initial(functools.partial(net.init, train=False), x)
    apply = jax.jit(functools.partial(net.apply, train=False))
    np.testing.assert_array_equal(apply(variables, x), np.zeros((2, 4, 4, 5)))
    # Each block has weights of its own.
    kernels = jax.tree.leaves(variables["params"]["blocks"])
    assert all(len(kernel) == 2 for kernel in kernels)
    assert any(np.any(np.asarray(kernel[0]) != np.asarray(kernel[1])) for kernel in kernels)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, variables)
    assert np.abs(apply(moved, x)).min() > 0


def test_residual_network_layer_by_layer(float64):
    """Pre-activation (He et al. 2016): BatchNorm, ReLU, convolution; nothing before the first."""
    (x,) = arrays((2, 5, 4, 2), dtype=np.float64)
    net: Any = layers.ResNet(width=3, depth=2, out_channels=5)
    shapes = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), x)
    variables = perturb(jax.tree.map(lambda s: np.zeros(s.shape), shapes), scale=0.5)
    variables = jax.tree.map(np.float64, variables)
    params, stats = variables["params"], variables["batch_stats"]

    def convolve(h, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=layout)

    def activated(h, norm, moments):
        deviation = np.sqrt(moments["var"] + 1e-5)
        return np.maximum(norm["scale"] * (h - moments["mean"]) / deviation + norm["bias"], 0)

    def one_of(tree, i):
        return jax.tree.map(lambda leaf: leaf[i], tree)

    h = convolve(x, params["Conv_0"]["kernel"])
    for i in range(2):
        block, moments = one_of(params["blocks"], i), one_of(stats["blocks"], i)
        inner = h
        for layer in ("0", "1"):
            norm = f"BatchNorm_{layer}"
            inner = activated(np.asarray(inner), block[norm], moments[norm])
            inner = convolve(inner, block[f"Conv_{layer}"]["kernel"])
        h = h + inner
    h = activated(np.asarray(h), params["BatchNorm_0"], stats["BatchNorm_0"])
    expected = convolve(h, params["Conv_1"]["kernel"]) + params["Conv_1"]["bias"]
    found = jax.jit(functools.partial(net.apply, train=False))(variables, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_every_parameter_matters_in_training_mode():
    """BatchNorm takes away a bias in front of it; Adam would then move it by rounding errors."""
    x, weight = arrays((4, 4, 4, 2), (4, 4, 4, 5))
    net = layers.ResNet(width=3, depth=2, out_channels=5)
    variables = jax.tree.map(
        lambda leaf: leaf + 0.1, initial(functools.partial(net.init, train=True), x)
    )

    @jax.grad
    def gradient(params):
        y, _ = net.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return (weight * y).sum()

    largest = [
        float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient(variables["params"]))
    ]
    assert min(largest) > 1e-3 * max(largest)


@pytest.mark.parametrize("train", [False, True])
def test_the_program_does_not_grow_with_more_than_eight_blocks(train):
    (x,) = arrays((2, 4, 4, 2))

    def lines(blocks):
        net = layers.ResNet(width=3, depth=blocks, out_channels=5)
        variables = jax.eval_shape(functools.partial(net.init, train=train), jax.random.key(0), x)

        def loss(params, batch_stats, x):
            variables = {"params": params, "batch_stats": batch_stats}
            return net.apply(variables, x, train=train, mutable=["batch_stats"])[0].sum()

        program = jax.jit(jax.grad(loss)).lower(variables["params"], variables["batch_stats"], x)
        return len(program.as_text().splitlines())

    assert lines(9) == lines(20) > 100
