"""Loading by name: embedded sets, transforms, all sources, all refusals, and real images.

The tests with real images run if the environment variable JAXOOD_DATA_DIR names a data folder.
"""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxood import data
from jaxood.data import contrast, load, registry, rotate, scale, unit_scale
from tests.data.helpers import (
    load_labelled,
    noise,
    raises,
    write_idx,
    write_images,
    write_tfds,
)

REAL = os.environ.get("JAXOOD_DATA_DIR")
real = pytest.mark.skipif(not REAL, reason="JAXOOD_DATA_DIR names no data folder")
refused = partial(raises, load)


# ----------------------------------------------------------------------------- the embedded sets


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
    for first, second in zip((images, labels), load_labelled(name, split), strict=True):
        np.testing.assert_array_equal(first, second)


def test_every_digit_is_in_one_split_and_on_the_whole_range():
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

    touched = {split: np.zeros((427, 640), bool) for split in ("train", "test")}
    for split, pixels in touched.items():
        corners = registry._corners(split)
        for y, x in corners:
            pixels[y : y + 32, x : x + 32] = True
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


def test_transforms_by_name_apply_from_left_to_right():
    plain, labels = load("digits")
    for name, expected in [
        ("rotated", rotate(plain)),
        ("scaled_0.5", scale(plain, 0.5)),
        ("unit_scaled_0.5", unit_scale(plain, 0.5)),
        ("contrast_0.25", contrast(plain, 0.25)),
        ("contrast_2/rotated/scaled_0.5", scale(rotate(contrast(plain, 2)), 0.5)),
    ]:
        images, same = load(f"digits/{name}")
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(same, labels)


def test_transforms_of_the_other_images_do_not_depend_on_a_bad_image(rng, tmp_path):
    images = noise(rng, 6, 9, 9, 3)
    write_images(tmp_path / "set", images)
    name = "set/rotated/contrast_0.5"
    whole, _ = load(name)
    opened = data.open(name)
    (tmp_path / "set" / "002.png").write_bytes(b"")
    got, bad = opened.examine(slice(1, 6))
    np.testing.assert_array_equal(got, whole[[1, 3, 4, 5]])
    assert list(bad) == [2]
    assert data.open("digits/rotated").examine(slice(0, 2))[1] == {}


@pytest.mark.parametrize("text", ["blurred", "scaled", "scaled_x", "scaled_-1", "contrast_nan", ""])
def test_unknown_transform(text):
    refused(f"{text!r}", "rotated", "scaled_<c>", "contrast_<c>", name=f"digits/{text}")


def test_files_are_found_by_path_and_by_name(rng, tmp_path):
    images = noise(rng, 4, 8, 6, 1)
    path = tmp_path / "mine.npz"
    np.savez(path, x_test=images)
    for name in (path, str(path), "mine"):
        np.testing.assert_array_equal(load(name)[0], images)
    np.testing.assert_array_equal(load(f"{path}/scaled_0.5")[0], scale(images, 0.5))
    refused(path, "'val'", name=path, split="val")


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


# ----------------------------------------------------------------------------------- the sources


def test_the_first_source_that_has_the_split_is_read(rng, tmp_path):
    images = noise(rng, 6, 28, 28, 1)
    write_tfds(tmp_path / "kmnist/3.0.1", {"test": (images[:1], [0])})
    np.savez(tmp_path / "kmnist.npz", x_test=images[:2])
    refused("'train'", "3.0.1 has test", "npz has x_test", name="kmnist", split="train")
    write_idx(tmp_path / "idx/kmnist/train-images-idx3-ubyte", images[:3, ..., 0])
    assert len(load("kmnist", "train")[0]) == 3
    np.savez(tmp_path / "idx/kmnist.npz", x_train=images[:4])
    assert len(load("kmnist", "train")[0]) == 4
    write_tfds(tmp_path / "tfds/kmnist/3.0.1", {"train": (images[:5], range(5))})
    assert len(load("kmnist", "train")[0]) == 5
    assert len(load("kmnist", "test")[0]) == 1


# ---------------------------------------------------------------------------------- the refusals


def test_the_message_of_a_missing_set_names_the_places_that_were_searched(tmp_path):
    words = ("celeb_a", tmp_path, "celeba.npz", "TensorFlow", "pip install 'jaxood[tfds]'")
    refused(*words, name="celeb_a")
    (tmp_path / "mnist").mkdir()
    refused("mnist", "searched for", name="mnist")  # an empty folder counts as none
    refused("elsewhere", "lsun/classroom", name="lsun", data_dir=tmp_path / "elsewhere")


def test_unknown_names_and_splits(tmp_path):
    refused("'cifra10'", "cifar10", "digits", tmp_path, name="cifra10")
    refused("'absent'", "digits", name="absent")
    refused("nope.npz", "no such file or folder", name=tmp_path / "absent" / "nope.npz")
    refused("'cifra10/rotated'", "cifar10", "digits", name="cifra10/rotated")
    for name in ("digits", "mnist"):
        refused(name, "'validation'", "train or test", name=name, split="validation")
    assert set(data.names()) == set(data.DATASETS)


def test_wrong_shape_for_a_registered_set(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=np.zeros((2, 32, 32), np.uint8))
    refused("mnist.npz", "(32, 32, 1)", "(28, 28, 1)", "resize", name="mnist")
    write_images(tmp_path / "kmnist", np.zeros((2, 27, 28, 1), np.uint8))
    refused("kmnist", "(27, 28, 1)", "(28, 28, 1)", "resize", name="kmnist")


def test_importing_data_imports_no_slow_library():
    slow = "{'jax', 'tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL', 'scipy'}"
    code = f"import sys, jaxood.data; sys.exit(bool({slow} & (sys.modules.keys() - before)))"
    code = f"import sys, jaxood; before = set(sys.modules); {code}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------- real data


@real
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


@real
def test_real_omniglot_strokes_are_bright_on_dark():
    images, _ = load("omniglot", data_dir=REAL)
    border = np.concatenate([images[:, 0], images[:, -1]], axis=1)
    assert border.mean() < 0.1 * 255  # paper, now dark
    assert np.median(images.max((1, 2, 3))) == 255
    assert len({bytes(image) for image in images}) == len(images)


@real
def test_real_images_agree_with_the_decoder_of_tfds():
    import tensorflow_datasets as tfds

    images, labels = load_labelled("cifar10", "test", REAL)
    folder = next(Path(str(REAL)).glob("**/cifar10/*/dataset_info.json")).parent
    builder: Any = tfds.builder_from_directory(folder)
    source = builder.as_data_source(split="test")
    for i in (0, 1, len(images) - 1):
        np.testing.assert_array_equal(images[i], source[i]["image"])
        assert labels[i] == source[i]["label"]
