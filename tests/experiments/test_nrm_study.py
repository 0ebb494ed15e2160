"""Which images the NRM experiment takes, and what it does where some are not to be had."""

import dataclasses

import numpy as np
import pytest

from experiments.lab import Scores, UsageError
from experiments.nrm.ablation.study import variants
from experiments.nrm.sets import load_sets
from experiments.nrm.settings import PRESETS
from experiments.nrm_ablation import Config as AblationConfig
from experiments.nrm_cifar import Config
from jaxood import data

STUDY = dataclasses.replace(
    PRESETS["smoke"],
    in_dist="own",
    ood=("near", "far"),
    classes={"own (one)": ("own", 1), "near (seven)": ("near", 7)},
    images=30,
    null_images=40,
)


@pytest.fixture
def sets(monkeypatch):
    """Images that are their own number; `sets[name]` may be an error instead."""
    numbers = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    found = {
        ("own", "train"): numbers[100:],
        ("own", "test"): numbers[:100],
        ("near", "test"): numbers,
        ("far", "test"): numbers,
    }

    def load(name, split, data_dir):
        images = found[name, split]
        if isinstance(images, Exception):
            raise images
        return images, np.arange(len(images)) % 10

    monkeypatch.setattr(data, "load", load)
    return found


def load():
    return load_sets(STUDY, seed=0, data_dir=None)


def test_sets_are_of_the_size_asked_for_and_apart(sets):
    train, chosen, absent = load()
    assert len(train.images) == 100
    sizes = {name: len(images.images) for name, images in chosen.items()}
    assert sizes == {
        "own": 30,
        "own (calibration)": 40,
        "own (train)": 30,
        "near": 30,
        "far": 30,
        "own (one)": 10,
        "near (seven)": 20,
    }
    assert absent == {}
    judged, calibration = (set(chosen[n].images.ravel()) for n in ("own", "own (calibration)"))
    assert not judged & calibration
    assert set(chosen["own (train)"].images.ravel()) <= set(train.images.ravel())
    assert (chosen["near (seven)"].images.ravel() % 10 == 7).all()
    for images, labels in (chosen["own"], chosen["near"]):
        np.testing.assert_array_equal(images.ravel() % 10, labels)


def test_an_absent_set_is_left_out_and_named(sets, capsys):
    sets["near", "test"] = data.AbsentError("near is nowhere")
    _, chosen, absent = load()
    assert "near" not in chosen and "near (seven)" not in chosen
    assert absent == {"near": "near is nowhere"}
    assert "left out: near is nowhere" in capsys.readouterr().out


def test_a_damaged_set_stops_the_run(sets):
    sets["near", "test"] = data.DataError("near.npz is damaged")
    with pytest.raises(data.DataError, match="damaged"):
        load()


def test_without_any_ood_set_there_is_nothing_to_do(sets):
    for name in STUDY.ood:
        sets[name, "test"] = data.AbsentError(f"{name} is nowhere")
    with pytest.raises(data.DataError, match="no OOD set can be loaded: near is nowhere; far"):
        load()


def test_images_of_another_shape_are_refused(sets):
    sets["far", "test"] = np.zeros((50, 2, 2, 1), np.uint8)
    with pytest.raises(UsageError, match="give sets of one shape"):
        load()


def test_too_few_trusted_images_are_refused(sets):
    sets["own", "test"] = sets["own", "test"][:60]
    with pytest.raises(UsageError, match="own has 60 test images, but 70 are needed"):
        load()


def test_flags_change_the_recipe():
    study = Config(
        preset="small", seed=3, models=2, architecture="resnet", batch_norm=True, augment=True,
        labelled=0.5, latent=2.0, path=7.0, steps=9,
    ).study()  # fmt: skip
    recipe, preset = study.recipe, PRESETS["small"].recipe
    assert (recipe.model, recipe.steps, recipe.labelled) == ("resnet", 9, 0.5)
    assert recipe.options == {"batch_norm": True, "template": 1.0}
    assert recipe.augment and not preset.augment
    weights = preset.loss_weights
    assert weights is not None
    assert recipe.loss_weights == weights._replace(latent=2.0, path=7.0)
    assert study.seeds == (3, 4)
    assert Config(preset="small", models=1).study().recipe == preset
    assert Config(preset="paper").study().recipe.augment


def test_flags_that_cannot_be_met_are_refused():
    with pytest.raises(UsageError, match="--models 0: there must be one at least"):
        Config(models=0).study()
    for share in (0.0, 1.1):
        with pytest.raises(UsageError, match=f"--labelled {share}: give a share above 0"):
            Config(labelled=share).study()


def test_variants_change_one_thing_each():
    recipe = AblationConfig(preset="small").study().recipe
    made = variants(recipe)
    assert made.pop("the recipe") == recipe
    assert len(made) == 16
    own = dataclasses.asdict(recipe)
    for title, variant in made.items():
        changed = {k: v for k, v in dataclasses.asdict(variant).items() if v != own[k]}
        expected = {"no common template, temperature 30": 2, "Adam at 2e-3": 2}.get(title, 1)
        assert len(changed) == expected, title
        variant.build((32, 32, 3), classes=10)


def test_stored_scores_come_back_with_the_time_they_took(tmp_path):
    first = Scores(tmp_path / "scores.npz")
    values, seconds = first.timed("a", lambda: np.arange(3))
    again, same = Scores(tmp_path / "scores.npz").timed("a", lambda: np.zeros(3))
    np.testing.assert_array_equal(values, again)
    assert seconds == same >= 0
