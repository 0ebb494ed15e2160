"""The AUROC's interval covers the truth, is monotone, and solves the equation that defines it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from jaxood import metrics

Z2 = norm.isf(0.025) ** 2
REPLICATIONS = 1500


def draw(rng, scores, auroc, n_in, n_ood):
    """Draw scores of trusted and OOD images with a known AUROC, one replication a row."""
    if scores == "exponential":
        odds = auroc / (1 - auroc)
        trusted = rng.standard_exponential((REPLICATIONS, n_in))
        return trusted, odds * rng.standard_exponential((REPLICATIONS, n_ood))
    # Binormal: AUROC = Phi(shift / sqrt(1 + ratio^2)).
    shift = norm.ppf(auroc) * np.sqrt(1 + scores**2)
    trusted = rng.standard_normal((REPLICATIONS, n_in))
    return trusted, shift + scores * rng.standard_normal((REPLICATIONS, n_ood))


def auroc_and_variance(trusted, ood):
    """Compute the AUROC and DeLong's variance of every row from one sort."""
    n_in, n_ood = trusted.shape[1], ood.shape[1]
    is_ood = np.argsort(np.concatenate([trusted, ood], axis=1), axis=1) >= n_in
    beaten = np.cumsum(~is_ood, axis=1)[is_ood].reshape(-1, n_ood) / n_in
    beating = 1 - np.cumsum(is_ood, axis=1)[~is_ood].reshape(-1, n_in) / n_ood
    variance = beaten.var(axis=1, ddof=1) / n_ood + beating.var(axis=1, ddof=1) / n_in
    return beaten.mean(axis=1), variance


@pytest.mark.parametrize(
    ("scores", "n_in", "n_ood"),
    [
        (1, 128, 128),
        (3, 128, 128),
        ("exponential", 128, 128),
        (1 / 3, 200, 200),
        (1 / 3, 128, 1000),
        ("exponential", 128, 1000),
        (3, 1000, 128),
        (1, 1000, 1000),
    ],
)
@pytest.mark.parametrize("true", [0.5, 0.9, 0.98, 0.99, 0.999, 0.9995])
def test_interval_covers_the_true_auroc(scores, n_in, n_ood, true):
    rng = np.random.default_rng([n_in, n_ood, int(1e4 * true)])
    found = zip(*auroc_and_variance(*draw(rng, scores, true, n_in, n_ood)), strict=True)
    ends = [metrics._score_interval(*each, n_in, n_ood, 0.95) for each in found]
    covered = sum(low <= true <= high for low, high in ends)
    # Near 1 the lower end is cautious on purpose: only the upper one errs, in 2.5 %.
    most = 0.97 if true <= 0.9 else 0.98
    assert binom.ppf(1e-3, REPLICATIONS, 0.93) <= covered
    assert covered <= binom.ppf(1 - 1e-3, REPLICATIONS, most)


def test_the_simulation_tests_the_interval_that_users_get():
    trusted, ood = (x[:20] for x in draw(np.random.default_rng(0), 3, 0.95, 30, 50))
    for i, (area, variance) in enumerate(zip(*auroc_and_variance(trusted, ood), strict=True)):
        np.testing.assert_allclose(
            metrics.auroc_interval(trusted[i], ood[i], confidence=0.9),
            metrics._score_interval(area, variance, 30, 50, 0.9),
            atol=1e-12,
        )


# ---------------------------------------------------------------------------------- monotonicity


def interval(is_ood):
    """Compute the interval from the classes of images in the order of their scores."""
    is_ood = np.asarray(is_ood, bool)
    ranks = np.arange(is_ood.size)
    return np.array(metrics.auroc_interval(ranks[~is_ood], ranks[is_ood]))


@st.composite
def orders(draw):
    """Draw images of two classes in any order, neither class twice as large as the other."""
    n = draw(st.integers(5, 12))
    n_ood = draw(st.integers(max(5, -(-n // 2)), 2 * n))
    return draw(st.permutations([False] * n + [True] * n_ood))


@given(orders(), st.integers(0))
@settings(deadline=None, max_examples=150)
@example([True] + 6 * [False] + 6 * [True], 0)
@example(5 * [False] + [True, False] + 5 * [True], 0)
def test_one_misordered_pair_less_lowers_neither_end(is_ood, which):
    misordered = [i for i in range(len(is_ood) - 1) if is_ood[i] and not is_ood[i + 1]]
    if misordered:
        i = misordered[which % len(misordered)]
        better = [*is_ood[:i], False, True, *is_ood[i + 2 :]]
        assert np.all(interval(better) >= interval(is_ood) - 1e-12)


@pytest.mark.parametrize(("n_in", "n_ood"), [(128, 128), (128, 1000), (1000, 128)])
def test_complete_separation_is_the_limit_of_few_misordered_pairs(n_in, n_ood):
    trusted, ood = np.arange(n_in), n_in + np.arange(n_ood)
    rng = np.random.default_rng(0)
    ends = []
    for pairs in (0, 1, 2, 3, 5, 8, 13, 21):  # the more, the deeper the lowest OOD images lie
        shifted = ood - 0.0
        for k in range(pairs):
            shifted[k % 3] = n_in - 1.5 - k // 3 + 0.01 * rng.random()
        ends.append(metrics.auroc_interval(trusted, shifted))
    assert np.all(np.diff(ends, axis=0) <= 1e-12)
    limit, one_pair = ends[:2]
    assert limit[1] == one_pair[1] == 1
    assert 0 < limit[0] - one_pair[0] < 2e-4


# ------------------------------------------------------------------------------------ known values


@pytest.mark.parametrize(("n_in", "n_ood"), [(1000, 200), (200, 1000), (50, 70)])
def test_complete_separation_is_twice_the_smaller_class_of_agreeing_comparisons(n_in, n_ood):
    """Wilson's interval for n successes out of n begins at n / (n + z^2)."""
    low, high = metrics.auroc_interval(np.arange(n_in), n_in + np.arange(n_ood))
    n = 2 * min(n_in, n_ood)
    assert high == 1
    assert low == pytest.approx(n / (n + Z2), rel=1e-5)


@pytest.mark.parametrize("confidence", [0.6, 0.95])
@pytest.mark.parametrize("shift", [-2.5, -1.0, 0.1, 1.0, 2.5])
def test_ends_solve_the_equation_of_the_score_interval(shift, confidence):
    rng = np.random.default_rng(1)
    trusted, ood = rng.normal(size=40), shift + rng.normal(size=25)
    wins = np.greater.outer(ood, trusted)
    area = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 25 + wins.mean(0).var(ddof=1) / 40
    share = variance / (area * (1 - area))
    for end in metrics.auroc_interval(trusted, ood, confidence=confidence):
        gain = end * (1 - end) - area * (1 - area)
        there = variance + share**2 / 10 + gain * (1 / 50 if gain > 0 else share)
        z = abs(end - area) / np.sqrt(there)
        assert norm.cdf(z) - norm.cdf(-z) == pytest.approx(confidence, abs=1e-9)


def test_the_interval_does_not_depend_on_which_class_is_which():
    rng = np.random.default_rng(2)
    trusted, ood = rng.normal(size=30), rng.normal(1.5, 3, size=60)
    low, high = metrics.auroc_interval(trusted, ood)
    assert metrics.auroc_interval(-ood, -trusted) == pytest.approx((low, high), abs=1e-12)
    assert metrics.auroc_interval(ood, trusted) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_constant_score_has_the_interval_of_as_many_tosses_as_pairs():
    low, high = metrics.auroc_interval(np.zeros(40), np.zeros(50))
    half_width = np.sqrt(Z2 / (2000 + Z2)) / 2  # Wilson's, at one half
    assert (low, high) == pytest.approx((0.5 - half_width, 0.5 + half_width), rel=1e-3)


@pytest.mark.parametrize(("n_in", "n_ood"), [(1, 1), (1, 7), (7, 1)])
def test_one_image_of_a_class_is_one_comparison(n_in, n_ood):
    low, high = metrics.auroc_interval(np.arange(n_in), n_in + np.arange(n_ood))
    assert high == 1
    assert (1 - low) ** 2 == pytest.approx(Z2 * (1 / 10 + low * (1 - low) / 2))
    low, high = metrics.auroc_interval(np.zeros(n_in), np.zeros(n_ood))
    assert (low, high) == (0, 1)


def test_two_images_of_a_class_have_a_variance():
    """By hand: scores 0 < 1 < 2 < 3 of in, OOD, in, OOD; three of four pairs are in order."""
    variance = 2 * (0.125 / 2)  # of 0.5 and 1, in both classes
    assert metrics.auroc_interval([0, 2], [1, 3]) == pytest.approx(
        metrics._score_interval(0.75, variance, 2, 2, 0.95), abs=1e-12
    )
    assert metrics._score_interval(0.75, variance, 2, 2, 0.95) != pytest.approx(
        metrics._score_interval(0.75, None, 2, 2, 0.95), abs=1e-3
    )
