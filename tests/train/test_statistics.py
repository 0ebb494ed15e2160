"""Population statistics are those of the whole training set, and evaluation mode rests on them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood import train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.nn import batch_norm


def one_batch_norm(centre, width):
    """A model that is one BatchNorm of the pixels, moved to ``centre`` and ``width``."""
    norm = batch_norm.BatchNorm(use_running_average=False, use_scale=False, use_bias=False)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        assert train
        # There is no noise, so that the moments are known.
        y = centre + width * (x.astype(jnp.float32) - 128) / 64
        stats = {"batch_stats": variables["batch_stats"]["norm"]}
        z, updates = norm.apply(stats, y, mutable=["batch_stats"])
        return -(z**2).sum((1, 2, 3)), {"norm": updates["batch_stats"]}

    return DensityModel(lambda key, x: {}, log_prob, lambda *_, **__: jnp.zeros(0))


@pytest.mark.parametrize(("centre", "width", "start"), [(0, 1, 1.0), (100, 0.01, 0.0), (0, 1, 1e8)])
def test_population_statistics_are_those_of_the_whole_set(centre, width, start):
    """The batches differ much, so that the variance of their means matters."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 40, (48, 4, 4, 2)) + rng.integers(0, 216, (48, 1, 1, 2))
    x = x.astype(np.uint8)
    old = {"mean": jnp.full(2, start), "var": jnp.full(2, start)}
    stats = train.population_statistics(
        one_batch_norm(centre, width),
        {"params": {}, "batch_stats": {"norm": old}},
        x,
        batch_size=2,
        show_progress=False,
    )["norm"]
    y = centre + width * (x.astype(np.float64) - 128) / 64
    np.testing.assert_allclose(stats["mean"], y.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    # Pixels of about 100 have steps of 1e-5, a tenth of a per cent of this standard deviation.
    rtol = 1e-5 if centre == 0 else 2e-3
    np.testing.assert_allclose(stats["var"], y.var((0, 1, 2)), rtol=rtol)


def test_population_statistics_of_a_set_that_no_batch_size_divides():
    """The last batch is filled up with images that have been seen: all of them count."""
    x = np.repeat(np.arange(5, dtype=np.uint8), 4).reshape(5, 2, 2, 1)
    stats = train.population_statistics(
        one_batch_norm(0.0, 64.0),
        {"params": {}, "batch_stats": {"norm": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}},
        x,
        batch_size=3,
        show_progress=False,
    )["norm"]
    # There are six images: 0 to 4 and one of them again. Mean and variance must agree which.
    again = float(stats["mean"][0] + 128) * 6 - 10
    assert round(again) in range(5)
    np.testing.assert_allclose(again, round(again), atol=1e-3)
    np.testing.assert_allclose(stats["var"], np.var([*range(5), round(again)]), rtol=1e-4)


@pytest.fixture(scope="module")
def trained(flow):
    return train.fit(
        train.neg_log_prob_loss(flow.model),
        flow.initial,
        flow.images,
        steps=80,
        batch_size=32,
        optimizer=optax.adam(3e-3),
        show_progress=False,
    )


def test_a_flow_learns_digits(trained):
    bpd = bits_per_dim(-np.asarray(trained.losses), (8, 8, 1))
    # The flow starts as the identity; a uniform density has 8 bits.
    assert 8 < bpd[0]
    assert bpd[-10:].mean() < bpd[:5].mean() - 1


def test_population_statistics_make_evaluation_mode_agree_with_training_mode(flow, trained):
    stats = train.population_statistics(
        flow.model, trained.variables, flow.images, batch_size=32, show_progress=False
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(stats, trained.batch_stats)

    @jax.jit
    def both(variables, x):
        keys = jax.random.split(jax.random.key(0), len(x))
        modes = [flow.model.log_prob(variables, x, train=t, key=keys) for t in (False, True)]
        return jnp.stack(modes)

    population = {"params": trained.params, "batch_stats": stats}
    log_prob = np.stack([both(population, x) for x in np.split(flow.images, 8)])
    evaluation, training = bits_per_dim(log_prob.mean((0, 2)), (8, 8, 1))
    assert evaluation == pytest.approx(training, abs=0.1)
    # With the initial statistics the modes would not agree.
    initial = {"params": trained.params, "batch_stats": flow.initial["batch_stats"]}
    wrong = bits_per_dim(both(initial, flow.images[:32])[0].mean(), (8, 8, 1))
    assert wrong > evaluation + 0.3
