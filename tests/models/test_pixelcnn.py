import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import data
from jaxood.density import DensityModel
from jaxood.models.pixelcnn.layers import GatedBlock, Normalized, Settings
from jaxood.models.pixelcnn.network import PixelCNN, pixelcnn
from jaxood.models.pixelcnn.sampling import sample_incremental, sample_naive
from jaxood.nn.convolution import Conv
from jaxood.nn.likelihoods import logistic_mixture_log_prob, logistic_mixture_size, to_unit
from tests.helpers import perturb


def network(shape, *, depth=1, levels, normalization="batch") -> Any:
    settings = Settings(3, normalization, 0.5)
    return PixelCNN(logistic_mixture_size(shape[2], 2), depth, levels, settings)


def perturbed(init, *args, scale=0.3):
    """Variables without compiling an initialization: every parameter random."""
    shapes = jax.eval_shape(init, jax.random.key(0), *args)
    return perturb(jax.tree.map(lambda s: np.zeros(s.shape), shapes), scale)


def double(variables):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), variables)


# ------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_parameters_at_the_papers_size(normalization):
    """13.46 million, where BatchNorm stands beside the convolutions' own biases."""
    model = pixelcnn((32, 32, 3), normalization=normalization)
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == pytest.approx(13.46e6, rel=0.01)


@pytest.mark.parametrize(
    ("shape", "blocks", "levels"),
    [((4, 4, 3), 1, 3), ((8, 8, 1), 2, 2), ((3, 5, 3), 1, 1)],
    ids=str,
)
def test_a_value_depends_on_all_values_before_it_and_on_no_other(shape, blocks, levels, float64):
    """In raster order of pixels, channels within a pixel: the Jacobian is lower triangular."""
    net = network(shape, depth=blocks, levels=levels)
    variables = double(perturbed(net.init, np.zeros((1, *shape)), scale=0.5))
    x = np.random.default_rng(0).uniform(0, 255, shape)

    def log_masses(x):
        parameters = net.apply(variables, to_unit(x[None], jnp.float64))
        return logistic_mixture_log_prob(parameters, x[None]).ravel()

    jacobian = np.reshape(jax.jit(jax.jacfwd(log_masses))(x), (x.size, x.size))
    assert jacobian.dtype == np.float64
    np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
    assert (jacobian[np.tril_indices(x.size)] != 0).all()


def test_a_gated_block_written_out(float64):
    """Salimans et al. 2017, their code: concat_elu before each convolution, a sigmoid as gate."""
    x, skip = (np.random.default_rng(0).normal(size=(2, 3, 4, c)) for c in (3, 5))
    block: Any = GatedBlock((2, 2), Settings(3, "none", 0.5))
    params = double(perturbed(block.init, x, skip, scale=0.5))["params"]

    def convolve(name, h):
        layer = params[name]
        layer = layer.get("Normalized_0", layer)["conv"]
        kernel = layer["kernel"]
        padded = np.pad(h, ((0, 0), (len(kernel) - 1, 0), (kernel.shape[1] - 1, 0), (0, 0)))
        return layer["bias"] + sum(
            padded[:, i : i + 3, j : j + 4] @ kernel[i, j] for i, j in np.ndindex(kernel.shape[:2])
        )

    def concat_elu(h):
        both = np.concatenate([h, -h], axis=-1)
        return np.where(both > 0, both, np.expm1(np.minimum(both, 0)))

    h = convolve("ShiftedConv_0", concat_elu(x)) + convolve("Normalized_0", concat_elu(skip))
    h, gate = np.split(convolve("ShiftedConv_1", concat_elu(h)), 2, axis=-1)
    found = jax.jit(block.apply)({"params": params}, x, skip)
    np.testing.assert_allclose(found, x + h / (1 + np.exp(-gate)), rtol=1e-10)


@pytest.mark.parametrize("normalization", ["batch", "weight"])
def test_masses_of_all_images_sum_to_one(normalization):
    model = pixelcnn((1, 2, 1), width=2, depth=1, mixtures=2, levels=1, normalization=normalization)
    levels = np.arange(256, dtype=np.uint8)
    x = np.stack(np.meshgrid(levels, levels), -1).reshape(-1, 1, 2, 1)
    variables = perturbed(model.init, x[:1], scale=0.5)
    log_masses = np.asarray(jax.jit(model.log_prob)(variables, x), np.float64)
    assert np.exp(log_masses).sum() == pytest.approx(1, abs=1e-5)
    # The second pixel's law is not the same for every first pixel.
    masses = np.exp(log_masses).reshape(256, 256)
    assert np.linalg.matrix_rank(masses, rtol=1e-4) > 1


def test_weight_normalization_starts_with_normalized_outputs():
    x = np.random.default_rng(0).normal(3, 2, (8, 6, 6, 2)).astype(np.float32)
    layer = Normalized(functools.partial(Conv, 4, (3, 3)), "weight", init_scale=0.1)
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(0), x)
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 0.1, rtol=1e-4)

    # The kernel's length is no parameter.
    params = variables["params"]
    kernel = {"Conv_0": jax.tree.map(lambda k: 3 * k, params["Conv_0"])}
    longer: Any = layer.apply({"params": {**params, **kernel}}, x)
    np.testing.assert_allclose(longer, y, rtol=1e-4, atol=1e-6)


def test_weight_normalization_is_initialized_through_the_whole_network():
    """Each layer sees what the initialized layers before it make of the images."""
    x = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), np.uint8)
    net = network((4, 4, 1), levels=1, normalization="weight")
    y, _ = jax.jit(net.init_with_output)(jax.random.key(0), to_unit(x))
    np.testing.assert_allclose(np.mean(y, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1, rtol=1e-3)


# --------------------------------------------------------------------------------------- the modes


class Tiny(NamedTuple):
    model: DensityModel
    variables: Any
    images: np.ndarray


@pytest.fixture(scope="module")
def tiny():
    images = data.load("digits", "train")[0][:16]
    model = pixelcnn((8, 8, 1), width=4, depth=1, mixtures=2, levels=2)
    return Tiny(model, perturbed(model.init, images), images)


@pytest.fixture(scope="module")
def modes(tiny):
    """``(variables, x)`` to log-likelihoods in evaluation mode, in training mode, and updates."""

    @jax.jit
    def modes(variables, x):
        train, updates = tiny.model.log_prob(variables, x, train=True, mutable=["batch_stats"])
        return tiny.model.log_prob(variables, x), train, updates

    return modes


def test_only_evaluation_mode_is_blind_to_batch_mates(tiny, modes):
    x, variables = tiny.images, tiny.variables
    evaluation, train, updates = modes(variables, x)
    assert evaluation.shape == train.shape == (16,)
    assert evaluation.dtype == train.dtype == np.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, variables["batch_stats"])
    other = np.concatenate([x[:4], 255 - x[4:]])
    other_evaluation, other_train, _ = modes(variables, other)
    np.testing.assert_array_equal(evaluation[:4], other_evaluation[:4])
    assert np.abs(train[:4] - other_train[:4]).min() > 0.1


def test_training_mode_is_evaluation_mode_with_the_batchs_own_moments(tiny, modes):
    """Every shifted convolution carries BatchNorm, none other does."""
    x, variables = tiny.images, tiny.variables
    blank = jax.tree.map(np.zeros_like, variables["batch_stats"])
    _, train, updates = modes({**variables, "batch_stats": blank}, x)
    batch = jax.tree.map(lambda leaf: leaf / 0.1, updates)
    evaluation, _, _ = modes({**variables, "batch_stats": batch}, x)
    np.testing.assert_allclose(evaluation, train, rtol=1e-4)

    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(variables["params"])]
    kernels = {str(p[:-2]): p[-1].key for p in paths if p[-2].key.startswith("conv")}
    normalized = {str(p[:-2]) for p in paths if p[-2].key == "norm"}
    # 3 entrances; 2 streams of 2 + 3 blocks in 4 stages, 2 convolutions each; 2 resamplings each.
    assert len(normalized) == 3 + 2 * (4 * 2 + 2)
    # Horizontal blocks and those on the way up have short cuts; and there is the output.
    assert len(kernels.keys() - normalized) == 2 + 4 + 1


def test_dropout_acts_only_where_a_key_is_given(tiny):
    @jax.jit
    def log_probs(key):
        log_prob = functools.partial(tiny.model.log_prob, tiny.variables, tiny.images, train=True)
        plain, noise = log_prob(), log_prob(key=key)
        return plain, noise, log_prob(dropout_key=key)

    plain, noise, dropped = log_probs(jax.random.key(0))
    np.testing.assert_array_equal(plain, noise)
    assert np.abs(plain - dropped).min() > 1e-2
    _, _, other = log_probs(jax.random.key(1))
    assert np.abs(other - dropped).min() > 1e-3


# ----------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("shape", "levels", "normalization"),
    [((8, 4, 3), 3, "batch"), ((4, 6, 1), 2, "weight")],
    ids=str,
)
def test_incremental_samples_are_those_of_whole_passes(shape, levels, normalization, float64):
    """They are compared in double precision, where no rounding error changes a level."""
    net = network(shape, levels=levels, normalization=normalization)
    variables = double(perturbed(net.init, np.zeros((1, *shape)), scale=0.25))
    naive, incremental = (
        np.asarray(
            jax.jit(functools.partial(draw, net, n=3, image_shape=shape, temperature=0.8))(
                variables, jax.random.key(0)
            )
        )
        for draw in (sample_naive, sample_incremental)
    )
    assert incremental.shape == (3, *shape)
    np.testing.assert_array_equal(incremental, naive)
    assert len(np.unique(naive)) > 20


def test_samples_follow_the_masses():
    """Each half of the first pixel's levels with each quarter of the second's."""
    model = pixelcnn((1, 2, 1), width=2, depth=1, mixtures=2, levels=1)
    levels = np.arange(256, dtype=np.uint8)
    every = np.stack(np.meshgrid(levels, levels), -1).reshape(-1, 1, 2, 1)
    variables = perturbed(model.init, every[:1], scale=0.5)
    masses = np.exp(jax.jit(model.log_prob)(variables, every))
    n = 20_000
    x = np.asarray(jax.jit(functools.partial(model.sample, n=n))(variables, jax.random.key(0)))
    assert x.shape == (n, 1, 2, 1)
    assert x.dtype == np.uint8

    def bins(x):
        return x[:, 0, 0, 0] // 128 * 4 + x[:, 0, 1, 0] // 64

    expected = n * np.bincount(bins(every), masses, 8)
    found = np.bincount(bins(x), minlength=8)
    assert expected.min() > 20
    # A chi-square of 7 degrees of freedom exceeds 24.3 once in a thousand.
    assert ((found - expected) ** 2 / expected).sum() < 24.3


def test_temperature_zero_leaves_no_noise(tiny):
    @jax.jit
    def sample(key, temperature):
        return tiny.model.sample(tiny.variables, key, 4, temperature=temperature)

    cold, cold_too = sample(jax.random.key(0), 0.0), sample(jax.random.key(1), 0.0)
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[0], cold.shape))
    np.testing.assert_array_equal(cold, cold_too)
    warm = np.asarray(sample(jax.random.key(0), 1.0))
    assert (warm[0] != warm[1]).mean() > 0.5


# ---------------------------------------------------------------------------------------- refusals


def test_what_it_cannot_model_is_refused():
    with pytest.raises(ValueError, match="divisible by 4, not 10x8"):
        pixelcnn((10, 8, 1))
    with pytest.raises(ValueError, match="1 or 3 channels, not 4"):
        pixelcnn((8, 8, 4))
    with pytest.raises(ValueError, match="not 'layer'"):
        pixelcnn((8, 8, 1), normalization="layer")


def test_images_must_be_levels(tiny):
    with pytest.raises(TypeError, match="images must be uint8"):
        tiny.model.log_prob(tiny.variables, tiny.images.astype(np.float32))
