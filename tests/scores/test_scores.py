import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxood import metrics, scores
from jaxood.density import DensityModel
from jaxood.scores import statistics
from jaxood.scores.batch_norm import BATCHES_A_CALL, images_in_batch, plan_batches

SHAPE = (2, 2, 1)


def levels(x):
    """Mean pixel values, one an image."""
    return x.astype(jnp.float32).mean((1, 2, 3))


def constant_images(*values):
    return np.full((len(values), *SHAPE), np.array(values)[:, None, None, None], np.uint8)


def toy(log_prob):
    return DensityModel(lambda key, x: {}, log_prob, lambda *_, **__: jnp.zeros(0))


@toy
def CENTRED(variables, x, *, train=False, key=None):
    """A normal law around a running mean or, in training mode, around the batch's mean."""
    centre = levels(x).mean() if train else variables["centre"]
    return -((levels(x) - centre) ** 2)


@toy
def NOISE(variables, x, *, train=False, key=None):
    assert key is not None
    return jax.vmap(jax.random.uniform)(key)


@toy
def OWN_LEVEL(variables, x, *, train=False, key=None):
    return levels(x)


@toy
def BRIGHT_COMPANIONS(variables, x, *, train=False, key=None):
    """Count the bright images of the batch; the test that uses it has bright trusted images."""
    return jnp.full(len(x), jnp.sum(levels(x) >= 128)) if train else jnp.full(len(x), -1.0)


VARIABLES = {"centre": jnp.float32(100)}
DIM = constant_images(*range(23))
TRUSTED = constant_images(*range(128, 148))


# ------------------------------------------------------------------------------ per-image scores


def test_neg_log_prob_is_higher_away_from_the_model():
    x = constant_images(100, 101, 90, 255)
    result = scores.neg_log_prob(CENTRED, VARIABLES, batch_size=3)(x)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [0, 1, 100, 155**2])
    np.testing.assert_array_equal(scores.log_prob(CENTRED, VARIABLES, x, batch_size=3), -result)


def test_log_prob_averages_over_noise_draws():
    key = jax.random.key(1)
    draws = scores.mixed_log_prob(NOISE, {}, DIM, TRUSTED, (0,), key=key, batch_size=8, draws=3)
    # `mixed_log_prob` splits its key into one for the order and one for the noise.
    noise_key = jax.random.split(key)[1]
    mean = scores.log_prob(NOISE, {}, DIM, key=noise_key, draws=3, batch_size=8)
    np.testing.assert_allclose(mean, draws[:, 0].mean(0), rtol=1e-6)
    one = scores.log_prob(NOISE, {}, DIM, key=noise_key, batch_size=8)
    np.testing.assert_array_equal(one, draws[0, 0])
    assert len(np.unique(draws)) == draws.size


def test_t_perm_by_hand():
    null = np.array([3.0, 1.0, 4.0, 2.0])
    # Ranks 0, 1 (a tie counts), 2, 4, 4.
    result = statistics.t_perm(np.array([0.5, 1.0, 2.5, 4.0, 9.0]), null)
    np.testing.assert_array_equal(result, [2, 1, 0, 2, 2])
    assert result.dtype == np.float32


tied = st.lists(st.integers(-4, 4), min_size=1, max_size=20)


@given(tied, tied)
@settings(deadline=None)
def test_ranks_are_in_range_and_count(values, null):
    values, null = np.array(values), np.array(null)
    below = np.array([np.sum(null <= value) for value in values])
    size = len(null)
    t_perm = statistics.t_perm(values, null)
    np.testing.assert_array_equal(t_perm, np.abs(below - size / 2))
    assert np.all((t_perm >= 0) & (t_perm <= size / 2))
    rank = statistics.rank(values, null)
    np.testing.assert_array_equal(rank, below)
    assert rank.dtype == np.float32


def test_typicality_by_hand():
    result = statistics.typicality(np.array([-5.0, -2.0, 1.0]), np.array([-1.0, -3.0]))
    np.testing.assert_array_equal(result, [3, 0, 3])
    assert result.dtype == np.float32


def test_waic_of_a_single_model_is_refused():
    for log_prob in (np.zeros(4), np.zeros((1, 4))):
        with pytest.raises(ValueError, match="needs an ensemble, got 1 member: train two or more"):
            statistics.waic(log_prob)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    draws = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    mean, stderr = statistics.over_draws(np.negative, draws)
    np.testing.assert_allclose(mean, -draws.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stderr, draws.std(0, ddof=1) / np.sqrt(5), rtol=1e-4)
    same = statistics.over_draws(np.negative, np.repeat(draws[:1], 3, axis=0))
    np.testing.assert_array_equal(same.stderr, 0)
    assert np.isnan(statistics.over_draws(np.negative, draws[:1]).stderr).all()
    assert mean.dtype == stderr.dtype == np.float32


def test_two_sided_scores_are_higher_on_both_sides():
    rng = np.random.default_rng(1)
    null, typical = rng.normal(size=(2, 200))
    for far in (rng.normal(5, 0.1, 200), rng.normal(-5, 0.1, 200)):
        for score in (statistics.t_perm, statistics.typicality):
            assert metrics.auroc(score(typical, null), score(far, null)) > 0.99


# ---------------------------------------------------------------------------------- batch scores


def test_sizes_of_the_paper():
    assert [images_in_batch(64, r) for r in (0.1, 0.5, 0.9, 1.0)] == [6, 32, 58, 64]
    assert images_in_batch(8, 0.01) == 1


@given(
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_mixed_batches_hold_every_image_once_and_no_image_twice(n, m, batch_size, sizes, seed):
    sizes = [min(size, batch_size, n) for size in sizes]
    m = max(m, batch_size - min(sizes))
    plan = plan_batches(jax.random.key(seed), n, m, sizes, batch_size, draws=2)
    orders = {}
    for test, reference, draw, size in zip(*plan, strict=True):
        assert len(set(test[:size])) == size
        assert len(set(reference[size:])) == batch_size - size
        assert np.all((test[:size] >= 0) & (test[:size] < n) & (reference[:size] == -1))
        assert np.all((reference[size:] >= 0) & (reference[size:] < m) & (test[size:] == -1))
        orders.setdefault((draw, size), []).extend(test[:size])
    assert set(orders) == {(draw, size) for draw in (0, 1) for size in sizes}
    for (draw, size), order in orders.items():
        assert len(order) == -(-n // size) * size
        assert sorted(order[:n]) == list(range(n))
        # Paired: all ratios cut the same order.
        assert order[:n] == orders[draw, sizes[0]][:n]
    if n > 20:
        assert orders[0, sizes[0]] != orders[1, sizes[0]]


@pytest.mark.parametrize("n", [7, 16, 23])
def test_mixed_log_prob_by_brute_force(n):
    """A likelihood that says which batch it was computed in, against the batches of the plan."""
    key, ratios, size, draws = jax.random.key(n), (0.9, 0.25, 0, 0.5), 8, 3
    rng = np.random.default_rng(n)
    x = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    trusted = rng.integers(0, 256, (11, *SHAPE), dtype=np.uint8)
    result = scores.mixed_log_prob(
        CENTRED, VARIABLES, x, trusted, ratios, key=key, batch_size=size, draws=draws
    )
    assert result.shape == (draws, 4, n)
    assert result.dtype == np.float32

    counts = [images_in_batch(size, r) for r in ratios]
    assert counts == [7, 2, 1, 4]
    plan = plan_batches(jax.random.split(key)[0], n, 11, [7, 2, 4], size, draws)
    level, trusted_level = x.mean((1, 2, 3)), trusted.mean((1, 2, 3))
    for draw in range(draws):
        for i, count in enumerate(counts):
            if ratios[i] == 0:
                expected = -((level - 100) ** 2)
            else:
                expected = np.full(n, np.nan)
                for row in np.flatnonzero((plan.draw == draw) & (plan.size == count)):
                    mine = plan.test[row, :count]
                    others = trusted_level[plan.reference[row, count:]]
                    mean = (level[mine].sum() + others.sum()) / size
                    new = mine[np.isnan(expected[mine])]  # an image's first group is its own
                    expected[new] = -((level[new] - mean) ** 2)
            np.testing.assert_allclose(result[draw, i], expected, rtol=1e-4, atol=0.05)


def test_each_image_gets_its_own_value_among_as_many_trusted_ones_as_the_ratio_says():
    ratios = (0, 0.1, 0.5, 1)

    def mixed(model):
        return scores.mixed_log_prob(model, {}, DIM, TRUSTED, ratios, batch_size=10, draws=2)

    own = mixed(OWN_LEVEL)
    np.testing.assert_array_equal(own, np.broadcast_to(np.arange(23), own.shape))
    companions = mixed(BRIGHT_COMPANIONS)
    for i, expected in enumerate((-1, 9, 5, 0)):
        np.testing.assert_array_equal(companions[:, i], expected)


def test_draws_are_paired():
    ratios = (0, 0.1, 0.5, 0.9)
    noise = scores.mixed_log_prob(NOISE, {}, DIM, TRUSTED, ratios, batch_size=10, draws=3)
    for i in range(1, 4):
        np.testing.assert_array_equal(noise[:, i], noise[:, 0])
    assert len(np.unique(noise[:, 0])) == 3 * len(DIM)
    score = scores.batch_norm_delta(NOISE, {}, TRUSTED, r1=0.1, batch_size=10, draws=3)
    np.testing.assert_array_equal(score.estimate(DIM), 0)


def test_the_key_decides():
    mixed = functools.partial(
        scores.mixed_log_prob, CENTRED, VARIABLES, DIM, TRUSTED, (0.5,), batch_size=8, draws=2
    )
    first = mixed(key=jax.random.key(5))
    np.testing.assert_array_equal(mixed(key=jax.random.key(5)), first)
    assert np.mean(mixed(key=jax.random.key(6)) != first) > 0.9
    assert np.mean(first[0] != first[1]) > 0.9


def test_delta_by_hand():
    low = np.array([[1.0, 10.0], [3.0, 20.0], [5.0, 30.0]])
    high = np.array([[0.0, 11.0], [3.0, 22.0], [3.0, 33.0]])
    # Differences 1, 0, 2 and -1, -2, -3: variance 1 each, over 3 draws.
    estimate = statistics.delta(low, high)
    np.testing.assert_allclose(estimate.mean, [1, 2], rtol=1e-6)
    np.testing.assert_allclose(estimate.stderr, [1 / np.sqrt(3)] * 2, rtol=1e-6)
    assert estimate.mean.dtype == estimate.stderr.dtype == np.float32


def test_batch_norm_delta_is_the_difference_of_mixed_means():
    key, ratios = jax.random.key(7), (0.25, 0.75)
    options: Any = {"batch_size": 8, "draws": 4}
    mixed = scores.mixed_log_prob(CENTRED, VARIABLES, DIM, TRUSTED, ratios, key=key, **options)
    estimate = scores.batch_norm_delta(
        CENTRED, VARIABLES, TRUSTED, r1=0.25, r2=0.75, seed=7, **options
    ).estimate(DIM)
    difference = mixed[:, 0].astype(np.float64) - mixed[:, 1]
    np.testing.assert_allclose(estimate.mean, np.abs(difference.mean(0)), rtol=1e-5)
    np.testing.assert_allclose(estimate.stderr, np.sqrt(difference.var(0, ddof=1) / 4), rtol=1e-5)
    single = scores.batch_norm_delta(CENTRED, VARIABLES, TRUSTED, batch_size=8, draws=1)
    single = single.estimate(DIM)
    assert np.all(np.isfinite(single.mean))
    assert np.all(np.isnan(single.stderr))


def test_batch_norm_scores_are_higher_for_images_that_move_their_batch():
    rng = np.random.default_rng(2)
    trusted, null, fresh = rng.integers(95, 106, (3, 40, *SHAPE), dtype=np.uint8)
    options = {"r1": 0.1, "batch_size": 16}
    score = scores.batch_norm_delta(CENTRED, VARIABLES, trusted, **options)
    assert metrics.auroc(score(fresh), score(fresh + np.uint8(50))) == 1
    rank = scores.batch_norm_rank(CENTRED, VARIABLES, trusted, null, **options)
    np.testing.assert_array_equal(rank(fresh + np.uint8(50)), 40)
    assert rank(fresh).mean() == pytest.approx(20, abs=8)


def test_one_program_for_all_ratios_sets_and_draws():
    """So that only one shape is ever compiled, and memory does not grow with the images."""
    shapes = []

    @toy
    @chex.assert_max_traces(n=1)
    def counted(variables, x, *, train=False, key=None):
        shapes.append(x.shape)
        return levels(x)

    for n, m, ratios, draws in [
        (9, 20, (0.1, 0.9), 1),
        (23, 20, (0.5,), 3),
        (10, 15, (0.3, 0.4, 1), 2),
        (8 * 6 * BATCHES_A_CALL, 20, (0.75,), 1),
    ]:
        x, trusted = DIM[np.arange(n) % 23], TRUSTED[:m]
        scores.mixed_log_prob(counted, {}, x, trusted, ratios, batch_size=8, draws=draws)
    assert shapes == [(8, *SHAPE)]


def test_evaluation_mode_is_one_program_as_well():
    shapes = []

    @toy
    @chex.assert_max_traces(n=1)
    def counted(variables, x, *, train=False, key=None):
        shapes.append(x.shape)
        return levels(x)

    for n in (1, 8, 23):
        result = scores.log_prob(counted, {}, DIM[:n], batch_size=8, draws=2)
        np.testing.assert_array_equal(result, np.arange(n))
    assert shapes == [(8, *SHAPE)]


@pytest.mark.parametrize(
    ("n", "m", "ratios", "message"),
    [
        (6, 20, (0.1, 0.9), r"holds 7 different test images, but there are 6"),
        (23, 5, (0.25, 0.9), r"up to 6 different trusted images, but there are 5"),
        (23, 20, (0.1, 1.1), r"ratios must lie in \[0, 1\], got \(0.1, 1.1\)"),
        (23, 20, (-0.1,), r"ratios must lie in \[0, 1\]"),
        (23, 20, (np.nan,), r"ratios must lie in \[0, 1\]"),
    ],
)
def test_mixed_batches_that_cannot_be_made_are_refused(n, m, ratios, message):
    with pytest.raises(ValueError, match=message):
        scores.mixed_log_prob(CENTRED, VARIABLES, DIM[:n], TRUSTED[:m], ratios, batch_size=8)


def test_just_enough_images_will_do():
    result = scores.mixed_log_prob(
        BRIGHT_COMPANIONS, {}, DIM[:7], TRUSTED[:6], (0.25, 0.9), batch_size=8, draws=1
    )
    np.testing.assert_array_equal(result[0], [[6] * 7, [1] * 7])


@pytest.mark.parametrize(("r1", "r2"), [(0.9, 0.1), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_ratios_out_of_order_are_refused(r1, r2):
    with pytest.raises(ValueError, match="0 <= r1 < r2 <= 1"):
        scores.batch_norm_delta(CENTRED, VARIABLES, TRUSTED, r1=r1, r2=r2, batch_size=8)


def test_progress_counts_every_batch(capsys):
    scores.mixed_log_prob(
        CENTRED,
        VARIABLES,
        DIM,
        TRUSTED,
        (0, 0.5),
        batch_size=8,
        draws=2,
        show_progress=True,
    )
    # Two draws of 3 evaluation batches and 6 mixed ones.
    assert "18/18" in capsys.readouterr().err
