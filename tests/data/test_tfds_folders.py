"""Prepared TFDS folders: splits, damage, and code that is never run; and downloads."""

import dataclasses
import importlib.util
import json
import sys
from functools import partial

import numpy as np
import pytest

from jaxood import data
from jaxood.data import load, tfds_folders
from tests.data.helpers import drawings, load_labelled, noise, raises, write_tfds

refused = partial(raises, load)


def test_first_faces_of_a_prepared_folder_are_test_and_the_rest_train(rng, tmp_path, monkeypatch):
    faces = noise(rng, 5, 32, 32, 3)
    spec = dataclasses.replace(
        data.DATASETS["celeb_a"], limit=2, splits={"train": ["train[2:]"], "test": ["train"]}
    )
    write_tfds(tmp_path / "celeb_a/2.1.0", {"train": (faces, range(5))})
    assert data.DATASETS["celeb_a"].splits["train"] == ["train[10000:]"]
    monkeypatch.setitem(data.DATASETS, "celeb_a", spec)
    np.testing.assert_array_equal(load("celeb_a", "test")[0], faces[:2])
    np.testing.assert_array_equal(load("celeb_a", "train")[0], faces[2:4])


@pytest.mark.parametrize("place", [".", "tfds"])
def test_prepared_tfds_folder_without_tensorflow(rng, tmp_path, place):
    images, labels = noise(rng, 7, 28, 28, 1), np.arange(7)
    old, new = tmp_path / place / "mnist/3.0.1", tmp_path / place / "mnist/3.0.10"
    write_tfds(old, {"test": (images[:1], labels[:1])})
    write_tfds(new, {"test": (images, labels), "train": (images[:3], labels[:3])})
    np.savez(tmp_path / "mnist.npz", x_test=images[:2])  # a later source
    got, got_labels = load_labelled("mnist")
    np.testing.assert_array_equal(got, images)
    np.testing.assert_array_equal(got_labels, labels)
    assert got_labels.dtype == np.int64
    assert len(load("mnist", "train")[0]) == 3


def test_omniglot_is_bright_on_dark_and_averaged_down(rng, tmp_path):
    images = drawings(rng, 3)
    write_tfds(tmp_path / "omniglot/3.0.0", {"test": (images, [5, 6, 7])})
    got, labels = load_labelled("omniglot")
    assert got.shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(labels, [5, 6, 7])
    assert got.max() == 255 and got.min() == 0
    np.testing.assert_allclose(got.mean((1, 2, 3)), 255 * 900 / 105**2, rtol=0.15)


def test_omniglot_small_sets_stand_in_for_test_only(rng, tmp_path):
    images = drawings(rng, 5)
    small = {"small1": (images[:3], [0, 1, 2]), "small2": (images[1:], [1, 2, 3, 4])}
    write_tfds(tmp_path / "omniglot/3.0.0", small)
    got, labels = load_labelled("omniglot")
    assert len({bytes(image) for image in got}) == len(got) == 5
    np.testing.assert_array_equal(labels, range(5))
    refused("omniglot", "small1, small2", "'train'", name="omniglot", split="train")


def test_damaged_and_unsuitable_tfds_folders(rng, tmp_path):
    images = noise(rng, 3, 28, 28, 1)
    folder = tmp_path / "kmnist/3.0.1"
    write_tfds(folder, {"test": (images, [0, 1, 2])})
    record = next(folder.glob("*array_record*"))
    whole = record.read_bytes()
    for damaged in (whole[:200] + bytes(100) + whole[300:], b""):
        record.write_bytes(damaged)
        refused(folder, "damaged", "delete", name="kmnist")
    (folder / "dataset_info.json").write_text("{")
    refused(folder, "damaged", "delete", name="kmnist")

    write_tfds(tmp_path / "mnist/3.0.1", {"test": (images, [0, 1, 2])}, "tfrecord")
    refused("mnist", "array_record", "tfds convert_format", name="mnist")
    write_tfds(tmp_path / "cifar10/3.0.2", {"test": (images, [0, 1, 2])})
    refused("cifar10", "(28, 28, 3)", "(32, 32, 3)", name="cifar10")


def test_nothing_that_a_prepared_folder_names_is_imported(rng, tmp_path, monkeypatch):
    images = noise(rng, 2, 28, 28, 1)
    folder = tmp_path / "data/mnist/3.0.1"
    write_tfds(folder, {"test": (images, [3, 4])})
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass It: pass\n"
    (tmp_path / "intruder.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    features = json.loads((folder / "features.json").read_text())
    nested = features["featuresDict"]["features"]
    for feature in (features, nested["image"], nested["label"]):
        feature["pythonClassName"] = "intruder.It"
    (folder / "features.json").write_text(json.dumps(features))
    info = json.loads((folder / "dataset_info.json").read_text())
    info |= {"moduleName": "intruder", "configName": "intruder"}
    (folder / "dataset_info.json").write_text(json.dumps(info))

    got, labels = load_labelled("mnist", "test", tmp_path / "data")
    np.testing.assert_array_equal(got, images)
    np.testing.assert_array_equal(labels, [3, 4])
    assert "intruder" not in sys.modules and not (tmp_path / "ran").exists()
    from tensorflow_datasets import builder_from_directory

    with pytest.raises(
        Exception, match=r"intruder|type"
    ):  # TFDS itself imports the module that the folder names
        builder_from_directory(folder)
    assert (tmp_path / "ran").exists()
    del sys.modules["intruder"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ["damaged", "delete"]),
        ('{"fileFormat": "array_record"}', ["damaged", "splits"]),
        ('{"fileFormat": "array_record", "splits": [{"name": "../test"}]}', ["../test", "'test'"]),
        ('{"fileFormat": "array_record", "splits": [{"name": "test"}]}', ["damaged"]),
        ('{"fileFormat": 7, "splits": 7}', ["convert_format"]),
        ("[" * 100_000, ["damaged"]),
    ],
    ids=["no table", "no splits", "another folder", "no lengths", "no format", "too deep"],
)
def test_wrong_lists_of_splits(rng, tmp_path, text, words):
    folder = tmp_path / "mnist/3.0.1"
    write_tfds(folder, {"test": (noise(rng, 1, 28, 28, 1), [0])})
    (folder / "dataset_info.json").write_text(text)
    refused(folder, *words, name="mnist")


def test_missing_and_too_few_records_are_refused(rng, tmp_path):
    folder = tmp_path / "mnist/3.0.1"
    write_tfds(folder, {"test": (noise(rng, 3, 28, 28, 1), [0, 1, 2])})
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('["3"]', '["4"]'))
    refused(folder, "as many records", "delete", name="mnist")
    (folder / "dataset_info.json").write_text(info)
    shard = next(folder.glob("*array_record*"))
    shard.unlink()
    refused(shard, "cannot be opened", name="mnist")


def test_a_library_that_does_not_fit_is_not_called_damaged_data(rng, tmp_path, monkeypatch):
    folder = tmp_path / "mnist/3.0.1"
    write_tfds(folder, {"test": (noise(rng, 1, 28, 28, 1), [0])})

    def fails(*arguments):
        raise AttributeError("module has no attribute 'x'")

    monkeypatch.setattr("google.protobuf.message_factory.GetMessageClass", fails)
    tfds_folders._example_type.cache_clear()
    with pytest.raises(data.DataError, match=r"protobuf \d.* fail to be imported") as caught:
        load("mnist")
    assert "damaged" not in str(caught.value)


def test_download_prepares_as_array_record(rng, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    images = noise(rng, 2, 28, 28, 1)
    asked = []

    class Builder:
        data_path = tmp_path / "kmnist/3.0.1"

        def download_and_prepare(self):
            if asked[-1]["data_dir"] != tmp_path:
                raise ConnectionError("no\nroute")
            if not self.data_path.is_dir():
                write_tfds(self.data_path, {"test": (images, [0, 1])})

    def builder(name, **options):
        asked.append({"name": name, **options})
        return Builder()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds, "builder", builder)
    (tmp_path / "kmnist/3.0.1.incompleteABC").mkdir(
        parents=True
    )  # left over by an interrupted download
    np.testing.assert_array_equal(load("kmnist")[0], images)
    assert asked == [{"name": "kmnist", "data_dir": tmp_path, "file_format": "array_record"}]
    np.testing.assert_array_equal(load("kmnist")[0], images)
    assert len(asked) == 1  # the second time it was found on the disk
    refused(Builder.data_path, "'train'", "has test", "delete", name="kmnist", split="train")
    refused("mnist", "no route", "mnist.npz", name="mnist", data_dir=tmp_path / "other")
