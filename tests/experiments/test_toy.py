"""The BatchNorm paper's examples: constants by quadrature, by closed form and by training."""

from types import SimpleNamespace
from typing import Any

import chex
import numpy as np
import pytest

from experiments.batch_norm.toy import examples as toy_examples
from experiments.batch_norm.toy import figures as toy_figures
from experiments.batch_norm.toy import study
from experiments.batch_norm.toy.detection import EXACT, MATES, USUAL, average_down
from experiments.batch_norm.toy.proposition1 import Check
from experiments.batch_norm.toy.results import Results
from jaxood.report.record import ResultRow

# ------------------------------------------------------------------- Section 4.2.1 and Appendix D


def test_constants_of_section_4_2_1():
    """They agree with the printed two decimals, and with six digits; U(-1/2, 1/2) has V = 1/12."""
    one = toy_examples.by_quadrature(1.0)
    chex.assert_trees_all_close(tuple(one), (-2.837877, -1.921210, -2.379544), rtol=0, atol=1e-6)
    chex.assert_trees_all_close(tuple(one), tuple(toy_examples.PRINTED), rtol=0, atol=0.005)
    assert one.effect == pytest.approx(-11 / 24, abs=1e-6)
    assert toy_examples.closed_form(1.0, 1 / np.sqrt(12)).q_training == pytest.approx(
        -2.0239, abs=1e-4
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, -1.5])
def test_closed_form_is_the_quadrature(gamma):
    chex.assert_trees_all_close(
        tuple(toy_examples.closed_form(gamma)),
        tuple(toy_examples.by_quadrature(gamma)),
        rtol=0,
        atol=1e-5,
    )


def test_maximum_likelihood_is_gamma_zero_where_there_is_no_effect():
    gamma = np.linspace(-2, 2, 401)
    p = toy_examples.closed_form(gamma).p
    assert gamma[np.argmax(p)] == pytest.approx(0, abs=1e-12)
    assert p.max() == pytest.approx(-2.337877, abs=1e-6)
    assert toy_examples.by_quadrature(0.0).effect == 0


@pytest.fixture(scope="module")
def trained():
    return study.train_couplings(seed=0)


def test_training_forgets_gamma_in_the_papers_example(trained):
    path = trained["independent"]
    assert path.gamma[0] == 1
    assert abs(path.gamma[-1]) < 1e-3
    assert abs(path.beta[-1]) < 1e-3
    assert not path.log_scale.any()


def test_training_keeps_gamma_where_x2_follows_x1(trained):
    """Least squares: gamma = -slope sd(x1), exp(s) = 1 / noise; then the effect is real."""
    path = trained["dependent"]
    # 600 batches of 64: within 5 standard errors of a batch, 0.5 / 8.
    assert path.gamma[-1] == pytest.approx(-1, abs=0.1)
    assert path.log_scale[-1] == pytest.approx(np.log(2), abs=0.1)
    found = toy_examples.dependent_closed_form(path.gamma[-1], path.log_scale[-1])
    assert found.q_evaluation > found.p > found.q_training
    best = toy_examples.dependent_closed_form(-1.0, np.log(2))
    assert best.effect == pytest.approx(-2 * (np.sqrt(12) - 1) ** 2 / 12, abs=1e-12)
    gammas, scales = np.meshgrid(np.linspace(-2, 2, 81), np.log(2) + np.linspace(-1, 1, 41))
    p = toy_examples.dependent_closed_form(gammas, scales).p
    assert best.p == pytest.approx(p.max(), abs=1e-12)


def test_dependent_closed_form_is_the_mean_over_samples():
    rng = np.random.default_rng(0)
    n, gamma, log_scale = 200_000, -0.7, 0.4
    sets = {
        "p": (toy_examples.sample_p(rng, n, slope=1, noise=0.5, sigma=0), (0, 1)),
        "q_evaluation": (toy_examples.sample_q(rng, n, slope=1, noise=0.5), (0, 1)),
        "q_training": (toy_examples.sample_q(rng, n, slope=1, noise=0.5), (0, 1 / 12)),
    }
    for name, (x, statistics) in sets.items():
        z2 = toy_examples.coupling(x[:, 0], x[:, 1], gamma, 0.0, *statistics) * np.exp(log_scale)
        log_prob = -np.log(2 * np.pi) - (x[:, 0] ** 2 + z2**2) / 2 + log_scale
        expected = getattr(toy_examples.dependent_closed_form(gamma, log_scale), name)
        assert log_prob.mean() == pytest.approx(expected, abs=5 * log_prob.std() / np.sqrt(n))


# ------------------------------------------------------------------------------------- Section 3


def test_misspecified_gaussian_prefers_the_gap_and_waic_with_it():
    g = toy_examples.gaussians(seed=0)
    chex.assert_trees_all_close(g.trained, g.closed_form, rtol=0, atol=1e-4)
    mu, sigma = g.closed_form
    # n = 1,000: mean within 4 of its standard errors 1/sqrt(n), variance 1.01 less that of mu.
    assert mu == pytest.approx(0, abs=4 / np.sqrt(1000))
    assert sigma**2 + mu**2 == pytest.approx(1 + toy_examples.VARIANCE, abs=0.03)
    assert g.members.shape == (5, 2)
    for name in g.ood:
        assert g.auroc("neg_log_prob", name) < 0.01
        assert g.auroc("waic", name) < 0.01
        assert g.auroc("t_perm", name) > 0.99


# ------------------------------------------------------------------------------------ the pieces


def test_average_down_averages_after_a_black_border():
    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    half = average_down(x, 2)
    assert half.shape == (3, 14, 14, 1)
    assert half[1, 2, 3, 0] == np.rint(x[1, 4:6, 6:8].mean())
    quarter = average_down(x, 4)
    assert quarter.shape == (3, 8, 8, 1)
    assert quarter[0, 0, 0, 0] == np.rint(x[0, :2, :2].sum() / 16)
    assert average_down(x, 1) is x


def test_masses_draw_one_mark_a_check():
    checks = [Check("a", "usual", 4, 1.1, False), Check("a", "mates only", 16, 1.0, True)]
    (axes,) = toy_figures.masses(checks).axes
    marks = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() != "None"]
    drawn = [mark[0, 0] for mark in marks if mark.size]
    assert drawn == [1.1, 1.0]


def row(ood, auroc, **params):
    return ResultRow(
        "realnvp", "digits", ood, "batch_norm_delta", auroc, (0.1, 0.9), None, None, 9, 9, params
    )


def test_changes_are_from_the_usual_likelihood_at_the_same_r1():
    usual = {("a", 0.1): 0.6, ("a", 0): 0.7, ("b", 0.1): 0.8, ("b", 0): 0.9}
    outcome: Any = SimpleNamespace(
        results=[row(ood, auroc, r1=r1, likelihood=USUAL) for (ood, r1), auroc in usual.items()],
        sweeps=[
            row("a", 0.65, r1=0.1, likelihood=MATES),
            row("b", 0.7, r1=0, likelihood=MATES),
            row("a", 0.69, r1=0, likelihood=EXACT),
            row("b", None, r1=0, likelihood=EXACT),
        ],
    )
    gaussians: Any = None
    found = Results(gaussians=gaussians, descents={}, checks=(), outcomes=[outcome], absent={})
    assert found.largest_changes() == {EXACT: pytest.approx(0.01), MATES: pytest.approx(0.2)}
    table = found.detection_table()
    assert table.columns == [
        "OOD set",
        "Δ, usual, r1 = 0.1",
        "Δ, usual, r1 → 0",
        "Δ, mates only, r1 = 0.1",
        "Δ, mates only, r1 → 0",
        "Δ, exact Jacobian, r1 → 0",
    ]
    assert [cell is None for cell in table.rows[0]] == [False, False, False, False, True, False]
