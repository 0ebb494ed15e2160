"""Which images the NRM experiment takes, and what it does where some are not to be had."""

import dataclasses

import numpy as np
import pytest

from experiments.lab.common import UsageError
from experiments.lab.store import Scores
from experiments.nrm import settings as nrm_study
from experiments.nrm_cifar import Config
from jaxood import data

STUDY = dataclasses.replace(
    Config(preset="smoke").study(),
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
    return nrm_study.load_sets(STUDY, seed=0, data_dir=None)


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
    with pytest.raises(data.DataError, match="no OOD set is to be had: near is nowhere; far"):
        load()


def test_images_of_another_shape_are_refused(sets):
    sets["far", "test"] = np.zeros((50, 2, 2, 1), np.uint8)
    with pytest.raises(UsageError, match="give sets of one shape"):
        load()


def test_too_few_trusted_images_are_refused(sets):
    sets["own", "test"] = sets["own", "test"][:60]
    with pytest.raises(UsageError, match="own has 60 test images, but 70 are needed"):
        load()


def test_images_without_labels_are_refused(tmp_path):
    images = nrm_study.Images(np.zeros((4, 32, 32, 3), np.uint8), None)
    with pytest.raises(UsageError, match="labelled images"):
        nrm_study.trained(STUDY.recipe, images, seed=0, directory=tmp_path)


def test_stored_scores_come_back_with_the_time_they_took(tmp_path):
    first = Scores(tmp_path / "scores.npz")
    values, seconds = first.timed("a", lambda: np.arange(3))
    again, same = Scores(tmp_path / "scores.npz").timed("a", lambda: np.zeros(3))
    np.testing.assert_array_equal(values, again)
    assert seconds == same >= 0
