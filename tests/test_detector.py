import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from jaxood import detector


def brightness(images):
    return images.mean((1, 2, 3))


def continuous(images):
    """A score whose law is continuous: each image's first four bytes as a number in [0, 1)."""
    return images.reshape(len(images), -1)[:, :4].copy().view(np.uint32)[:, 0] / 2.0**32


def random_images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 1), dtype=np.uint8)


def constant_images(*levels):
    return np.full((len(levels), 2, 2, 1), np.array(levels)[:, None, None, None], np.uint8)


def leave_one_out(scores):
    """The p-value of each score among the others: any of them may be the fresh one."""
    scores = np.asarray(scores, np.float32)
    return np.concatenate(
        [detector.p_values_of(scores[i : i + 1], np.delete(scores, i)) for i in range(len(scores))]
    )


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30, unique=True))
@settings(deadline=None)
def test_p_values_of_a_continuous_law_are_uniform(scores):
    """N + 1 exchangeable scores without ties: the fresh one has each rank once."""
    size = len(scores)
    np.testing.assert_array_equal(np.sort(leave_one_out(scores)), np.arange(1, size + 1) / size)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
@settings(deadline=None)
def test_p_values_are_valid_with_ties(scores):
    """P(p <= a) <= a for every a, over which of the exchangeable scores is the fresh one."""
    p = leave_one_out(scores)
    for k in range(1, len(scores) + 1):
        assert np.sum(p <= k / len(scores)) <= k


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    st.lists(st.integers(-6, 6), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_p_values_count_the_null_scores_that_are_at_least_as_high(null, scores):
    expected = [(1 + sum(n >= s for n in null)) / (len(null) + 1) for s in scores]
    result = detector.p_values_of(np.array(scores), np.array(null))
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, expected)


def test_higher_scores_are_more_ood():
    fitted = detector.fit(brightness, constant_images(*range(10, 110)))
    p = detector.p_values(fitted, constant_images(5, 9, 200))
    np.testing.assert_allclose(p, [1, 1, 1 / 101])
    np.testing.assert_array_equal(
        detector.decide(fitted, constant_images(5, 9, 200)), [False, False, True]
    )


def test_false_positives_come_at_the_rate_that_was_asked_for():
    """Over many calibrations, each with one fresh trusted image."""
    null_size, repeats = 19, 2000
    p = np.empty(repeats)
    reported = {0.05: 0, 0.2: 0}
    for seed in range(repeats):
        images = random_images(null_size + 1, seed)
        fitted = detector.fit(continuous, images[1:])
        p[seed] = detector.p_values(fitted, images[:1])[0]
        for rate in reported:
            reported[rate] += detector.decide(fitted, images[:1], false_positive_rate=rate)[0]
    counts = np.bincount(np.round(p * 20).astype(int), minlength=21)[1:]
    np.testing.assert_allclose(p * 20, np.round(p * 20), atol=1e-9)
    assert chisquare(counts).pvalue > 1e-3
    for rate, count in reported.items():
        low, high = binom.interval(0.999, repeats, rate)
        assert low <= count <= high


def test_images_that_were_used_for_calibration_are_refused():
    trusted = random_images(20, seed=0)
    fitted = detector.fit(brightness, trusted)
    mixed = np.concatenate([random_images(5, seed=1), trusted[[3, 11]], random_images(1, seed=2)])
    with pytest.raises(ValueError, match=r"2 of the 8 images.*the first is number 5"):
        detector.p_values(fitted, mixed)
    with pytest.raises(ValueError, match=r"2 of the 8 images"):
        detector.decide(fitted, mixed, false_positive_rate=0.1)
    # However they lie in memory.
    with pytest.raises(ValueError, match="20 of the 20 images"):
        detector.p_values(fitted, np.asfortranarray(trusted)[::-1])
    changed = trusted.copy()
    changed[:, 0, 0, 0] ^= 1
    assert len(detector.p_values(fitted, changed)) == 20


def test_a_rate_that_the_null_cannot_hold_is_refused():
    fitted = detector.fit(continuous, random_images(19, seed=3))
    fresh = random_images(500, seed=4)
    lowest = detector.p_values(fitted, fresh) == 1 / 20
    assert lowest.any()
    np.testing.assert_array_equal(
        detector.decide(fitted, fresh, false_positive_rate=1 / 20), lowest
    )
    for rate in (0.049, 0.0, -1.0, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"19 trusted images give p-values from 0\.05 up"):
            detector.decide(fitted, fresh, false_positive_rate=rate)


def test_scores_that_are_nan_are_refused():
    def sometimes(images):
        scores = brightness(images)
        return np.where(scores > 200, np.nan, scores)

    fitted = detector.fit(sometimes, constant_images(1, 2, 3))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        detector.p_values(fitted, constant_images(4, 250))
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        detector.fit(sometimes, constant_images(1, 250, 251))


def test_infinite_scores_have_a_rank():
    p = detector.p_values_of(np.array([np.inf, -np.inf]), np.array([0, 1, np.inf]))
    np.testing.assert_array_equal(p, [2 / 4, 4 / 4])


def test_no_images_to_calibrate_on_are_refused():
    with pytest.raises(ValueError, match="no images to calibrate on"):
        detector.fit(brightness, constant_images())


def test_no_images_to_judge_have_no_p_values():
    def score(images):
        return images.reshape(len(images), 4).sum(1)

    fitted = detector.fit(score, constant_images(1, 2, 3))
    assert detector.p_values(fitted, constant_images()).shape == (0,)
