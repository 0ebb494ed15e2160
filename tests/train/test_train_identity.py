"""A training is resumed with what it began with, by one process at a time, or not at all."""

import shutil
from typing import Any

import chex
import jax
import numpy as np
import pytest

from jaxood import integrity, progress, train
from tests.train.test_train import (
    ADAM,
    IMAGES,
    LOSS,
    STEPS,
    TINY,
    bar_that,
    fit_tiny,
    tiny_variables,
)


def test_two_trainings_at_once_in_one_folder_are_refused(tmp_path, monkeypatch):
    said = []

    def begin_another(done):
        if not said:
            with pytest.raises(integrity.Locked) as caught:
                fit_tiny(tmp_path)
            said.append(str(caught.value))

    monkeypatch.setattr(progress, "bar", bar_that(begin_another))
    fit_tiny(tmp_path)
    assert str(tmp_path) in said[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The keyword arguments of a training that has ended in its folder."""
    given = {
        "loss": LOSS,
        "variables": tiny_variables(),
        "data": IMAGES,
        "steps": STEPS,
        "batch_size": 8,
        "optimizer": ADAM,
        "directory": tmp_path_factory.mktemp("finished"),
        "settings": {"width": 4},
        "show_progress": False,
    }
    train.fit(**given)
    return given


def one_pixel_darker():
    images = IMAGES.copy()
    images[-1, -1, -1] -= 1
    return images


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"data": one_pixel_darker()}, "data"),
        ({"data": IMAGES[:-1]}, "data"),
        ({"data": IMAGES[::-1]}, "data"),
        ({"variables": TINY.init(jax.random.key(1), IMAGES)}, "initial values"),
        ({"seed": 1}, r"seed \(0, now 1\)"),
        ({"steps": STEPS + 1}, r"steps \(60, now 61\)"),
        ({"batch_size": 16}, "batch_size"),
        ({"average_decay": 0.5}, "average_decay"),
        ({"settings": {"width": 5}}, "width"),
        ({"settings": {"width": 4, "depth": 1}}, "depth"),
        ({"settings": None}, "width"),
    ],
)
def test_a_training_is_resumed_by_what_it_began_with_alone(finished, other, named):
    with pytest.raises(integrity.Changed, match=named) as caught:
        train.fit(**(finished | other))
    assert str(finished["directory"]) in str(caught.value)
    assert "another folder" in str(caught.value)


def test_a_training_is_resumed_where_numbers_are_rounded_otherwise(finished):
    variables = jax.tree.map(lambda a: a * (1 + 1e-4), finished["variables"])
    chex.assert_trees_all_equal(
        train.fit(**(finished | {"variables": variables})), train.fit(**finished)
    )


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[1]", '{"initial values": "a"}', '{"initial values": [0, 1]}', "\0"]
)
def test_a_training_that_nobody_knows_the_beginning_of_is_refused(finished, text):
    file = finished["directory"] / "run.json"
    content = file.read_text()
    try:
        file.unlink() if text is None else file.write_text(text)
        with pytest.raises(integrity.Damaged, match=r"run\.json.* choose another folder"):
            train.fit(**finished)
    finally:
        file.write_text(content)
    train.fit(**finished)


def test_what_an_experiment_has_trained_is_read_again_by_the_same_alone(tmp_path):
    given: dict[str, Any] = {
        "model": TINY,
        "loss": LOSS,
        "data": IMAGES,
        "steps": 20,
        "batch_size": 8,
        "optimizer": ADAM,
        "seed": 0,
        "directory": tmp_path,
        "devices": 1,
        "statistics_batch": 8,
        "settings": {"width": 4},
    }

    def run(**other):
        return train.fit_or_load(**(given | other))

    first = run()
    chex.assert_trees_all_equal(run(), first)
    for other, named in [
        ({"data": one_pixel_darker()}, "data"),
        ({"seed": 1}, "seed"),
        ({"steps": 21}, "steps"),
        ({"statistics_images": 16}, "statistics_images"),
        ({"settings": {"width": 5}}, "width"),
    ]:
        with pytest.raises(integrity.Changed, match=named):
            run(**other)
    # A process that was killed before it had written the result goes on.
    shutil.rmtree(tmp_path / "finished")
    again = run()
    chex.assert_trees_all_equal(again[:2], first[:2])
    assert np.isnan(again.seconds)
