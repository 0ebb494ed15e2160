"""Every verdict of a report, on numbers on both sides of where it turns."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from experiments.batch_norm import results as batch_norm_results
from experiments.batch_norm.fooling import results as fooling_results
from experiments.batch_norm.toy.proposition1 import Check
from experiments.batch_norm.toy.results import Results as ToyResults
from experiments.nrm.claims import Claim, claims
from experiments.nrm.glow import results as glow_results
from experiments.nrm.scored import LATENT, reconstruction
from jaxood.report import interval
from jaxood.scores.nrm import Measurement

SHAPE = norm.ppf((np.arange(400) + 0.5) / 400)  # a normal sample without chance


def test_verdicts_in_words():
    words = {True: "holds", False: "does not hold here", None: "not checked"}
    for holds, verdict in words.items():
        assert Claim("s", "t", holds, "e").verdict == verdict


# ------------------------------------------------------------------- the NRM paper's own sentences

NAMES = ("cifar10", "cifar10 (train)", "svhn_cropped", "celeb_a", "cifar100", "a", "b")


class Numbers:
    """Plain numbers that `claims` asks of the `Results` of an NRM study; all sentences hold."""

    layers = 4  # reconstructions; the intermediate ones are 1 and 2

    def __init__(self, *, auroc=0.9):
        self.study = SimpleNamespace(
            in_dist="cifar10",
            train="cifar10 (train)",
            ood=("svhn_cropped", "celeb_a", "cifar100"),
            main=2,
            families=(("a", "b"),),
            seeds=(0, 1),
        )
        self.main, self.near = ["svhn_cropped", "celeb_a"], ["cifar100"]
        self.aurocs = {"cifar10 (train)": {LATENT: (0.515, 0.49, 0.54)}}
        for name in ("svhn_cropped", "celeb_a"):
            self.aurocs[name] = {
                LATENT: (auroc, auroc - 0.05, auroc + 0.05),
                reconstruction(0): (0.6, 0.55, 0.65),
                reconstruction(1): (0.4, 0.35, 0.45),
                reconstruction(2): (0.7, 0.65, 0.75),
                reconstruction(3): (0.2, 0.15, 0.25),
            }
        at = {"cifar10": 0, "svhn_cropped": 5, "celeb_a": 6, "cifar100": 0.5, "a": 5, "b": 5.2}
        self.scores = {0: {name: {LATENT: SHAPE + x} for name, x in at.items()}}
        self.qualities = {0: (2.0, 2.16, 0.1), 1: (2.0, 2.2, 0.1)}
        self.spread = 0.9  # of log p(z*|y*), where that of half the reconstruction loss is 1
        self.switches = {"cifar10": 0.5, "cifar10 (train)": 0.51, "svhn_cropped": 0.4}
        self.switches["celeb_a"] = 0.54

    def present(self, names):
        return [name for name in names if name in NAMES]

    def auroc(self, name, score):
        return self.aurocs[name][score]

    def sentence(self, name, score):
        mean, low, high = self.auroc(name, score)
        return interval(mean, (low, high), digits=2, inline=True)

    def detections(self, name, score):
        return [SimpleNamespace(auroc=self.auroc(name, score)[0])]

    def quality(self, seed):
        names = ("reconstruction", "wrong_label", "negative")
        return SimpleNamespace(**dict(zip(names, self.qualities[seed], strict=True)))

    @property
    def measurements(self):
        rng = np.random.default_rng(0)
        loss, latent = 2 * rng.permutation(SHAPE), self.spread * rng.permutation(SHAPE)
        m = Measurement(
            label=np.zeros(400, int),
            logits=np.zeros((400, 2)),
            latent=latent[:, None],
            reconstruction=np.stack([loss, 0 * loss], 1),
            energy=np.ones(400),
            active=np.ones((400, 1)),
            negative=np.zeros((400, 1)),
            sizes=np.array([1, 1]),
        )
        return {0: {"cifar10": m}}

    def active(self, name):
        return np.array([0.5, self.switches[name]])


def judged(numbers: Any, without: Any):
    return claims(numbers, without)


def sentences(numbers, without=None):
    made = judged(numbers, without)
    assert len({claim.sentence for claim in made}) == len(made) == 11
    return {claim.sentence: claim.holds for claim in made}


def set_auroc(name, score, *values):
    return lambda numbers: numbers.aurocs[name].update({score: values})


def set_at(name, x):
    return lambda numbers: numbers.scores[0].update({name: {LATENT: SHAPE + x}})


def set_value(field, key, value):
    return lambda numbers: getattr(numbers, field).update({key: value})


def test_every_sentence_holds_on_numbers_that_say_so():
    assert set(sentences(Numbers(), Numbers(auroc=0.4)).values()) == {True}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (set_auroc("cifar10 (train)", LATENT, 0.521, 0.49, 0.54), "Histograms of log p"),
        (set_auroc("cifar10 (train)", LATENT, 0.479, 0.45, 0.51), "Histograms of log p"),
        (set_auroc("svhn_cropped", LATENT, 0.9, 0.5, 0.95), "lower for SVHN"),
        (set_auroc("celeb_a", LATENT, 0.9, 0.49, 0.95), "lower for CelebA"),
        (set_auroc("celeb_a", reconstruction(0), 0.75, 0.7, 0.8), "loss of pixels"),
        (set_auroc("celeb_a", reconstruction(0), 0.25, 0.2, 0.3), "loss of pixels"),
        (set_auroc("celeb_a", reconstruction(2), 0.7, 0.5, 0.75), "At some intermediate"),
        (set_auroc("svhn_cropped", reconstruction(2), 0.3, 0.2, 0.4), "At some intermediate"),
        (set_at("cifar100", 5.5), "CIFAR-100 overlaps with CIFAR-10 more"),
        (set_at("a", -1), "Sets that look alike"),
        (set_value("qualities", 1, (2.0, 2.26, 0.1)), "The label hardly matters"),
        (lambda numbers: setattr(numbers, "spread", 1.2), "dominated by the reconstruction"),
        (set_value("switches", "celeb_a", 0.529), "Mean switches"),
        (set_value("switches", "svhn_cropped", 0.471), "Mean switches"),
        (set_value("switches", "cifar10 (train)", 0.52), "Mean switches"),
    ],
)
def test_one_number_turns_one_sentence(change, sentence):
    numbers = Numbers()
    change(numbers)
    (turned,) = [s for s, holds in sentences(numbers, Numbers(auroc=0.4)).items() if not holds]
    assert sentence in turned


def test_a_layer_at_the_edge_is_not_intermediate():
    numbers = Numbers()
    for by_score in (numbers.aurocs["svhn_cropped"], numbers.aurocs["celeb_a"]):
        by_score[reconstruction(3)] = (0.9, 0.85, 0.95)
        by_score[reconstruction(2)] = (0.5, 0.45, 0.55)
    found = sentences(numbers, Numbers(auroc=0.4))
    assert [s for s, holds in found.items() if not holds] == [
        "At some intermediate layer the OOD sets have the larger reconstruction loss."
    ]


@pytest.mark.parametrize(
    ("own", "other", "holds"),
    [
        (0.9, 0.4, True),
        (0.51, 0.5, True),  # found with the loss only
        (0.9, 0.79, True),  # better by more than a tenth
        (0.9, 0.81, False),
        (0.5, 0.45, False),
        (0.4, 0.29, True),
        (0.4, 0.9, False),
    ],
)
def test_the_negativity_loss_is_crucial_where_it_finds_what_is_not_found_without(own, other, holds):
    (claim,) = [c for c in judged(Numbers(auroc=own), Numbers(auroc=other)) if "crucial" in c[0]]
    assert claim.holds is holds
    mixed = Numbers(auroc=other)  # one set that holds does not make up for one that does not
    mixed.aurocs["celeb_a"][LATENT] = (own, own, own)
    (claim,) = [c for c in judged(Numbers(auroc=own), mixed) if "crucial" in c[0]]
    assert claim.holds is (holds and own > 0.5 >= own)
    (claim,) = [c for c in judged(Numbers(auroc=own), None) if "crucial" in c[0]]
    assert claim.holds is None


# ------------------------------------------------------------------------- Glow and the VAE beside


def glow_numbers():
    """As the paper has them: (AUROC, its interval) by set and score."""
    first, train = "svhn_cropped", "cifar10 (train)"
    numbers = {
        (first, "glow_neg_log_prob"): (0.07, 0.05, 0.09),
        (first, "vae_neg_log_prob"): (0.4, 0.3, 0.49),
        (train, "glow_neg_log_pz_last"): (0.66, 0.6, 0.7),
        (first, "glow_neg_log_pz_last"): (0.8, 0.75, 0.85),
        (train, "glow_neg_log_pz_all"): (0.34, 0.3, 0.4),
        (first, "glow_neg_log_pz_all"): (0.2, 0.15, 0.25),
        (train, "nrm_latent"): (0.51, 0.48, 0.54),
        (first, "nrm_latent"): (0.9, 0.85, 0.95),
        ("celeb_a", "nrm_latent"): (0.6, 0.51, 0.7),
    }
    return numbers, first, train


def glow_claims(numbers):
    made = SimpleNamespace(
        study=SimpleNamespace(in_dist="cifar10", train="cifar10 (train)"),
        ood=["svhn_cropped", "celeb_a"],
        detections={
            key: SimpleNamespace(auroc=auroc, auroc_ci=(low, high))
            for key, (auroc, low, high) in numbers.items()
        },
        cell=lambda name, score: "",
    )
    return glow_results.Results.claims(made)  # pyright: ignore[reportArgumentType]


def test_sentences_on_glow_hold_on_the_papers_numbers():
    assert [claim.holds for claim in glow_claims(glow_numbers()[0])] == [True] * 7


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        (("svhn_cropped", "glow_neg_log_prob"), (0.48, 0.4, 0.5), 0),
        (("svhn_cropped", "vae_neg_log_prob"), (0.6, 0.55, 0.65), 1),
        (("cifar10 (train)", "glow_neg_log_pz_last"), (0.64, 0.6, 0.7), 2),
        (("svhn_cropped", "glow_neg_log_pz_all"), (0.17, 0.1, 0.2), 3),
        (("cifar10 (train)", "nrm_latent"), (0.521, 0.5, 0.54), 4),
        (("cifar10 (train)", "nrm_latent"), (0.479, 0.46, 0.5), 4),
        (("svhn_cropped", "nrm_latent"), (0.6, 0.5, 0.7), 5),
        (("celeb_a", "nrm_latent"), (0.3, 0.2, 0.4), 6),
    ],
)
def test_one_number_turns_one_sentence_on_glow(key, value, place):
    numbers = copy.copy(glow_numbers()[0])
    numbers[key] = value
    found = glow_claims(numbers)
    assert [i for i, claim in enumerate(found) if not claim.holds] == [place]
    sentence = found[place].sentence
    assert ("Glow" if place in (0, 2, 3) else "VAE" if place == 1 else "NRM") in sentence


# ------------------------------------------------------------------------------------- headlines


@pytest.mark.parametrize(
    ("auroc", "words"),
    [
        (0.1, "the likelihood prefers them to trusted images: AUROC of −log p(x) is 0.100"),
        (0.499, "prefers them to trusted"),
        (0.5, "cannot be relied on to tell them from trusted"),
        (0.9, "cannot be relied on to tell them from trusted"),
        (0.901, "the likelihood tells them from trusted images: AUROC of −log p(x) is 0.901"),
    ],
)
def test_headline_of_the_batch_norm_test_is_on_the_likelihoods_worst_set(auroc, words):
    aurocs = {
        ("mnist", "neg_log_prob"): auroc,
        ("kmnist", "neg_log_prob"): 0.95,
        ("mnist", "batch_norm_delta"): 0.123,
        ("kmnist", "batch_norm_delta"): 0.456,
    }
    results = SimpleNamespace(
        study=SimpleNamespace(in_dist="fashion_mnist", ood=("kmnist", "mnist")),
        auroc=lambda name, score: aurocs[name, score],
    )
    said = batch_norm_results.Results.headline(results)  # pyright: ignore[reportArgumentType]
    assert words in said
    assert said.startswith("Trained on Fashion-MNIST and shown MNIST, the likelihood ")
    assert said.endswith("AUROC of Δ is 0.123.")


@pytest.mark.parametrize(
    ("low", "words"),
    [(0.3, " fool the"), (0.5, " fool the"), (0.51, " do not quite fool the")],
)
def test_headline_of_the_attack_says_whether_it_fools(low, words):
    found = {
        ("samples", "t_perm"): (0.55, low),
        ("svhn_cropped", "t_perm"): (0.87, 0.8),
        ("samples", "batch_norm_delta"): (0.99, 0.97),
    }

    def detection(name, score):
        auroc, low = found[name, score]
        return SimpleNamespace(auroc=auroc, auroc_ci=(low, 1.0))

    attack = SimpleNamespace(
        model="realnvp", in_dist="cifar10", other="svhn_cropped", fooling="samples", temperature=1.1
    )
    results = SimpleNamespace(attack=attack, detection=detection)
    said = fooling_results.Results.headline(results)  # pyright: ignore[reportArgumentType]
    assert f"drawn at temperature 1.10,{words} likelihood of a RealNVP trained on CIFAR-10" in said
    assert f"permutation test is 0.55 [{low:.2f}, 1.00], and 0.87 [0.80, 1.00] on SVHN" in said
    assert said.endswith("AUROC of Δ is 0.99 [0.97, 1.00].")


def test_masses_are_called_one_where_they_are():
    checks = [
        Check("flow", "usual", 4, 1.00009, True),
        Check("flow", "usual", 4, 0.99991, True),
        Check("flow", "usual", 4, 1.00011, False),
        Check("flow", "usual", 16, 1.031, False),
        Check("pixels", "usual", 1, 0.6, False),
    ]
    table = toy_results(checks=checks).masses_table()
    assert [row[4:] for row in table.rows] == [
        ["0 (to 1e-4)", "1"],
        ["0 (to 1e-4)", "1"],
        ["+0.000", "not 1"],
        ["+0.031", "not 1"],
        ["−0.400", "not 1"],
    ]
    assert [row[2] for row in table.rows] == [4, 4, 4, 16, 1]


# --------------------------------------------------------------------------- the toy's headline


def toy_results(*, checks, gaussians: Any = None, path: Any = None):
    return ToyResults(
        gaussians=gaussians,
        descents={"independent": path},
        checks=checks,
        outcomes=(),
        absent={},
    )


def toy_headline(*, gap=0.01, gamma=0.02, mass=1.03):
    gaussians: Any = SimpleNamespace(ood=("gap",), auroc=lambda score, name: gap)
    path: Any = SimpleNamespace(gamma=np.array([1.0, gamma]))
    checks = [Check("one", "usual", 4, 1.00002, True), Check("two", "usual", 4, mass, False)]
    return toy_results(checks=checks, gaussians=gaussians, path=path).headline()


def test_the_toy_says_of_each_claim_whether_it_holds():
    said = toy_headline()
    assert "Section 3 holds: " in said and "is 0.01 for" in said
    assert "Section 4.2.1 does not hold: " in said and "γ = 0.02" in said
    assert "Proposition 1 does not hold for" in said and "by up to 0.03; " in said
    assert said.endswith("by up to 2e−05.")
    assert "Section 3 does not hold: " in toy_headline(gap=0.6)
    assert "Section 4.2.1 holds: " in toy_headline(gamma=1.0)
    assert "differ by 0.46 nats" in toy_headline(gamma=1.0)
    assert "Proposition 1 holds for" in toy_headline(mass=1.0005)
