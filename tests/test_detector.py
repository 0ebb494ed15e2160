import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, chisquare

from jaxood import detector
from tests.helpers import TinyScore


@TinyScore
def brightness(images):
    return images.mean((1, 2, 3))


@TinyScore
def continuous(images):
    """A score with a continuous law: the first four bytes of an image as a number in [0, 1)."""
    return images.reshape(len(images), -1)[:, :4].copy().view(np.uint32)[:, 0] / 2.0**32


def random_images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 1), dtype=np.uint8)


def constant_images(*levels):
    return np.full((len(levels), 2, 2, 1), np.array(levels)[:, None, None, None], np.uint8)


def leave_one_out(scores):
    """Compute the p-value of each score among the others, as if it were the fresh one."""
    scores = np.asarray(scores, np.float32)
    return np.concatenate(
        [detector.p_values_of(scores[i : i + 1], np.delete(scores, i)) for i in range(len(scores))]
    )


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30, unique=True))
@settings(deadline=None)
def test_p_values_of_a_continuous_law_are_uniform(scores):
    """Among N + 1 exchangeable scores without ties, the fresh one has each rank once."""
    size = len(scores)
    np.testing.assert_array_equal(np.sort(leave_one_out(scores)), np.arange(1, size + 1) / size)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
@settings(deadline=None)
def test_p_values_are_valid_with_ties(scores):
    """P(p <= a) <= a holds for every a if each exchangeable score is the fresh one in turn."""
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
    """The rate is taken over many calibrations, each with one fresh trusted image."""
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
    # They are found however they lie in memory.
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
    @TinyScore
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
    @TinyScore
    def score(images):
        return images.reshape(len(images), 4).sum(1)

    fitted = detector.fit(score, constant_images(1, 2, 3))
    assert detector.p_values(fitted, constant_images()).shape == (0,)


# ------------------------------------------------------------------------------------------- sets


@functools.partial(TinyScore, per_image=False)
def above_its_set(images):
    """A batch score: the distance of an image from the mean of those that it arrives with."""
    values = brightness(np.asarray(images, np.float32))
    return np.abs(values - values.mean())


def test_a_batch_score_needs_the_size_of_sets_and_no_other_score_takes_one():
    images = random_images(40, seed=5)
    with pytest.raises(ValueError, match=r"tiny scores an image among those .* give set_size"):
        detector.fit(above_its_set, images)
    assert len(detector.fit(above_its_set, images, set_size=10).null) == 4
    with pytest.raises(ValueError, match="tiny scores each image by itself: leave set_size out"):
        detector.fit(brightness, images, set_size=10)


def test_calibration_on_sets_shows_its_progress_where_asked(capsys):
    images = random_images(40, seed=5)
    detector.fit(above_its_set, images, set_size=10)
    assert capsys.readouterr().err == ""
    detector.fit(above_its_set, images, set_size=10, show_progress=True)
    assert "calibration 4/4" in capsys.readouterr().err


def test_a_function_that_does_not_say_what_it_is_is_refused():
    images = random_images(40, seed=5)
    wrong: list[Any] = [lambda images: images.mean((1, 2, 3)), np.zeros(3), detector.Detector]
    for score in wrong:
        with pytest.raises(TypeError, match=r"takes a score from a builder .*jaxood.scores.scored"):
            detector.fit(score, images)


def test_images_are_dealt_to_sets_of_one_size_each_once():
    for n, size in ((7, 7), (8, 7), (20, 6), (64, 1)):
        sets = list(detector.deal(n, size, seed=3))
        assert len(sets) == -(-n // size)
        assert all(len(np.unique(chosen)) == size for chosen in sets)
        order = np.concatenate(sets)
        np.testing.assert_array_equal(np.sort(order[:n]), np.arange(n))
        np.testing.assert_array_equal(order[n:], order[: len(order) - n])
    assert any(
        np.any(a != b) for a, b in zip(detector.deal(20, 6), detector.deal(20, 6, 1), strict=True)
    )
    for n, size, why in ((5, 6, "do not fill a set of 6"), (5, 0, "at least 1")):
        with pytest.raises(ValueError, match=why):
            list(detector.deal(n, size))


def test_the_p_value_of_a_set_is_that_of_its_mean_among_trusted_sets():
    trusted, images = random_images(53, seed=6), random_images(25, seed=7)
    fitted = detector.fit(above_its_set, trusted, set_size=10)
    whole = list(detector.deal(53, 10))[:5]  # three images do not fill a sixth set
    null = [above_its_set(trusted[np.sort(c)]).mean() for c in whole]
    np.testing.assert_allclose(fitted.null, np.sort(null), rtol=1e-6)
    first = detector.p_values(fitted, images)
    np.testing.assert_array_equal(first, detector.p_values(fitted, images, seed=0))
    for rate in sorted(set(first)):
        reported = detector.decide(fitted, images, false_positive_rate=rate) if rate < 1 else True
        np.testing.assert_array_equal(reported, first <= rate)
    p = detector.p_values(fitted, images, seed=2)
    own = np.concatenate(list(detector.deal(25, 10, 2)))[:25]
    for number, chosen in enumerate(detector.deal(25, 10, 2)):
        statistic = above_its_set(images[np.sort(chosen)]).mean()
        want = (1 + np.sum(np.array(null) >= statistic)) / 6
        np.testing.assert_allclose(p[own[10 * number : 10 * number + 10]], want)
    assert len(set(p)) > 1
    with pytest.raises(ValueError, match="9 images do not fill a set of 10"):
        detector.p_values(fitted, images[:9])
    with pytest.raises(ValueError, match="a set of 9 images, but the detector was calibrated on"):
        detector.judge(fitted, images[:9])
    with pytest.raises(ValueError, match=r"5 trusted sets of 10 images give p-values from 0\.167"):
        detector.decide(fitted, images, false_positive_rate=0.05)


@pytest.mark.parametrize("arrive", ["shuffled", "sorted"])
def test_sets_of_trusted_images_are_reported_at_the_rate_that_was_asked_for(arrive):
    """The rate holds in any order of arrival, even sorted by class as in folders."""
    size, repeats, reported = 8, 1500, 0
    for seed in range(repeats):
        images = random_images(9 * size + 2 * size, seed)
        fitted = detector.fit(above_its_set, images[: 9 * size], set_size=size, seed=seed)
        fresh = images[9 * size :]
        if arrive == "sorted":
            fresh = fresh[np.argsort(brightness(fresh))]
        # Only the first of two sets counts, because both share the null.
        image = next(detector.deal(len(fresh), size, seed))[0]
        reported += detector.decide(fitted, fresh, false_positive_rate=0.1, seed=seed)[image]
    low, high = binom.interval(0.99, repeats, 0.1)
    assert low <= reported <= high


def test_one_calibration_realises_a_rate_in_its_interval():
    """The share of fresh images beyond the threshold varies between calibrations, as a Beta."""
    n, rate, repeats = 99, 0.1, 2000
    thresholds = np.sort(np.random.default_rng(8).random((repeats, n)), 1)
    # Scores are uniform: an image is reported if at most 9 null scores are as high as its own.
    realised = 1 - thresholds[:, n - 10]
    fitted = detector.Detector(continuous, thresholds[0].astype(np.float32), frozenset())
    p = detector.p_values_of(
        np.array([thresholds[0, n - 10] - 1e-6, thresholds[0, n - 10] + 1e-6]), thresholds[0]
    )
    assert p[0] > rate >= p[1]
    for confidence in (0.9, 0.99):
        low, high = detector.rate_interval(fitted, rate, confidence=confidence)
        inside = np.sum((low <= realised) & (realised <= high))
        few, many = binom.interval(0.999, repeats, confidence)
        assert few <= inside <= many
    with pytest.raises(ValueError, match="cannot be held"):
        detector.rate_interval(fitted, 0.001)


def test_the_interval_of_a_rate_is_that_of_its_order_statistic():
    """At N = 98 and 10 % an image is reported if at most 8 null scores are as high, so k = 9."""
    fitted = detector.Detector(brightness, np.arange(98, dtype=np.float32), frozenset())
    low, high = detector.rate_interval(fitted, 0.1)
    np.testing.assert_allclose([low, high], beta.ppf([0.025, 0.975], 9, 90))
    exact = fitted._replace(
        null=np.arange(99, dtype=np.float32)
    )  # k is 10, which rounding must not turn into 9
    np.testing.assert_allclose(detector.rate_interval(exact, 0.1)[0], beta.ppf(0.025, 10, 90))


def test_a_detector_of_images_is_not_told_to_judge_smaller_sets():
    fitted = detector.fit(brightness, constant_images(1, 2, 3))
    with pytest.raises(ValueError, match="calibrate on more images, or choose a rate"):
        detector.check_rate(fitted, 0.05)
    with pytest.raises(ValueError, match="more images, judge smaller sets, or choose a rate"):
        detector.check_rate(fitted._replace(set_size=2), 0.05)


def test_a_fingerprint_follows_null_images_and_sets():
    images = random_images(40, seed=9)
    one = detector.fit(brightness, images)
    assert detector.fingerprint(one) == detector.fingerprint(detector.fit(brightness, images))
    others = [
        one._replace(null=np.nextafter(one.null, np.float32(np.inf))),
        one._replace(seen=frozenset(list(one.seen)[1:])),
        one._replace(set_size=40),
        one._replace(set_size=1),
        detector.fit(TinyScore(lambda x: 2 * brightness(x)), images),
    ]
    assert len({detector.fingerprint(d) for d in [one, *others]}) == 6
    assert {len(seen) for seen in one.seen} == {16}
