import functools

import chex
import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from jaxood import data
from jaxood.models.vae import VAE, elbo_estimate, vae
from jaxood.nn.convolution import ConvTranspose
from tests.helpers import initial, perturb

BATCH = 8


@pytest.fixture(scope="module")
def model():
    return vae((8, 8, 1), width=2, latent=3)


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "train")[0][:64]


@pytest.fixture(scope="module")
def variables(model, images):
    return perturb(initial(model.init, images), scale=0.3)


@pytest.fixture(scope="module")
def modes(model):
    @jax.jit
    def modes(variables, x, key):
        train, updates = model.log_prob(variables, x, key=key, train=True, mutable=["batch_stats"])
        return model.log_prob(variables, x, key=key), train, updates

    return modes


def test_the_bound_falls_short_by_the_divergence_from_the_true_posterior():
    """With one latent number the likelihood and the true posterior are integrals on a line."""
    shape, n = (4, 4, 1), 1024
    model, net = vae(shape, width=2, latent=1), VAE(shape, width=2, latent=1)
    x = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    variables = perturb(initial(model.init, x), scale=0.5)
    z = np.linspace(-8, 8, 401)
    step = z[1] - z[0]

    decode = jax.jit(functools.partial(net.apply, method="decode"))
    logits = decode(variables, z[:, None].astype(np.float32))
    log_masses = np.asarray(jax.nn.log_softmax(logits), np.float64).reshape(-1, 16, 256)
    mean, scale = jax.jit(functools.partial(net.apply, method="encode"))(variables, x)
    draws = jax.jit(model.log_prob)(variables, np.repeat(x, n, 0), key=jax.random.key(1))
    centre, at_means = jax.jit(model.log_prob)(variables, x), decode(variables, mean)
    for i in range(2):
        log_likelihood = log_masses[:, np.arange(16), x[i].ravel()].sum(-1)
        log_joint = log_likelihood + norm.logpdf(z)
        log_prob = logsumexp(log_joint) + np.log(step)
        log_q = norm.logpdf(z, mean[i, 0], scale[i, 0])
        q = np.exp(log_q) * step
        assert q.sum() == pytest.approx(1, abs=1e-6)
        gap = np.sum(q * (log_q - (log_joint - log_prob)))
        assert gap > 0.01
        values = np.asarray(draws, np.float64).reshape(2, n)[i]
        error = values.std() / np.sqrt(n)
        assert values.mean() == pytest.approx(log_prob - gap, abs=4 * error)
        assert 4 * error < gap

        # Without a key: the likelihood at the posterior's mean.
        kl = np.sum(q * (log_q - norm.logpdf(z)))
        at_mean = np.asarray(jax.nn.log_softmax(at_means[i]), np.float64).reshape(16, 256)
        at_mean = at_mean[np.arange(16), x[i].ravel()].sum()
        assert centre[i] == pytest.approx(at_mean - kl, abs=1e-3)


def test_estimate_of_the_bound(model, variables, images):
    estimate = jax.jit(functools.partial(elbo_estimate, model, draws=64))
    mean, error = estimate(variables, images[:BATCH], jax.random.key(0))
    more, _ = estimate(variables, images[:BATCH], jax.random.key(1))
    assert mean.shape == error.shape == (BATCH,)
    # Two independent means differ by about sqrt(2) standard errors.
    gap = np.asarray(mean - more) / (np.sqrt(2) * np.asarray(error))
    assert 0.3 < np.sqrt(np.mean(gap**2)) < 2
    # An image's estimate follows it.
    backwards, _ = estimate(variables, images[:BATCH][::-1], jax.random.key(0))
    np.testing.assert_array_equal(backwards[::-1], mean)


def test_modes_are_arguments(variables, images, modes):
    x, key = images[:BATCH], jax.random.key(0)
    evaluation, train, updates = modes(variables, x, key)
    assert evaluation.shape == train.shape == (BATCH,)
    assert evaluation.dtype == train.dtype == np.float32
    assert np.abs(evaluation - train).min() > 0.1
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, variables["batch_stats"])
    blank = {**variables, "batch_stats": jax.tree.map(np.zeros_like, variables["batch_stats"])}
    _, blank_train, moments = modes(blank, x, key)
    np.testing.assert_array_equal(train, blank_train)
    # Evaluation mode with the batch's own moments is training mode.
    moments = jax.tree.map(lambda leaf: leaf / 0.1, moments)
    own, _, _ = modes({**variables, "batch_stats": moments}, x, key)
    np.testing.assert_allclose(own, train, rtol=1e-4)


def test_training_mode_depends_on_batch_mates_and_evaluation_mode_does_not(
    variables, images, modes
):
    x = images[:BATCH]
    keys = jax.random.split(jax.random.key(0), BATCH)
    evaluation, train, _ = modes(variables, x, keys)
    other = np.concatenate([x[:3], 255 - images[30 : 30 + BATCH - 3]])
    other_evaluation, other_train, _ = modes(variables, other, keys)
    np.testing.assert_array_equal(evaluation[:3], other_evaluation[:3])
    assert np.abs(train[:3] - other_train[:3]).min() > 0.1
    # With a key of its own, an image's noise follows it.
    backwards, _, _ = modes(variables, x[::-1], keys[::-1])
    np.testing.assert_array_equal(backwards[::-1], evaluation)


def test_every_parameter_has_a_finite_gradient(model, variables, images):
    x, key = images[:BATCH], jax.random.key(0)

    @jax.jit
    def gradient(params):
        def loss(params):
            return -model.log_prob({**variables, "params": params}, x, train=True, key=key).mean()

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_the_decoder_ends_with_a_relu_and_a_product_at_each_pixel(variables):
    """Its last two layers have no BatchNorm between them (Appendix C.1), but a ReLU."""
    net = VAE((8, 8, 1), width=2, latent=3)
    z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    @jax.jit
    def decode(z):
        def is_convolution(module, _):
            return isinstance(module, ConvTranspose)

        return net.apply(
            variables,
            z,
            method="decode",
            capture_intermediates=is_convolution,
            mutable=["intermediates"],
        )

    logits, captured = decode(z)
    before = captured["intermediates"]["decoder"]["ConvTranspose_6"]["__call__"][0]
    last = variables["params"]["decoder"]["ConvTranspose_7"]
    assert (before < 0).any() and before.shape == (4, 8, 8, 16)
    expected = np.maximum(before, 0) @ last["kernel"][0, 0].T + last["bias"]
    np.testing.assert_allclose(logits[:, :, :, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "c"), [(28, 1), (32, 3)])
def test_parameters_of_table_3(size, c):
    """Counted by hand: kernels; two numbers a BatchNorm channel; biases of what has none."""
    k, a, b = size // 4, 32 * c, 64 * c
    encoder = 25 * (c * a + a * a + a * a + a * b + b * b) + k * k * b * 256
    decoder = (
        k * k * 64 * b + 25 * (b * b + b * b + b * a + a * a + a * a + a * 256) + 256 * 256 * c
    )
    normalized = (3 * a + 2 * b + 256) + (3 * b + 3 * a)
    others = 256 * 128 + 128 + 256 + 256 * c  # the dense layer, and biases of the last two

    model = vae((size, size, c))
    x = jax.ShapeDtypeStruct((1, size, size, c), np.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == encoder + decoder + 2 * normalized + others

    stats = variables["batch_stats"]
    channels = {part: [len(s["mean"]) for s in stats[part].values()] for part in stats}
    assert channels == {"encoder": [a, a, a, b, b, 256], "decoder": [b, b, b, a, a, a]}

    # It runs: log-likelihoods, and samples of the images' own shape.
    images = jax.ShapeDtypeStruct((5, size, size, c), np.uint8)
    assert jax.eval_shape(model.log_prob, variables, images).shape == (5,)
    samples = jax.eval_shape(functools.partial(model.sample, n=3), variables, jax.random.key(0))
    assert samples.shape == (3, size, size, c)
    assert samples.dtype == np.uint8


def test_samples_follow_the_temperature():
    """Means of the pixels and the variance of their sum, against those of the mixture over latents.

    Given its latents, an image's pixels are independent.
    """
    shape, n, levels = (4, 4, 1), 2000, np.arange(256)
    model = vae(shape, width=2, latent=3)
    variables = perturb(initial(model.init, np.zeros((1, *shape), np.uint8)), scale=0.5)
    net = VAE(shape, width=2, latent=3)
    decode = jax.jit(functools.partial(net.apply, method="decode"))
    sample = jax.jit(functools.partial(model.sample, n=n))
    variances = []
    for temperature, options in (
        (0.0, {"temperature": 0.0}),
        (1.0, {}),
        (2.0, {"temperature": 2.0}),
    ):
        x = np.asarray(sample(variables, jax.random.key(0), **options))
        assert x.shape == (n, *shape)
        assert x.dtype == np.uint8

        z = temperature * jax.random.normal(jax.random.key(1), (n, 3))
        masses = np.asarray(jax.nn.softmax(decode(variables, z)))
        mean, square = masses @ levels, masses @ levels**2
        within = (square - mean**2).sum((1, 2, 3)).mean()
        variances.append(within + mean.sum((1, 2, 3)).var())
        # A variance of n normal numbers has relative error sqrt(2 / n).
        total = x.sum((1, 2, 3), dtype=np.float64)
        assert total.var() == pytest.approx(variances[-1], rel=4 * np.sqrt(2 / n))
        error = np.sqrt((x.var(0, dtype=np.float64) + mean.var(0)) / n)
        assert np.abs((x.mean(0) - mean.mean(0)) / error).max() < 4
    # The temperatures are further apart than that.
    assert variances[0] > 1.15 * variances[1] > 1.4 * variances[2]


@pytest.mark.parametrize("shape", [(8, 12, 1), (6, 6, 3)], ids=str)
def test_sizes_that_do_not_halve_twice_are_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]} images need one size"):
        vae(shape)


def test_only_uint8_images_are_scored(model, variables):
    with pytest.raises(TypeError, match=r"must be uint8.*got float32"):
        model.log_prob(variables, np.zeros((1, 8, 8, 1), np.float32))
