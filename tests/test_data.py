"""Data: embedded sets, transforms, every source, every refusal; real images where there are any.

Real-data tests run where the environment variable JAXOOD_DATA_DIR names a data folder.
"""

import dataclasses
import gzip
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxood import data
from jaxood.data import DataError, contrast, load, rotate, scale

REAL = os.environ.get("JAXOOD_DATA_DIR")


def hide_tensorflow(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *at: None if name == "tensorflow" else find(name, *at),
    )


@pytest.fixture(autouse=True)
def _nothing_outside(monkeypatch, tmp_path):
    """No folder of the machine's own, and no TensorFlow: nothing can be downloaded."""
    monkeypatch.setenv("JAXOOD_DATA_DIR", str(tmp_path))
    hide_tensorflow(monkeypatch)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noise(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def png(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        stream, options.pop("format", "PNG"), **options
    )
    return stream.getvalue()


def write_images(folder, images, suffix=".png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:03d}{suffix}").write_bytes(png(image, **options))


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(header + array.tobytes())


def write_tfds(folder, splits, file_format="array_record"):
    """A prepared TFDS folder, by TFDS's own serialization; `splits`: name -> images, labels."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True)
    name = folder.parent.name
    shape = next(iter(splits.values()))[0].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=2000),
        }
    )
    features.save_config(folder)
    info = {"name": name, "version": folder.name, "fileFormat": file_format, "splits": []}
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(
            str(folder / f"{name}-{split}.{file_format}-00000-of-00001"), "group_size:1"
        )
        for image, label in zip(images, labels, strict=True):
            example = {"image": io.BytesIO(png(image)), "label": int(label)}
            writer.write(features.serialize_example(features.encode_example(example)))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = {"numBytes": "1", "shardLengths": [str(len(images))]}
        info["splits"].append({"name": split, "filepathTemplate": template, **lengths})
    (folder / "dataset_info.json").write_text(json.dumps(info))


def load_labelled(*arguments):
    images, labels = load(*arguments)
    assert labels is not None
    return images, labels


def refused(*words, **arguments):
    """`load` refuses with one sentence that has all these words."""
    with pytest.raises(DataError) as caught:
        load(**arguments)
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    assert "\n" not in message
    assert not message.endswith(".")


# Embedded sets


@pytest.mark.parametrize(
    ("name", "split", "shape", "classes"),
    [
        ("digits", "train", (1198, 8, 8, 1), range(10)),
        ("digits", "test", (599, 8, 8, 1), range(10)),
        ("photos", "train", (2000, 32, 32, 3), (0, 1)),
        ("photos", "test", (1000, 32, 32, 3), (0, 1)),
        ("photos_china", "train", (1000, 32, 32, 3), (0,)),
        ("photos_flower", "test", (500, 32, 32, 3), (1,)),
    ],
)
def test_embedded_sets(name, split, shape, classes):
    images, labels = load_labelled(name, split)
    assert images.shape == shape == (len(labels), *data.DATASETS[name].shape)
    assert images.dtype == np.uint8
    assert images.flags.c_contiguous and images.flags.writeable
    assert labels.dtype == np.int64
    assert set(labels) == set(classes)
    again = load_labelled(name, split)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])


def test_digits_are_all_there_once_on_the_whole_range():
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    parts = [load_labelled("digits", split) for split in ("train", "test")]
    images = np.concatenate([images for images, _ in parts]).squeeze(-1)
    assert set(np.unique(images)) == {round(v * 255 / 16) for v in range(17)}
    original = np.rint(digits.images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, images)) == sorted(map(bytes, original))
    for _, labels in parts:  # no class is rare in either split
        assert np.bincount(labels).min() > 0.8 * len(labels) / 10


def test_no_pixel_of_a_photograph_is_in_both_splits():
    from sklearn.datasets import load_sample_image

    touched = {}
    for split in ("train", "test"):
        touched[split] = np.zeros((427, 640), bool)
        corners = data._corners(split)
        for y, x in corners:
            touched[split][y : y + 32, x : x + 32] = True
        for name, file in (("photos_china", "china.jpg"), ("photos_flower", "flower.jpg")):
            photo = load_sample_image(file)
            images, _ = load(name, split)
            assert len(images) == len(corners)
            for image, (y, x) in zip(images, corners, strict=True):  # these are the corners used
                np.testing.assert_array_equal(image, photo[y : y + 32, x : x + 32])
    assert touched["train"].any() and touched["test"].any()
    assert not (touched["train"] & touched["test"]).any()


def test_photos_is_china_then_flower():
    both, labels = load("photos")
    china, flower = load("photos_china")[0], load("photos_flower")[0]
    np.testing.assert_array_equal(both, np.concatenate([china, flower]))
    np.testing.assert_array_equal(labels, np.repeat([0, 1], [len(china), len(flower)]))


# Transforms


@pytest.mark.parametrize("channels", [1, 3])
def test_scale_multiplies_and_keeps_zero(channels):
    images = np.arange(256, dtype=np.uint8).repeat(channels).reshape(1, 16, 16, channels)
    np.testing.assert_array_equal(scale(images, 0.8), np.rint(images * 0.8))
    np.testing.assert_array_equal(scale(images, 1), images)
    np.testing.assert_array_equal(scale(images, 2.0), np.minimum(images.astype(int) * 2, 255))
    assert scale(images, 3.0)[images == 0].max() == 0
    assert scale(images, 0.5).dtype == np.uint8


def test_contrast_keeps_each_mean_and_scales_the_spread(rng):
    images = np.stack([noise(rng, 16, 16, 3) // 2, 127 + noise(rng, 16, 16, 3) // 2])
    half = contrast(images, 0.5)
    assert half.dtype == np.uint8
    np.testing.assert_allclose(half.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.5)
    np.testing.assert_allclose(half.std((1, 2, 3)), images.std((1, 2, 3)) / 2, rtol=0.02)
    np.testing.assert_array_equal(contrast(images, 1), images)
    assert len(np.unique(contrast(images, 0)[0])) == 1


def test_rotation_angles_lie_between_90_and_270():
    # A bright spot right of the centre: after a turn by 90 to 270 degrees it is left of it.
    images = np.zeros((500, 65, 65, 1), np.uint8)
    images[:, 30:35, 54:59] = 255
    turned = rotate(images).astype(float).squeeze(-1)
    weight = turned.sum((1, 2))
    x = (turned.sum(1) @ (np.arange(65) - 32)) / weight
    y = (turned.sum(2) @ (32 - np.arange(65))) / weight
    np.testing.assert_allclose(np.hypot(x, y), 24, atol=0.5)  # only turned, about the centre
    degrees = np.rad2deg(np.arctan2(y, x)) % 360
    assert degrees.min() > 89 and degrees.max() < 271
    counts, _ = np.histogram(degrees, 6, (90, 270))
    assert counts.min() > 500 / 6 / 2


@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_is_deterministic_and_its_own_for_each_image(rng, channels):
    images = np.repeat(noise(rng, 1, 32, 32, channels), 8, axis=0)
    turned = rotate(images)
    assert turned.shape == images.shape and turned.dtype == np.uint8
    assert len({bytes(image) for image in turned}) == 8
    np.testing.assert_array_equal(turned, rotate(images))
    np.testing.assert_array_equal(turned[:3], rotate(images[:3]))
    assert (turned != rotate(images, seed=1)).any()


def test_transforms_leave_their_argument_alone(rng):
    images = noise(rng, 4, 8, 8, 3)
    images.flags.writeable = False
    for changed in (rotate(images), scale(images, 0.5), contrast(images, 0.5)):
        assert (changed != images).any()


def test_transforms_by_name_apply_from_left_to_right():
    plain, labels = load("digits")
    for name, expected in [
        ("rotated", rotate(plain)),
        ("scaled_0.5", scale(plain, 0.5)),
        ("contrast_0.25", contrast(plain, 0.25)),
        ("contrast_2/rotated/scaled_0.5", scale(rotate(contrast(plain, 2)), 0.5)),
    ]:
        images, same = load(f"digits/{name}")
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize("text", ["blurred", "scaled", "scaled_x", "scaled_-1", "contrast_nan", ""])
def test_unknown_transform(text):
    refused(f"{text!r}", "rotated", "scaled_<c>", "contrast_<c>", name=f"digits/{text}")


@pytest.mark.parametrize("transform", [rotate, lambda x: scale(x, 0.5), lambda x: contrast(x, 1)])
def test_transforms_refuse_floats(transform):
    with pytest.raises(DataError, match="uint8"):
        transform(np.zeros((2, 8, 8, 1)))
    with pytest.raises(DataError, match="finite"):
        scale(np.zeros((2, 8, 8, 1), np.uint8), float("inf"))


# Files of one's own


def test_npz_round_trip(rng, tmp_path):
    train, test, labels = noise(rng, 5, 8, 6, 3), noise(rng, 4, 8, 6), np.arange(5, dtype=np.uint8)
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=train, y_train=labels, x_test=test)
    images, got = load_labelled(path, "train")
    np.testing.assert_array_equal(images, train)
    np.testing.assert_array_equal(got, labels)
    assert got.dtype == np.int64
    images, got = load(str(path))
    np.testing.assert_array_equal(images, test[..., None])
    assert got is None
    np.testing.assert_array_equal(load(f"{path}/scaled_0.5")[0], scale(test[..., None], 0.5))
    np.testing.assert_array_equal(load("mine")[0], images)  # found in the data folder
    refused(path, "'val'", "x_train", "x_val", name=path, split="val")


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_npz_of_one_array_is_every_split(rng, tmp_path, x, y):
    images = noise(rng, 5, 8, 8, 1)
    np.savez_compressed(tmp_path / "one.npz", **{x: images})
    np.savez_compressed(tmp_path / "two.npz", **{x: images, y: np.arange(5)})
    for split in ("train", "test"):
        np.testing.assert_array_equal(load(tmp_path / "one.npz", split)[0], images)
        np.testing.assert_array_equal(load_labelled(tmp_path / "two.npz", split)[1], np.arange(5))


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_round_trip(rng, tmp_path, channels):
    flat, train = noise(rng, 4, 8, 6, channels), noise(rng, 3, 8, 6, channels)
    write_images(tmp_path / "flat", flat)
    write_images(tmp_path / "split" / "train", train)
    write_images(tmp_path / "split" / "test", flat, ".BMP", format="BMP")
    (tmp_path / "flat" / "notes.txt").write_text("not an image")
    for name, split, expected in [
        ("flat", "train", flat),
        ("flat", "test", flat),
        ("split", "train", train),
        ("split", "test", flat),
    ]:
        images, labels = load(tmp_path / name, split)
        np.testing.assert_array_equal(images, expected)
        assert labels is None
    refused(tmp_path / "split", "'val'", "test, train", name=tmp_path / "split", split="val")


def test_sub_folders_are_classes(rng, tmp_path):
    cats, dogs = noise(rng, 2, 8, 8, 3), noise(rng, 3, 8, 8, 3)
    write_images(tmp_path / "pets" / "test" / "dog", dogs)
    write_images(tmp_path / "pets" / "test" / "cat", cats)
    images, labels = load_labelled(tmp_path / "pets")
    np.testing.assert_array_equal(images, np.concatenate([cats, dogs]))
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 1])
    write_images(tmp_path / "pets" / "test", cats)
    refused(tmp_path / "pets" / "test", "sub-folders", "move", name=tmp_path / "pets")


def test_other_modes_become_rgb(rng, tmp_path):
    pixels = noise(rng, 1, 8, 8, 3)[0]
    image = Image.fromarray(pixels)
    for mode in ("RGBA", "P", "CMYK"):
        folder = tmp_path / mode
        folder.mkdir()
        image.convert(mode).save(folder / ("a.jpg" if mode == "CMYK" else "a.png"))
        assert load(folder)[0].shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(load(tmp_path / "RGBA")[0][0], pixels)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx_round_trip(rng, tmp_path, suffix):
    images, labels = noise(rng, 6, 9, 7), np.arange(6, dtype=np.uint8)
    write_idx(tmp_path / f"set/train-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / f"set/train-labels-idx1-ubyte{suffix}", labels)
    write_idx(tmp_path / f"set/t10k-images-idx3-ubyte{suffix}", images[:2])
    got, got_labels = load_labelled(tmp_path / "set", "train")
    np.testing.assert_array_equal(got, images[..., None])
    np.testing.assert_array_equal(got_labels, labels)
    assert got.flags.writeable and got_labels.dtype == np.int64
    got, got_labels = load("set", "test")
    np.testing.assert_array_equal(got, images[:2, ..., None])
    assert got_labels is None


@pytest.mark.parametrize("place", [".", "arrays"])
def test_registered_sets_from_own_files(rng, tmp_path, place):
    faces, shirts = noise(rng, 3, 32, 32, 3), noise(rng, 2, 28, 28)
    (tmp_path / place).mkdir(exist_ok=True)
    np.savez(tmp_path / place / "celeba.npz", x_test=faces)
    write_idx(tmp_path / place / "fashion_mnist/t10k-images-idx3-ubyte.gz", shirts)
    got, _ = load("celeb_a/scaled_0.8", data_dir=tmp_path)
    np.testing.assert_array_equal(got, scale(faces, 0.8))
    np.testing.assert_array_equal(load("fashion_mnist")[0], shirts[..., None])


def test_faces_of_any_size_are_cropped_to_the_centre_and_limited(tmp_path, monkeypatch):
    face = np.zeros((218, 178, 3), np.uint8)
    face[20:198, :, 0] = 200  # exactly the centre square
    write_images(tmp_path / "celeb_a", [face, face])
    images, _ = load("celeb_a")
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(images[0], np.full((32, 32, 3), (200, 0, 0)))
    spec = data.DATASETS["celeb_a"]
    assert spec.limit == 10_000
    monkeypatch.setitem(data.DATASETS, "celeb_a", dataclasses.replace(spec, limit=1))
    assert len(load("celeb_a")[0]) == 1


# Prepared TFDS folders


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
    np.savez(tmp_path / "mnist.npz", x_test=images[:2])  # comes after
    got, got_labels = load_labelled("mnist")
    np.testing.assert_array_equal(got, images)
    np.testing.assert_array_equal(got_labels, labels)
    assert got_labels.dtype == np.int64
    assert len(load("mnist", "train")[0]) == 3


def drawings(rng, n):
    """White paper with one black square of 30 pixels, somewhere."""
    images = np.full((n, 105, 105, 3), 255, np.uint8)
    for image, (y, x) in zip(images, rng.choice(75, (n, 2)), strict=True):
        image[y : y + 30, x : x + 30] = 0
    return images


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
    refused("omniglot", "small1, small2", "'train'", "prepare", name="omniglot", split="train")


def test_damaged_and_unsuitable_tfds_folders(rng, tmp_path):
    images = noise(rng, 3, 28, 28, 1)
    folder = tmp_path / "kmnist/3.0.1"
    write_tfds(folder, {"test": (images, [0, 1, 2])})
    refused(folder, "'train'", "test", "prepare", name="kmnist", split="train")

    record = next(folder.glob("*array_record*"))
    whole = record.read_bytes()
    record.write_bytes(whole[:200] + bytes(100) + whole[300:])
    refused(folder, "damaged", "delete", name="kmnist")
    record.write_bytes(b"")
    refused(folder, "damaged", "delete", name="kmnist")
    (folder / "dataset_info.json").write_text("{")
    refused(folder, "damaged", "delete", name="kmnist")

    write_tfds(tmp_path / "mnist/3.0.1", {"test": (images, [0, 1, 2])}, "tfrecord")
    refused("mnist", "array_record", "tfds convert_format", name="mnist")
    write_tfds(tmp_path / "cifar10/3.0.2", {"test": (images, [0, 1, 2])})
    refused("cifar10", "(28, 28, 3)", "(32, 32, 3)", name="cifar10")


def test_download_prepares_as_array_record(rng, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    images = noise(rng, 2, 28, 28, 1)
    asked = []

    class Builder:
        data_path = tmp_path / "kmnist/3.0.1"

        def download_and_prepare(self):
            if asked[-1]["data_dir"] != tmp_path:
                raise ConnectionError("no\nroute")
            write_tfds(self.data_path, {"test": (images, [0, 1])})

    def builder(name, **options):
        asked.append({"name": name, **options})
        return Builder()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds, "builder", builder)
    broken_off = tmp_path / "kmnist/3.0.1.incompleteABC"  # as TFDS leaves it
    broken_off.mkdir(parents=True)
    np.testing.assert_array_equal(load("kmnist")[0], images)
    assert asked == [{"name": "kmnist", "data_dir": tmp_path, "file_format": "array_record"}]
    np.testing.assert_array_equal(load("kmnist")[0], images)
    assert len(asked) == 1  # the second time it is there
    refused("mnist", "no route", "mnist.npz", name="mnist", data_dir=tmp_path / "other")


# Refusals


def test_a_set_that_cannot_be_had_says_where_it_was_looked_for(tmp_path):
    words = ("celeb_a", tmp_path, "celeba.npz", "TensorFlow", "pip install 'jaxood[tfds]'")
    refused(*words, name="celeb_a")
    refused("elsewhere", "lsun/classroom", name="lsun", data_dir=tmp_path / "elsewhere")


def test_unknown_names_and_splits(tmp_path):
    refused("'cifra10'", "cifar10", "digits", tmp_path, name="cifra10")
    refused("'absent'", "digits", name="absent")
    refused("nope.npz", "no such file or folder", name=tmp_path / "absent" / "nope.npz")
    refused("'cifra10/rotated'", "cifar10", "digits", name="cifra10/rotated")
    for name in ("digits", "mnist"):
        refused(name, "'validation'", "train or test", name=name, split="validation")
    assert set(data.names()) == set(data.DATASETS)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_test": np.zeros((2, 8, 8, 3), np.float32)}, ["float32", "astype(numpy.uint8)"]),
        ({"x_test": np.full((2, 8, 8, 3), np.nan)}, ["NaN", "astype(numpy.uint8)"]),
        ({"x_test": np.zeros((2, 8, 8, 3), np.int64)}, ["int64", "astype(numpy.uint8)"]),
        ({"x_test": np.zeros((2, 8, 8, 2), np.uint8)}, ["(2, 8, 8, 2)", "1 or 3 channels"]),
        ({"x_test": np.zeros((2, 3, 8, 8), np.uint8)}, ["(2, 3, 8, 8)", "channels last"]),
        ({"x_test": np.zeros(8, np.uint8)}, ["(8,)", "(n, h, w, c)"]),
        ({"x_test": np.zeros((0, 8, 8, 3), np.uint8)}, ["no images"]),
        ({"pictures": np.zeros((2, 8, 8, 3), np.uint8)}, ["pictures", "x_test"]),
        ({}, ["nothing", "x_test"]),
    ],
)
def test_wrong_arrays(tmp_path, arrays, words):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    refused(path, *words, name=path)


@pytest.mark.parametrize("labels", [np.arange(3), np.zeros(2), np.zeros((2, 1), int)])
def test_wrong_labels(tmp_path, labels):
    path = tmp_path / "wrong.npz"
    np.savez(path, x_test=np.zeros((2, 8, 8, 1), np.uint8), y_test=labels)
    refused(path, "labels", str(labels.shape), "2 images", name=path)


def test_wrong_shape_for_a_registered_set(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=np.zeros((2, 32, 32), np.uint8))
    refused("mnist.npz", "(32, 32, 1)", "(28, 28, 1)", "resize", name="mnist")
    write_images(tmp_path / "kmnist", np.zeros((2, 27, 28, 1), np.uint8))
    refused("kmnist", "(27, 28, 1)", "(28, 28, 1)", "resize", name="kmnist")


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_never_opened(tmp_path):
    mark = tmp_path / "ran"
    path = tmp_path / "objects.npz"
    array = np.array([Bomb(mark)], dtype=object)
    np.savez(path, x_test=array)
    refused(path, "pickled", "numpy.savez", name=path)
    bare = tmp_path / "bare.npz"
    with bare.open("wb") as file:
        np.save(file, array)
    refused(bare, "numpy.savez", name=bare)
    assert not mark.exists()
    with np.load(path, allow_pickle=True) as arrays:  # the mark does show an unpickling
        arrays["x_test"]
    assert mark.exists()


def test_damaged_files(rng, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_test=noise(rng, 20, 8, 8, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    refused(path, "whole .npz", "write it", name=path)
    path.write_bytes(whole[:1000] + bytes(50) + whole[1050:])
    refused(path, "damaged", "write it again", name=path)

    idx = tmp_path / "set" / "t10k-images-idx3-ubyte.gz"
    write_idx(idx, noise(rng, 20, 8, 8))
    whole = idx.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not gzip", gzip.compress(b"not idx at all"), b""):
        idx.write_bytes(damaged)
        refused(idx, "damaged", "get it again", name=tmp_path / "set")
    idx.write_bytes(gzip.compress(struct.pack(">BBBBiii", 0, 0, 8, 3, 2, 8, 8) + bytes(100)))
    refused(idx, "damaged", name=tmp_path / "set")

    text = tmp_path / "images.txt"
    text.write_text("x")
    refused(text, ".npz", name=text)


def test_damaged_images(rng, tmp_path):
    images = noise(rng, 3, 16, 16, 3)
    write_images(tmp_path / "set", images)
    first, second = tmp_path / "set" / "000.png", tmp_path / "set" / "001.png"
    whole = second.read_bytes()
    for damaged in (whole[:100], b"", b"GIF89a"):
        second.write_bytes(damaged)
        refused(second, "not a readable image", "remove", name=tmp_path / "set")
    second.write_bytes(png(images[1][:8]))
    refused(second, "(8, 16, 3)", "(16, 16, 3)", "one size", name=tmp_path / "set")
    second.write_bytes(png(images[1][..., :1]))
    refused(second, "(16, 16)", "one mode", name=tmp_path / "set")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(first)
    refused(first, "uint16", "8 bits", name=tmp_path / "set")


def test_empty_folders(tmp_path):
    (tmp_path / "empty" / "test").mkdir(parents=True)
    refused(tmp_path / "empty" / "test", "no images", ".png", name=tmp_path / "empty")
    (tmp_path / "mnist").mkdir()
    refused("mnist", "looked for", name="mnist")  # as if the folder were not there


def test_importing_data_imports_nothing_slow():
    slow = "{'jax', 'tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL', 'scipy'}"
    code = f"import sys, jaxood.data; sys.exit(bool({slow} & (sys.modules.keys() - before)))"
    code = f"import sys, jaxood; before = set(sys.modules); {code}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Real data


@pytest.mark.skipif(not REAL, reason="JAXOOD_DATA_DIR names no data folder")
@pytest.mark.parametrize(
    ("name", "split", "at_least", "classes", "mean"),
    [
        ("fashion_mnist", "train", 60_000, 10, (0.285, 0.287)),
        ("fashion_mnist", "test", 10_000, 10, (0.285, 0.288)),
        ("mnist", "train", 10_000, 10, (0.12, 0.14)),
        ("mnist", "test", 5_000, 10, (0.12, 0.14)),
        ("kmnist", "test", 5_000, 10, (0.17, 0.20)),
        ("omniglot", "test", 4_000, 100, (0.04, 0.3)),
        ("cifar10", "train", 20_000, 10, (0.46, 0.49)),
        ("cifar10", "test", 10_000, 10, (0.46, 0.49)),
        ("cifar100", "test", 4_000, 100, (0.46, 0.50)),
        ("svhn_cropped", "test", 8_000, 10, (0.43, 0.48)),
        ("celeb_a", "test", 2_000, None, (0.40, 0.48)),
        ("celeb_a/scaled_0.8", "test", 2_000, None, (0.32, 0.39)),
    ],
)
def test_real_sets(name, split, at_least, classes, mean):
    images, labels = load(name, split, REAL)
    assert images.shape[1:] == data.DATASETS[name.partition("/")[0]].shape
    assert images.dtype == np.uint8 and images.flags.c_contiguous
    assert len(images) >= at_least
    assert mean[0] < images.mean() / 255 < mean[1]
    if classes is None:
        assert labels is None
    else:
        assert labels is not None and labels.shape == (len(images),)
        assert len(set(labels)) >= classes


@pytest.mark.skipif(not REAL, reason="JAXOOD_DATA_DIR names no data folder")
def test_real_omniglot_strokes_are_bright_on_dark():
    images, _ = load("omniglot", data_dir=REAL)
    border = np.concatenate([images[:, 0], images[:, -1]], axis=1)
    assert border.mean() < 0.1 * 255  # paper, now dark
    assert np.median(images.max((1, 2, 3))) == 255
    assert len({bytes(image) for image in images}) == len(images)


@pytest.mark.skipif(not REAL, reason="JAXOOD_DATA_DIR names no data folder")
def test_real_images_agree_with_the_decoder_of_tfds():
    import tensorflow_datasets as tfds

    images, labels = load_labelled("cifar10", "test", REAL)
    folder = next(Path(str(REAL)).glob("**/cifar10/*/dataset_info.json")).parent
    builder: Any = tfds.builder_from_directory(folder)
    source = builder.as_data_source(split="test")
    for i in (0, 1, len(images) - 1):
        np.testing.assert_array_equal(images[i], source[i]["image"])
        assert labels[i] == source[i]["label"]
