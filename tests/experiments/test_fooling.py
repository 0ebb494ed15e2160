"""The search for a temperature, the cut of SVHN, and which trusted run may be reused."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments import bn_cifar, bn_fashion_mnist, fooling
from experiments.batch_norm.fooling.results import Attack
from experiments.batch_norm.fooling.search import find_temperature, sampler
from experiments.batch_norm.fooling.study import load_other
from experiments.batch_norm.settings import Sizes
from experiments.lab import UsageError
from jaxood import data, scores
from jaxood.density import DensityModel

D = 64  # pixels of an image


def geometric():
    """Independent pixels with p(k) = 2^-(k + 1): one bit more a level.

    At temperature T the mass of level k is in proportion to 2^(-k / T): geometric again.
    """

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        return -jnp.log(2.0) * (1 + x.astype(jnp.float32)).sum((1, 2, 3))

    def sample(variables, key, n, *, temperature=1.0):
        u = jax.random.uniform(key, (n, 8, 8, 1), minval=1e-9)
        return jnp.clip(jnp.floor(-temperature * jnp.log2(u)), 0, 255).astype(jnp.uint8)

    return DensityModel(lambda key, x: {}, log_prob, sample)


MODEL = geometric()
DRAW = sampler(MODEL, {}, 512)


def level_sum(temperature):
    """The law of the sum of an image's levels, a negative binomial."""
    return scipy.stats.nbinom(D, 1 - 2 ** (-1 / temperature))


@pytest.mark.parametrize("temperature", [0.4, 0.8, 1.0, 1.17, 3.5])
def test_search_finds_the_temperature_of_a_known_model(temperature):
    n = 2048

    def log_prob(t):
        samples = DRAW(jax.random.key(0), n, t)
        return np.asarray(scores.log_prob(MODEL, {}, samples, batch_size=n))

    found = find_temperature(log_prob, -np.log(2) * (D + level_sum(temperature).median()))
    # Half the last bracket, and what a level (the sum is a whole number) and four standard errors
    # of a sample's median make in temperature.
    slope = (level_sum(temperature + 0.05).mean() - level_sum(temperature - 0.05).mean()) / 0.1
    stderr = np.sqrt(np.pi / 2 / n) * level_sum(temperature).std()
    assert abs(found.temperature - temperature) < 0.0025 + (1 + 4 * stderr) / slope


def test_search_returns_the_middle_of_its_last_bracket():
    tried = []

    def log_prob(t):
        tried.append(t)
        return np.full(3, -t)

    found = find_temperature(log_prob, -2.345, tolerance=1e-4)
    assert found.temperature == pytest.approx(2.345, abs=0.5e-4)
    assert list(found.tried) == tried
    assert len(tried) == len(set(tried)) < 25


@pytest.mark.parametrize("temperature", [0.31, 1.2, 6.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_search_goes_where_the_target_is(temperature, sign):
    """Up or down from T = 1, whether likelihoods fall with temperature or rise."""
    noise = np.random.default_rng(0).normal(size=(997, 100))

    def noisy(t):
        return sign * 10 * t + noise[round(1000 * t) % 997]

    found = find_temperature(noisy, sign * 10 * temperature)
    # Four standard errors of a median of 100.
    assert abs(found.temperature - temperature) < 0.0025 + 4 * np.sqrt(np.pi / 200) / 10


def test_search_refuses_likelihoods_that_rise_and_fall():
    with pytest.raises(
        UsageError, match=r"both rises and falls .*-3\.0 at T = 0\.8, -1\.0 at T = 1,"
    ):
        find_temperature(lambda t: np.full(4, -10 * abs(t - 1.1)), 0.0)


@pytest.mark.parametrize("target", [-1.0, -9.0])
def test_search_says_that_no_temperature_reaches(target):
    with pytest.raises(UsageError, match=r"no temperature between .* theirs is -5\.0 to -3\.0"):
        find_temperature(lambda t: np.full(4, -4 + np.sign(1.1 - t)), target)


def test_search_takes_exploded_likelihoods_for_unlikely():
    found = find_temperature(lambda t: np.full(4, -t if t < 1.2 else np.nan), -1.1)
    assert found.temperature == pytest.approx(1.1, abs=0.0025)
    assert find_temperature(lambda t: np.full(4, -t if t < 1.2 else -np.inf), -1.5).temperature == (
        pytest.approx(1.2, abs=0.0025)
    )


def test_same_key_gives_the_same_random_numbers_whatever_the_temperature():
    cold, hot = (DRAW(jax.random.key(1), 600, t).astype(int) for t in (1.0, 2.0))
    assert cold.shape == (600, 8, 8, 1)
    assert np.isin(hot - 2 * cold, (0, 1)).all()
    assert len(np.unique(cold.reshape(600, -1), axis=0)) == 600


def test_svhn_without_a_train_split_is_cut_by_position(monkeypatch):
    images = np.arange(80, dtype=np.uint8).reshape(80, 1, 1, 1)

    def load(name, split, data_dir):
        if split == "train":
            raise data.AbsentError(f"{name}: no source has the split 'train'")
        return images, None

    monkeypatch.setattr(data, "load", load)
    train, test, cut = load_other("svhn_cropped", None)
    np.testing.assert_array_equal(np.concatenate([train, test]), images)
    assert len(train) == 60
    assert len(test) == 20
    assert cut
    with pytest.raises(data.DataError, match="no source has the split"):
        load_other("mnist", None)


def test_sets_with_a_train_split_are_not_cut():
    train, test, cut = load_other("digits/scaled_0.5", None)
    np.testing.assert_array_equal(train, data.load("digits/scaled_0.5", "train")[0])
    np.testing.assert_array_equal(test, data.load("digits/scaled_0.5", "test")[0])
    assert not cut


def test_samples_have_names_that_stay_and_titles_that_a_person_reads():
    attack = Attack(
        model="pixelcnn",
        in_dist="digits",
        other="digits/scaled_0.5",
        sizes=Sizes(images=1, null_images=1, draws=1),
        temperature=1.0349,
        target=0.0,
        tried={},
    )
    assert attack.fooling == "pixelcnn(digits/scaled_0.5), T = 1.03"
    assert attack.temperatures == {
        attack.fooling: 1.0349,
        "pixelcnn(digits/scaled_0.5), T = 0.7": 0.7,
        "pixelcnn(digits/scaled_0.5), T = 1.0": 1.0,
        "pixelcnn(digits/scaled_0.5), T = 1.3": 1.3,
    }
    assert list(attack.titles) == list(attack.temperatures)
    assert [*attack.titles.values()] == [
        f"PixelCNN++ (digits × 0.5, T = {t})" for t in ("1.03", "0.7", "1.0", "1.3")
    ]


def test_the_study_takes_the_trusted_model_of_its_experiment():
    """Appendix B: a RealNVP of CIFAR-10 is fooled by one of SVHN, and a PixelCNN++ by MNIST."""
    flow = fooling.study_of(fooling.Config(model="realnvp", preset="paper"))
    assert (flow.in_dist, flow.other) == ("cifar10", "svhn_cropped")
    assert flow.recipe == flow.attacker == bn_cifar.PRESETS["realnvp", "paper"].recipe
    pixels = fooling.study_of(fooling.Config(model="pixelcnn", preset="small"))
    assert (pixels.in_dist, pixels.other) == ("fashion_mnist", "mnist")
    assert pixels.recipe == bn_fashion_mnist.PRESETS["pixelcnn", "small"].recipe
    assert pixels.attacker == pixels.recipe.with_steps(200)
    longer = fooling.study_of(fooling.Config(model="pixelcnn", steps=3))
    assert longer.recipe.steps == longer.attacker.steps == 3


class TestTrustedRun:
    @pytest.fixture
    def lent(self, tmp_path):
        settings = {"experiment": "bn_cifar", "model": "realnvp", "preset": "smoke"}
        settings |= {"seed": 0, "steps": None, "waic": True}
        (tmp_path / "model" / "finished").mkdir(parents=True)
        (tmp_path / "config.json").write_text(json.dumps(settings))
        return fooling.Config(preset="smoke", trusted_run=tmp_path)

    def directory(self, config):
        return fooling.trusted_directory(config, Path("out"))

    def test_that_fits_is_read(self, lent):
        assert self.directory(lent) == lent.trusted_run / "model"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seed": 1}, r"seed = 0 \(here 1\)"),
            ({"steps": 3}, r"steps = None \(here 3\)"),
            ({"preset": "small"}, r"preset = smoke \(here small\)"),
            ({"model": "pixelcnn"}, r"experiment = bn_cifar \(here bn_fashion_mnist\), model"),
        ],
    )
    def test_with_other_settings_is_refused(self, lent, changes, message):
        with pytest.raises(UsageError, match=message):
            self.directory(dataclasses.replace(lent, **changes))

    def test_that_is_not_finished_is_refused(self, lent):
        (lent.trusted_run / "model" / "finished").rmdir()
        with pytest.raises(UsageError, match="not finished"):
            self.directory(lent)

    def test_that_is_no_run_is_refused(self, lent, tmp_path):
        with pytest.raises(UsageError, match=r"no config\.json"):
            self.directory(dataclasses.replace(lent, trusted_run=tmp_path / "absent"))
