import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import logistic

from jaxood.nn import likelihoods

RNG = np.random.default_rng(0)
LEVELS = np.arange(256, dtype=np.uint8)

log_prob = jax.jit(likelihoods.logistic_mixture_log_prob)
sample = jax.jit(likelihoods.logistic_mixture_sample, static_argnums=2)


def mixture(shape, channels, mixtures=3, scale=1.0):
    size = likelihoods.logistic_mixture_size(channels, mixtures)
    return (scale * RNG.normal(size=(*shape, size))).astype(np.float32)


def component(mean, log_scale):
    """One logistic, one channel."""
    return np.stack(np.broadcast_arrays(0.0, mean, log_scale), axis=-1).astype(np.float32)


# ----------------------------------------------------------------------------------- categorical


def test_categorical_masses_are_a_softmax():
    logits = 5 * RNG.normal(size=(4, 3, 256)).astype(np.float32)
    log_probs = likelihoods.categorical_log_prob(
        logits[:, :, None], np.broadcast_to(LEVELS, (4, 3, 256))
    )
    assert log_probs.shape == (4, 3, 256)
    np.testing.assert_allclose(np.exp(log_probs), softmax(logits, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_categorical_samples_follow_the_masses(temperature):
    logits = np.full(256, -30.0, np.float32)
    logits[[3, 100, 255]] = [0.0, 1.0, 2.0]
    n = 20_000
    x = likelihoods.categorical_sample(
        jax.random.key(0), np.broadcast_to(logits, (n, 256)), temperature
    )
    assert x.dtype == np.uint8
    expected = softmax(np.array([0.0, 1.0, 2.0]) / temperature)
    found = np.bincount(np.asarray(x), minlength=256)[[3, 100, 255]] / n
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(n))


def test_temperature_zero_is_the_mode():
    logits = RNG.normal(size=(50, 256)).astype(np.float32)
    x = likelihoods.categorical_sample(jax.random.key(0), logits, 0.0)
    np.testing.assert_array_equal(x, logits.argmax(-1))


# ------------------------------------------------------------------------------ logistic mixture


def test_masses_are_differences_of_the_logistic_law(float64):
    """One component, in double precision, where SciPy's differences do not cancel."""
    mean, scale = np.array([0.3, -0.9, 0.0])[:, None], np.array([0.05, 0.3, 2.0])[:, None]
    parameters = np.stack(np.broadcast_arrays(0.0, mean, np.log(scale)), axis=-1)
    found = log_prob(np.broadcast_to(parameters, (3, 256, 3)), np.tile(LEVELS, (3, 1))[..., None])
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    expected = np.diff(logistic.cdf(edges, mean, scale))
    seen = expected > 1e-10
    assert seen.mean() > 0.5
    np.testing.assert_allclose(np.exp(found[..., 0])[seen], expected[seen], rtol=1e-5)


def test_masses_of_a_gray_pixel_sum_to_one():
    parameters = mixture((200, 1), 1, scale=3.0)
    x = np.tile(LEVELS, (200, 1))[..., None]
    masses = np.exp(log_prob(np.broadcast_to(parameters, (200, 256, 9)), x))
    np.testing.assert_allclose(masses.sum((1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_masses_of_a_channel_sum_to_one_given_those_before_it(channel):
    parameters = mixture((50, 1), 3, scale=2.0)
    x = np.broadcast_to(RNG.integers(0, 256, (50, 1, 3), np.uint8), (50, 256, 3)).copy()
    x[..., channel] = LEVELS
    masses = np.exp(log_prob(np.broadcast_to(parameters, (50, 256, 30)), x))
    np.testing.assert_allclose(masses[..., channel].sum(1), 1, atol=1e-5)


def test_channels_share_a_component_and_move_the_means_after_them(float64):
    """The oracle is the mixture, written out component by component."""
    k, (red, green, blue) = 3, (10, 128, 255)
    parameters = RNG.normal(size=10 * k)
    weights = np.log(softmax(parameters[:k]))
    terms = []
    for means, log_scales, coefficients in zip(
        *np.split(parameters[k:].reshape(k, 9), 3, axis=1), strict=True
    ):
        r, g = np.array([red, green]) / 127.5 - 1
        a, b, c = np.tanh(coefficients)
        means = means + np.array([0, a * r, b * r + c * g])
        scales = np.exp(log_scales)
        edges = (np.array([red, green, blue])[:, None] + [-0.5, 0.5]) / 127.5 - 1
        edges[2, 1] = np.inf
        terms.append(np.log(np.diff(logistic.cdf(edges, means[:, None], scales[:, None]))).sum())
    found = log_prob(parameters, np.array([red, green, blue], np.uint8))
    expected = np.asarray(logsumexp(weights + terms))
    np.testing.assert_allclose(found.sum(), expected, rtol=1e-6)


@pytest.mark.parametrize("log_scale", [-200.0, -8.0, -3.0, 3.0, 80.0])
def test_log_masses_and_gradients_are_finite(log_scale):
    mean = np.array([-30.0, -1.0, -0.996, 0.0, 0.5, 1.0, 30.0], np.float32)[:, None]
    parameters = np.broadcast_to(component(mean, log_scale), (7, 256, 3))
    x = np.tile(LEVELS, (7, 1))[..., None]
    value, gradient = jax.jit(
        jax.value_and_grad(lambda p: likelihoods.logistic_mixture_log_prob(p, x).sum())
    )(parameters)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(np.exp(log_prob(parameters, x)).sum((1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_follow_the_masses(channels):
    n = 20_000
    parameters = mixture((1,), channels)
    many = np.broadcast_to(parameters, (n, parameters.size))
    x = np.asarray(sample(jax.random.key(1), many, channels))
    assert x.shape == (n, channels)
    assert x.dtype == np.uint8
    # Each channel's conditional distribution function at the drawn level is uniform, up to the
    # level's own mass, which the uniform number hides.
    below = np.zeros((n, channels))
    at = np.exp(np.asarray(log_prob(many, x)))
    every = np.repeat(x[:2000, None], 256, axis=1)
    for i in range(channels):
        levels = every.copy()
        levels[..., i] = LEVELS
        masses = np.exp(log_prob(np.broadcast_to(parameters, (2000, 256, parameters.size)), levels))
        below[:2000, i] = np.where(LEVELS < x[:2000, i : i + 1], masses[..., i], 0).sum(1)
    uniform = (below + RNG.uniform(size=(n, channels)) * at)[:2000]
    counts = np.stack([np.histogram(u, 10, (0, 1))[0] for u in uniform.T])
    # 200 a bin; a chi-square of 9 degrees of freedom exceeds 28 once in a thousand.
    assert (((counts - 200) ** 2 / 200).sum(1) < 28).all()


def test_temperature_scales_weights_and_noise():
    """Two narrow components, then one wide one."""
    n, temperature = 20_000, 2.0
    logits, means, log_scale = [0.0, 1.0], [-0.5, 0.5], -7.0
    two = np.array([*logits, means[0], log_scale, means[1], log_scale], np.float32)
    x = sample(jax.random.key(2), np.broadcast_to(two, (n, 6)), 1, temperature)
    second = softmax(np.array(logits) / temperature)[1]
    assert np.mean(np.asarray(x) > 128) == pytest.approx(second, abs=4 * 0.5 / np.sqrt(n))

    scale = 0.05
    one = np.broadcast_to(component(0.0, np.log(scale)), (n, 3))
    x = np.asarray(sample(jax.random.key(3), one, 1, temperature))
    quartile = np.mean(np.abs(x / 127.5 - 1) < temperature * scale * np.log(3))
    assert quartile == pytest.approx(0.5, abs=0.03)

    x = sample(jax.random.key(3), two[None], 1, 0.0)
    assert x.item() == np.round((means[1] + 1) * 127.5)


def test_keys_of_images_make_their_samples_their_own():
    parameters = jnp.asarray(mixture((8,), 3))
    logits = jnp.asarray(RNG.normal(size=(8, 256)), jnp.float32)
    sample_mixture = likelihoods.logistic_mixture_sample
    keys = jax.random.split(jax.random.key(4), 8)
    for draw in (
        jax.jit(lambda keys, rows: sample_mixture(keys, parameters[rows], 3)),
        jax.jit(lambda keys, rows: likelihoods.categorical_sample(keys, logits[rows])),
    ):
        whole = np.asarray(draw(keys, np.arange(8)))
        some = np.asarray(draw(keys[5:2:-1], np.arange(5, 2, -1)))
        np.testing.assert_array_equal(some, whole[5:2:-1])
        assert len(np.unique(whole)) > 4


def test_other_channel_counts_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        likelihoods.logistic_mixture_size(2, 10)
