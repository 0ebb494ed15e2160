import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.stats import norm

from jaxood.models.realnvp import ALPHA, RealNVP, realnvp
from tests.helpers import perturb

BATCH = 16


@pytest.fixture(scope="module")
def modes(flow):
    """``(variables, x)`` to log-likelihoods in evaluation mode, in training mode, and updates."""

    @jax.jit
    def modes(variables, x):
        assert len(x) == BATCH
        train, updates = flow.model.log_prob(variables, x, train=True, mutable=["batch_stats"])
        return flow.model.log_prob(variables, x), train, updates

    return modes


def moments(updates):
    """The moments of a batch, from the update of statistics that were zero."""
    return jax.tree.map(lambda leaf: leaf / 0.1, updates)


def without_statistics(variables):
    return {**variables, "batch_stats": jax.tree.map(np.zeros_like, variables["batch_stats"])}


@pytest.fixture(scope="module")
def transform():
    """The bijection that `flow` is made of."""

    @functools.partial(jax.jit, static_argnames="inverse")
    def apply(variables, x, inverse=False):
        return RealNVP(4, 1).apply(variables, x, inverse=inverse)

    return apply


def test_inverse_undoes_forward(flow, transform):
    x = np.random.default_rng(0).normal(size=(BATCH, 8, 8, 1)).astype(np.float32)
    z, log_det = transform(flow.variables, x)
    back, same_log_det = transform(flow.variables, z, inverse=True)
    assert np.abs(z - x).mean() > 0.1
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(same_log_det, log_det, rtol=1e-5, atol=1e-4)


def test_the_flow_starts_as_the_identity(flow, transform):
    x = np.random.default_rng(1).normal(size=(BATCH, 8, 8, 1)).astype(np.float32)
    z, log_det = transform(flow.initial, x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, 0)


# ------------------------------------------------------------------------------ log-determinants


class Bijection:
    """A perturbed flow in double precision, with Jacobians."""

    def __init__(self, shape):
        # The original convolution: forward-mode differentiation, and compiled in half the time.
        self.flow: Any = RealNVP(2, 1, nn.Conv)
        self.x = np.random.default_rng(2).normal(size=(3, *shape))
        shapes = jax.eval_shape(self.flow.init, jax.random.key(0), self.x)
        self.variables = perturb(jax.tree.map(lambda s: np.zeros(s.shape), shapes), scale=0.3)

    @functools.partial(jax.jit, static_argnums=0)
    def evaluation(self, variables, x):
        """Log-determinants ``(n,)``, and Jacobians ``(n, d, d)``, one image at a time."""

        def one(x):
            z, log_det = self.flow.apply(variables, x[None])
            return z.ravel(), log_det[0]

        jacobian, log_det = jax.vmap(jax.jacfwd(one, has_aux=True))(x)
        return log_det, jacobian.reshape(len(x), x[0].size, x[0].size)

    @functools.partial(jax.jit, static_argnums=0)
    def training(self, variables, x):
        """Log-determinants, the Jacobian ``(n, d, n, d)`` of the whole batch, and updates."""

        def batch(x):
            (z, log_det), updates = self.flow.apply(
                variables, x, train=True, mutable=["batch_stats"]
            )
            return z, (log_det, updates["batch_stats"])

        jacobian, (log_det, updates) = jax.jacfwd(batch, has_aux=True)(x)
        return log_det, jacobian.reshape(len(x), x[0].size, len(x), x[0].size), updates


bijection = functools.cache(Bijection)


def log_abs_det(jacobian):
    return np.linalg.slogdet(np.asarray(jacobian)).logabsdet


@pytest.mark.parametrize("shape", [(4, 4, 1), (6, 4, 3)], ids=str)
def test_log_det_is_that_of_the_jacobian_in_evaluation_mode(shape, float64):
    f = bijection(shape)
    log_det, jacobian = f.evaluation(f.variables, f.x)
    assert log_det.dtype == np.float64
    assert np.abs(log_det).min() > 0.01
    np.testing.assert_allclose(log_det, log_abs_det(jacobian), rtol=0, atol=1e-8)


def test_what_the_log_dets_of_training_mode_are(float64):
    """In training mode an image moves the statistics that it is normalized by.

    A coupling of the whole batch scales what its mask hides by functions of what it shows, in all
    images, so its Jacobian is triangular: over the whole batch the log-determinants add up to the
    true one. One image's is that of its own map with the statistics held fixed; it is not that of
    its own map with its batch mates held fixed, where the statistics move (BatchNorm paper,
    Proposition 1, which holds up to this).
    """
    f = bijection((4, 4, 1))
    log_det, jacobian, updates = f.training(without_statistics(f.variables), f.x)
    n, d = jacobian.shape[:2]
    whole = log_abs_det(np.reshape(jacobian, (n * d, n * d)))
    np.testing.assert_allclose(log_det.sum(), whole, rtol=0, atol=1e-8)

    held = {**f.variables, "batch_stats": moments(updates)}
    held_log_det, held_jacobian = f.evaluation(held, f.x)
    np.testing.assert_allclose(log_det, held_log_det, rtol=0, atol=1e-8)
    np.testing.assert_allclose(log_det, log_abs_det(held_jacobian), rtol=0, atol=1e-8)

    mates_held = log_abs_det([jacobian[i, :, i] for i in range(n)])
    assert np.abs(log_det - mates_held).min() > 1e-4


# ------------------------------------------------------------------------------- from pixels up


@pytest.fixture(scope="module")
def log_prob_of_levels(flow, modes):
    """One pixel's share of the log-likelihood at the centre of each level, by the identity."""
    levels = np.arange(256, dtype=np.uint8)
    x = np.broadcast_to(levels[:, None, None, None], (256, 8, 8, 1))
    return np.concatenate([modes(flow.initial, part)[0] for part in np.split(x, 16)]) / 64


def test_preprocessing_is_a_change_of_variables(log_prob_of_levels, float64):
    """At initialization the flow is the identity: what is left is the logit and its slope."""
    centres = np.arange(256) + 0.5

    def logit(pixel):
        y = ALPHA + (1 - 2 * ALPHA) * pixel / 256
        return jnp.log(y / (1 - y))

    slope = jax.vmap(jax.grad(logit))(centres)
    assert slope.dtype == np.float64
    expected = norm.logpdf(logit(centres)) + np.log(slope)
    np.testing.assert_allclose(log_prob_of_levels, expected, rtol=1e-5)

    # So a pixel's density sums to what the normal law leaves on the logit's range. The midpoint
    # rule is good to the square of a level's width.
    low, high = logit(0.0), logit(256.0)
    assert np.exp(log_prob_of_levels).sum() == pytest.approx(
        norm.cdf(high) - norm.cdf(low), abs=1e-4
    )


def test_dequantization_noise_enters_the_log_likelihood(flow):
    """Near level 0 of the identity flow, where the slope of the density is known."""
    log_prob = jax.jit(lambda x, key: flow.model.log_prob(flow.initial, x, key=key))
    x = np.full((BATCH, 8, 8, 1), 3, np.uint8)
    keys = jax.random.split(jax.random.key(0), BATCH)
    pixel = 3 + np.asarray(jax.vmap(lambda k: jax.random.uniform(k, (8, 8, 1)))(keys), np.float64)
    y = ALPHA + (1 - 2 * ALPHA) * pixel / 256
    density = norm.logpdf(np.log(y / (1 - y))) + np.log((1 - 2 * ALPHA) / 256 / y / (1 - y))
    np.testing.assert_allclose(log_prob(x, keys), density.sum((1, 2, 3)), rtol=1e-5)


def test_modes_are_arguments(flow, modes):
    x = flow.images[:BATCH]
    evaluation, train, updates = modes(flow.variables, x)
    assert evaluation.shape == train.shape == (BATCH,)
    assert evaluation.dtype == train.dtype == np.float32
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, flow.variables["batch_stats"])
    plain = jax.jit(functools.partial(flow.model.log_prob, train=True))(flow.variables, x)
    np.testing.assert_allclose(plain, train, rtol=1e-6)


def test_training_mode_depends_on_batch_mates_and_evaluation_mode_does_not(flow, modes):
    x = flow.images[:BATCH]
    other = np.concatenate([x[:4], 255 - flow.images[100 : 100 + BATCH - 4]])
    evaluation, train, _ = modes(flow.variables, x)
    other_evaluation, other_train, _ = modes(flow.variables, other)
    np.testing.assert_array_equal(evaluation[:4], other_evaluation[:4])
    assert np.abs(train[:4] - other_train[:4]).min() > 0.1
    # Only the set of images matters, not their order; sums over the batch round differently.
    backwards_evaluation, backwards_train, _ = modes(flow.variables, x[::-1])
    np.testing.assert_array_equal(backwards_evaluation[::-1], evaluation)
    np.testing.assert_allclose(backwards_train[::-1], train, rtol=1e-5)


def test_training_mode_ignores_the_running_statistics_and_moves_them(flow, modes):
    x = flow.images[:BATCH]
    _, train, updates = modes(flow.variables, x)
    _, blank_train, blank_updates = modes(without_statistics(flow.variables), x)
    np.testing.assert_array_equal(train, blank_train)

    batch = moments(blank_updates)
    old = flow.variables["batch_stats"]
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, old, batch)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-6)

    # Evaluation mode with the batch's own moments is training mode.
    own, _, _ = modes({**flow.variables, "batch_stats": batch}, x)
    np.testing.assert_allclose(own, train, rtol=1e-5)


def test_moments_of_the_first_layer(flow, modes):
    """The first BatchNorm sees the first convolution of what the checkerboard shows."""
    x = flow.images[:BATCH]
    _, _, updates = modes(without_statistics(flow.variables), x)
    first = flow.variables["params"]["fine_0"]["net"]["Conv_0"]
    y = ALPHA + (1 - 2 * ALPHA) * (x + np.float32(0.5)) / 256
    shown = np.log(y / (1 - y)) * (np.indices((8, 8)).sum(0)[:, :, None] % 2 == 0)
    layout = ("NHWC", "HWIO", "NHWC")
    h = lax.conv_general_dilated(
        shown.astype(np.float32), first["kernel"], (1, 1), "SAME", dimension_numbers=layout
    )
    h = np.asarray(h, np.float64)
    stats = moments(updates)["fine_0"]["net"]["blocks"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"][0], h.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"][0], h.var((0, 1, 2)), rtol=1e-4)


def test_eight_devices_give_what_one_gives(flow, modes):
    """With a sharded batch the statistics of training mode are still those of all images."""
    x = flow.images[:BATCH]
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    assert mesh.size == 8
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    variables = jax.device_put(flow.variables, NamedSharding(mesh, PartitionSpec()))
    one, eight = modes(flow.variables, x), modes(variables, sharded)
    assert len(eight[0].sharding.device_set) == 8
    chex.assert_trees_all_close(eight, one, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------- samples


def test_samples_follow_the_temperature(flow, transform):
    sample = jax.jit(
        lambda key, temperature: flow.model.sample(
            flow.variables, key, BATCH, temperature=temperature
        )
    )
    cold, cold_too = sample(jax.random.key(0), 0.0), sample(jax.random.key(1), 0.0)
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[0], cold.shape))
    np.testing.assert_array_equal(cold, cold_too)

    # A sample's latents are normal with the temperature as standard deviation; a level, which is
    # what a sample is rounded to, is at most 0.075 wide on the logit scale.
    for temperature in (0.2, 0.5):
        x = np.asarray(sample(jax.random.key(2), temperature))
        assert x.shape == (BATCH, 8, 8, 1)
        assert x.dtype == np.uint8
        y = ALPHA + (1 - 2 * ALPHA) * (x + 0.5) / 256
        z, _ = transform(flow.variables, np.log(y / (1 - y)).astype(np.float32))
        inside = np.abs(norm.cdf(np.asarray(z) / temperature) - 0.5)
        # 1,024 latents, and their standard deviation within 4 of its own standard errors.
        assert np.std(z) == pytest.approx(temperature, rel=4 / np.sqrt(2 * z.size))
        assert inside.mean() == pytest.approx(0.25, abs=0.02)


def test_defaults_of_sampling(flow):
    key = jax.random.key(3)
    sample = jax.jit(functools.partial(flow.model.sample, n=BATCH))
    warm = sample(flow.initial, key=key)
    # The identity flow: half of a normal law's logits lie below one half.
    assert np.mean(np.asarray(warm) < 128) == pytest.approx(0.5, abs=4 * 0.5 / 32)
    assert np.std(np.asarray(warm)) > 40


@pytest.mark.parametrize("shape", [(5, 4, 1), (4, 5, 3)], ids=str)
def test_an_odd_size_is_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[0]}x{shape[1]} images need an even size"):
        realnvp(shape)
