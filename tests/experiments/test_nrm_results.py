"""The NRM experiment's numbers and verdicts, on measurements made up to have known ones."""

import dataclasses

import numpy as np
import pytest

from experiments.nrm.claims import claims
from experiments.nrm.paper import RECONSTRUCTION, TABLE_1
from experiments.nrm.results import Results, overlap
from experiments.nrm.scored import LATENT, PROFILE, WAIC, Key, scored
from experiments.nrm.sets import Images
from experiments.nrm_cifar import Config
from jaxood.scores.nrm import Measurement, statistics
from jaxood.scores.statistics import class_centred

N, LAYERS = 4000, 3

# Table 1, read from the paper column by column: training and test images, SVHN, CelebA.
LOG_PX = "-55.47 -55.63 -59.64 -58.69"
LOG_PZ = "-5.73 -5.66 -8.16 -17.60"
MINUS_RECONSTRUCTION = "-5.839 -5.846 -10.888 -8.008"
SIZES = np.array([48, 16, 16, 8])


def measurement(rng, labels, *, log_prob=0.0, error=(1.0, 1.0, 1.0, 1.0), active=0.5, energy=50.0):
    """Terms of images whose log p(z*|y*) is about ``log_prob``, and so on."""
    n = len(labels)
    latent = rng.normal(size=(n, LAYERS)) + log_prob / LAYERS
    reconstruction = np.array(error) * rng.lognormal(sigma=0.1, size=(n, LAYERS + 1))
    logits = np.eye(2)[labels]
    return Measurement(
        label=labels,
        logits=logits,
        latent=latent.astype(np.float32),
        reconstruction=reconstruction.astype(np.float32),
        energy=(energy + rng.normal(size=n)).astype(np.float32),
        active=np.full((n, LAYERS), active, np.float32),
        negative=np.full((n, LAYERS), 0.2, np.float32),
        sizes=SIZES,
    )


def made_up(*, ood_log_prob=-10.0, ood_error=(1.0, 2.0, 1.0, 1.0), wrong_error=1.02, seeds=2):
    """Trusted sets alike, one OOD set otherwise; sets as of the preset smoke."""
    study = Config(preset="smoke", models=seeds).study()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    names = [study.in_dist, study.null, study.train, *study.ood, *study.classes]
    images = {name: Images(np.zeros((N, 1, 1, 3), np.uint8), labels) for name in names}
    found: dict[int, dict[str, Measurement]] = {}
    wrong = {}
    for seed in study.seeds:
        found[seed] = {name: measurement(rng, labels, active=0.5) for name in names}
        odd = study.ood[0]
        found[seed][odd] = measurement(
            rng, labels, log_prob=ood_log_prob, error=ood_error, active=0.6
        )
        wrong[seed] = measurement(rng, 1 - labels, error=(wrong_error, 1, 1, 1))
    return Results(study=study, sets=images, measurements=found, wrong=wrong)


def verdicts(results, without=None):
    return {claim.source: claim for claim in claims(results, without)}


def test_table_1_is_that_of_the_paper():
    names = ("cifar10 (train)", "cifar10", "svhn_cropped", "celeb_a/scaled_0.8")
    columns = [[float(x) for x in c.split()] for c in (LOG_PX, LOG_PZ, MINUS_RECONSTRUCTION)]
    for i, name in enumerate(names):
        assert TABLE_1[name] == tuple(column[i] for column in columns), name
    # "Multiply by 0.8" can be read in two ways, of one row.
    assert TABLE_1["celeb_a/unit_scaled_0.8"] == TABLE_1["celeb_a/scaled_0.8"]
    assert len(TABLE_1) == 5
    sums = [sum(TABLE_1[name][k] for name in names) for k in range(3)]
    assert sums == pytest.approx([-229.43, -37.15, -30.581])
    # Half a squared error and log p(z*|y*) make log p(x), at sigma = 1 and 3 x 32 x 32 values.
    log_px, log_pz, _ = TABLE_1["cifar10"]
    assert 2 * (log_pz - log_px) / 3072 == pytest.approx(RECONSTRUCTION, abs=1e-3)


def test_agreement_is_near_zero_for_noise_and_one_for_models_that_see_the_same():
    results = made_up()
    noise = results.agreement()
    assert noise is not None and abs(noise) < 0.1
    name = results.study.in_dist
    results.scores[1][name] = {LATENT: 3 * results.scores[0][name][LATENT] + 1}
    assert results.agreement() == pytest.approx(1)
    assert made_up(seeds=1).agreement() is None


def test_quality_is_that_of_the_trusted_set():
    results = made_up()
    quality = results.quality(0)
    assert quality.accuracy == 1.0
    # |x - h(0)|^2 is about 1, over 48 values of an image.
    assert quality.reconstruction == pytest.approx(1 / 48, rel=0.05)
    assert quality.wrong_label == pytest.approx(1.02 / 48, rel=0.05)
    assert quality.negative == pytest.approx(0.2)


def test_the_interval_reaches_over_all_seeds():
    results = made_up(ood_log_prob=-1.0)
    found = results.detections(results.study.ood[0], LATENT)
    mean, low, high = results.auroc(results.study.ood[0], LATENT)
    assert len(found) == 2
    assert mean == pytest.approx(np.mean([d.auroc for d in found]))
    assert low == min(d.auroc_ci[0] for d in found) < mean < high
    assert high == max(d.auroc_ci[1] for d in found)


def test_claims_hold_where_the_paper_is_right():
    results = made_up()
    made = verdicts(results, made_up(ood_log_prob=10.0))
    assert {claim.holds for claim in made.values() if claim.source != "Section 3.2"} == {True}


def test_claims_do_not_hold_where_it_is_not():
    results = made_up(ood_log_prob=10.0, ood_error=(9.0, 0.5, 0.5, 0.5), wrong_error=2.0)
    made = verdicts(results, results)
    assert not made["Section 3.3, Table 1"].holds
    assert not made["Section 3.4"].holds
    assert not made["Appendix D, Figure D.3"].holds
    assert not made["Appendix B"].holds
    assert made["Section 3.3"].holds  # training and test images still are alike
    assert made["Appendix B"].verdict == "does not hold here"


def test_what_was_not_trained_is_not_judged():
    assert verdicts(made_up())["Appendix B"].verdict == "not checked"


def test_rows_name_every_seed_and_score():
    results = made_up()
    rows = results.rows([LATENT, PROFILE])
    keys = {(row.ood, row.score, row.params["seed"]) for row in rows}
    assert len(keys) == len(rows) == 2 * 2 * len(results.judged)
    assert WAIC in results.keys
    assert WAIC not in made_up(seeds=1).keys
    # A record says which layer and which reduction a row is of.
    (row, *_) = results.rows([Key("nrm_reconstruction", 2, "mean")])
    assert (row.score, row.params) == (
        "nrm_reconstruction",
        {"seed": 0, "layer": 2, "reduction": "mean"},
    )


def test_every_score_is_a_function_of_a_measurement():
    results = made_up(seeds=1)
    by_set = results.measurements[0]
    m, null = by_set[results.study.ood[0]], by_set[results.study.null]
    found = scored(m, null)
    labels = {key.label for key in found}
    layers = [f"reconstruction, layer {layer}" for layer in range(4)]
    both = ["−log p(z*|y*)", "−log p(x), NRM", *layers]
    assert labels == {
        *both,
        *(f"{name}, mean" for name in both),
        "−log p(z*|y*) / |x|²",
        "−log p(z*|y*), two-sided",
        "−log p(z*|y*), class-centred",
        "NRM profile",
        "NRM switches",
    }
    own, reference = statistics.latent(m), statistics.latent(null)
    expected = {
        LATENT: own,
        Key("nrm_latent", reduction="mean"): statistics.latent(m, reduction="mean"),
        Key("nrm_reconstruction", 2, "mean"): statistics.reconstruction(m, 2, reduction="mean"),
        Key("nrm_neg_log_prob"): statistics.neg_log_prob(m),
        Key("nrm_latent_per_energy"): own / m.energy,
        Key("nrm_latent_two_sided"): np.abs(own - reference.mean()),
        Key("nrm_latent_class_centred"): class_centred(own, m.label, reference, null.label),
        Key("nrm_profile"): statistics.profile(m, null),
        Key("nrm_switches"): statistics.switches(m, null),
    }
    for key, values in expected.items():
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-5, err_msg=key.label)


def test_energy_correlation_of_a_perfect_renderer():
    results = made_up(seeds=1)
    m = results.measurements[0][results.study.in_dist]
    energy = np.random.default_rng(3).uniform(100, 900, N)
    exact = m._replace(latent=np.stack([-energy / 2, 0 * energy, 0 * energy], 1), energy=energy)
    results = dataclasses.replace(results, measurements={0: {results.study.in_dist: exact}})
    np.testing.assert_allclose(results.energy(), (-1, -0.5), rtol=1e-5)


def test_overlap():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100_000))
    assert overlap(a, a) == 1
    assert overlap(a, b) > 0.98
    assert overlap(a, b + 100) == 0
    # Two unit normals a distance d apart share 2 Phi(-d / 2).
    assert overlap(a, b + 1) == pytest.approx(0.617, abs=0.01)
    assert overlap(np.zeros(3), np.zeros(4)) == 1
