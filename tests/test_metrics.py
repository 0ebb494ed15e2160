import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxood import metrics

# A narrow range of integers makes ties common.
tied_scores = st.lists(st.integers(-4, 4), min_size=1, max_size=25)


def auroc_by_pairs(scores_in, scores_ood):
    pairs = np.subtract.outer(np.asarray(scores_ood, float), np.asarray(scores_in, float))
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


@given(tied_scores, tied_scores)
@settings(deadline=None)
def test_auroc_counts_pairs_and_half_of_ties(scores_in, scores_ood):
    assert metrics.auroc(scores_in, scores_ood) == pytest.approx(
        auroc_by_pairs(scores_in, scores_ood), abs=1e-12
    )


@given(tied_scores, tied_scores)
@settings(deadline=None)
def test_only_the_order_of_scores_counts(scores_in, scores_ood):
    before = metrics.detection(scores_in, scores_ood)
    after = metrics.detection(np.exp(np.array(scores_in) / 3), np.exp(np.array(scores_ood) / 3))
    assert before == after


@given(tied_scores, tied_scores)
@settings(deadline=None)
def test_every_number_is_in_range_and_the_interval_holds_the_auroc(scores_in, scores_ood):
    result = metrics.detection(scores_in, scores_ood)
    low, high = result.auroc_ci
    assert 0 <= low <= result.auroc <= high <= 1
    assert low < high
    assert 0 < result.ap <= 1 + 1e-12
    assert 0 <= result.fpr95 <= 1
    assert (result.n_in, result.n_ood) == (len(scores_in), len(scores_ood))


def test_agrees_with_scikit_learn_on_balanced_classes():
    rng = np.random.default_rng(0)
    scores_in, scores_ood = rng.normal(size=300), rng.normal(1, 2, size=300)
    labels, scores = np.repeat([0, 1], 300), np.concatenate([scores_in, scores_ood])
    result = metrics.detection(scores_in, scores_ood)
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert result.ap == pytest.approx(average_precision_score(labels, scores))


def test_higher_means_more_ood():
    assert metrics.auroc([0.0, 1.0], [2.0, 3.0]) == 1
    assert metrics.auroc([2.0, 3.0], [0.0, 1.0]) == 0


def test_a_constant_score_is_chance():
    result = metrics.detection(np.zeros(40), np.zeros(50))
    assert result.auroc == 0.5
    assert result.ap == pytest.approx(0.5)
    assert result.fpr95 == 1
    low, high = result.auroc_ci
    assert low < 0.5 < high


def test_average_precision_ignores_class_sizes():
    rng = np.random.default_rng(1)
    scores_in, scores_ood = rng.normal(size=50), rng.normal(1, 1, size=70)
    once = metrics.average_precision(scores_in, scores_ood)
    assert metrics.average_precision(np.tile(scores_in, 9), scores_ood) == pytest.approx(once)
    assert metrics.average_precision(scores_in, np.tile(scores_ood, 9)) == pytest.approx(once)


def test_fpr_at_tpr_by_hand():
    # Catching 19 of the 20 OOD images puts the threshold at 2; trusted 2, 3, 5 and 50 reach it.
    scores_in, scores_ood = [-3, -2, -1, 0, 1, 1.5, 2, 3, 5, 50], np.arange(1, 21)
    assert metrics.fpr_at_tpr(scores_in, scores_ood) == pytest.approx(0.4)
    assert metrics.fpr_at_tpr(scores_in, scores_ood, tpr=1) == pytest.approx(0.6)
    assert metrics.fpr_at_tpr(scores_in, scores_ood, tpr=0.05) == pytest.approx(0.1)


def test_fpr_at_tpr_inside_a_run_of_ties():
    # On the ROC curve (0, 0), (1/2, 1/2), (1, 1) the middle point is collinear but must stay.
    assert metrics.fpr_at_tpr([0, 1], [0, 1], tpr=0.5) == 0.5


def test_roc_curve_rises_from_zero_to_one_and_encloses_the_auroc():
    rng = np.random.default_rng(2)
    scores_in, scores_ood = rng.normal(size=30), rng.normal(1, 1, size=40)
    fpr, tpr = metrics.roc_curve(scores_in, scores_ood)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(tpr) >= 0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auroc(scores_in, scores_ood))


def test_infinite_scores_are_ranked():
    scores_in, scores_ood = [-np.inf, 0, 1], [0.5, np.inf, np.inf]
    assert metrics.detection(scores_in, scores_ood) == metrics.detection([-9, 0, 1], [0.5, 9, 9])


def test_delong_variance_matches_the_pairwise_definition():
    # DeLong et al. (1988): variances of the row and column means of the pair matrix.
    rng = np.random.default_rng(4)
    scores_in, scores_ood = rng.integers(0, 9, size=30), rng.integers(3, 12, size=20)
    difference = np.subtract.outer(scores_ood, scores_in)
    concordance = (difference > 0) + 0.5 * (difference == 0)
    expected = (
        np.var(concordance.mean(axis=1), ddof=1) / 20
        + np.var(concordance.mean(axis=0), ddof=1) / 30
    )
    assert metrics._delong_variance(scores_in, scores_ood) == pytest.approx(expected)


def test_more_confidence_makes_a_wider_interval():
    rng = np.random.default_rng(5)
    scores_in, scores_ood = rng.normal(size=60), rng.normal(1, 1, size=60)
    low, high = metrics.auroc_interval(scores_in, scores_ood, confidence=0.8)
    lower, higher = metrics.auroc_interval(scores_in, scores_ood, confidence=0.99)
    assert lower < low < high < higher


@pytest.mark.parametrize(
    ("scores_in", "scores_ood", "message"),
    [
        ([0.0, np.nan], [1.0], "1 of 2 values in scores_in are NaN"),
        ([0.0], [], "scores_ood is empty"),
        ([[0.0]], [1.0], r"scores_in has shape \(1, 1\)"),
        ([0.0], 1.0, r"scores_ood has shape \(\)"),
    ],
)
def test_unusable_scores_are_refused(scores_in, scores_ood, message):
    with pytest.raises(ValueError, match=message):
        metrics.detection(scores_in, scores_ood)


@pytest.mark.parametrize("share", [95, 1.01, -0.1])
def test_shares_outside_their_range_are_refused(share):
    for confidence in (share, 0, 1):
        with pytest.raises(ValueError, match=f"between 0 and 1, not {confidence}; try 0.95"):
            metrics.auroc_interval([0, 1], [1, 2], confidence=confidence)
    for tpr in (share, 0):
        with pytest.raises(ValueError, match=rf"in \(0, 1\], not {tpr}\."):
            metrics.fpr_at_tpr([0, 1], [1, 2], tpr=tpr)


def test_confidence_is_that_of_the_interval():
    scores_in, scores_ood = [0, 1, 2, 5], [1, 3, 4, 6]
    found = metrics.detection(scores_in, scores_ood, confidence=0.5)
    assert found.auroc_ci == metrics.auroc_interval(scores_in, scores_ood, confidence=0.5)
    assert metrics.detection(scores_in, scores_ood) == metrics.detection(
        scores_in, scores_ood, confidence=0.95
    )
    assert found.fpr95 == metrics.fpr_at_tpr(scores_in, scores_ood, tpr=0.95) == 0.75
