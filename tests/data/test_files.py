"""The user's own files: all formats and all refusals."""

import gzip
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxood.data import files
from jaxood.data.files import DataError
from tests.data.helpers import noise, png, raises, read, write_idx, write_images


def read_labelled(*arguments):
    images, labels = read(*arguments)
    assert labels is not None
    return images, labels


refused = partial(raises, read)


def test_npz_round_trip(rng, tmp_path):
    train, test, labels = noise(rng, 5, 8, 6, 3), noise(rng, 4, 8, 6), np.arange(5, dtype=np.uint8)
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=train, y_train=labels, x_test=test)
    images, got = read_labelled(path, "train")
    np.testing.assert_array_equal(images, train)
    np.testing.assert_array_equal(got, labels)
    assert got.dtype == np.int64
    images, got = read(path)
    np.testing.assert_array_equal(images, test[..., None])
    assert got is None
    refused(path, "'val'", "x_train", "x_val", path=path, split="val")


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_npz_of_one_array_is_every_split(rng, tmp_path, x, y):
    images = noise(rng, 5, 8, 8, 1)
    arrays: dict[str, Any] = {x: images, y: np.arange(5)}
    np.savez_compressed(tmp_path / "one.npz", **{x: arrays[x]})
    np.savez_compressed(tmp_path / "two.npz", **arrays)
    for split in ("train", "test"):
        np.testing.assert_array_equal(read(tmp_path / "one.npz", split)[0], images)
        np.testing.assert_array_equal(read_labelled(tmp_path / "two.npz", split)[1], np.arange(5))


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
        images, labels = read(tmp_path / name, split)
        np.testing.assert_array_equal(images, expected)
        assert labels is None
    refused(tmp_path / "split", "'val'", "test, train", path=tmp_path / "split", split="val")


def test_an_empty_folder_of_a_split_is_a_missing_split(rng, tmp_path):
    write_images(tmp_path / "set" / "train", noise(rng, 1, 8, 8, 3))
    (tmp_path / "set" / "test").mkdir()
    with pytest.raises(files.MissingSplit, match="has train, but no images for the split 'test'"):
        read(tmp_path / "set")
    assert files.holds_images(tmp_path / "set")


def test_images_are_prepared_to_a_shape_and_limited(rng, tmp_path):
    write_images(tmp_path / "set", noise(rng, 3, 16, 16, 3))
    how = {"shape": (8, 8, 1), "prepare": lambda image, size: image.resize(size)}
    assert read(tmp_path / "set", limit=2, **how)[0].shape == (2, 8, 8, 1)
    refused("(16, 16, 3)", "(8, 8, 3)", "resize", path=tmp_path / "set", shape=(8, 8, 3))


def test_arrays_are_limited(rng, tmp_path):
    images = noise(rng, 5, 8, 8, 1)
    for name, array in {"c.npy": images, "fortran.npy": np.asfortranarray(images)}.items():
        np.save(tmp_path / name, array)
        np.testing.assert_array_equal(read(tmp_path / name, limit=2)[0], images[:2])
        assert len(read(tmp_path / name, limit=9)[0]) == 5


def test_sub_folders_are_classes(rng, tmp_path):
    cats, dogs = noise(rng, 2, 8, 8, 3), noise(rng, 3, 8, 8, 3)
    write_images(tmp_path / "pets" / "test" / "dog", dogs)
    write_images(tmp_path / "pets" / "test" / "cat", cats)
    images, labels = read_labelled(tmp_path / "pets")
    np.testing.assert_array_equal(images, np.concatenate([cats, dogs]))
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 1])
    write_images(tmp_path / "pets" / "test", cats)
    refused(tmp_path / "pets" / "test", "sub-folders", "move", path=tmp_path / "pets")


def test_other_modes_become_rgb(rng, tmp_path):
    pixels = noise(rng, 1, 8, 8, 3)[0]
    image = Image.fromarray(pixels)
    for mode in ("RGBA", "P", "CMYK"):
        folder = tmp_path / mode
        folder.mkdir()
        image.convert(mode).save(folder / ("a.jpg" if mode == "CMYK" else "a.png"))
        assert read(folder)[0].shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(read(tmp_path / "RGBA")[0][0], pixels)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx_round_trip(rng, tmp_path, suffix):
    images, labels = noise(rng, 6, 9, 7), np.arange(6, dtype=np.uint8)
    write_idx(tmp_path / f"set/train-images-idx3-ubyte{suffix}", images)
    write_idx(tmp_path / f"set/train-labels-idx1-ubyte{suffix}", labels)
    write_idx(tmp_path / f"set/t10k-images-idx3-ubyte{suffix}", images[:2])
    got, got_labels = read_labelled(tmp_path / "set", "train")
    np.testing.assert_array_equal(got, images[..., None])
    np.testing.assert_array_equal(got_labels, labels)
    assert got.flags.writeable and got_labels.dtype == np.int64
    got, got_labels = read(tmp_path / "set", "test")
    np.testing.assert_array_equal(got, images[:2, ..., None])
    assert got_labels is None
    with pytest.raises(files.MissingSplit, match=f"train-images.*'val'.*{tmp_path / 'set'}"):
        read(tmp_path / "set", "val")


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
    refused(path, *words, path=path)


@pytest.mark.parametrize("labels", [np.arange(3), np.zeros(2), np.zeros((2, 1), int)])
def test_wrong_labels(tmp_path, labels):
    path = tmp_path / "wrong.npz"
    np.savez(path, x_test=np.zeros((2, 8, 8, 1), np.uint8), y_test=labels)
    refused(path, "labels", str(labels.shape), "2 images", path=path)


class Bomb:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_never_opened(tmp_path):
    mark = tmp_path / "ran"
    path = tmp_path / "objects.npz"
    array = np.array([Bomb(mark)], dtype=object)
    np.savez(path, x_test=array)
    refused(path, "pickled", "numpy.savez", path=path)
    bare = tmp_path / "bare.npz"
    with bare.open("wb") as file:
        np.save(file, array)
    refused(bare, "numpy.savez", path=bare)
    assert b"touch" in path.read_bytes()  # the code that would run is in the file
    assert not mark.exists()


def test_damaged_files(rng, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x_test=noise(rng, 20, 8, 8, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    refused(path, "whole .npz", "write it", path=path)
    path.write_bytes(whole[:1000] + bytes(50) + whole[1050:])
    refused(path, "damaged", "write it again", path=path)

    idx = tmp_path / "set" / "t10k-images-idx3-ubyte.gz"
    write_idx(idx, noise(rng, 20, 8, 8))
    whole = idx.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not gzip", gzip.compress(b"not idx at all"), b""):
        idx.write_bytes(damaged)
        refused(idx, "damaged", "get it again", path=tmp_path / "set")
    idx.write_bytes(gzip.compress(struct.pack(">BBBBiii", 0, 0, 8, 3, 2, 8, 8) + bytes(100)))
    refused(idx, "damaged", path=tmp_path / "set")

    text = tmp_path / "images.txt"
    text.write_text("x")
    refused(text, ".npz", path=text)


def test_damaged_images(rng, tmp_path):
    images = noise(rng, 3, 16, 16, 3)
    write_images(tmp_path / "set", images)
    first, second = tmp_path / "set" / "000.png", tmp_path / "set" / "001.png"
    whole = second.read_bytes()
    for damaged in (whole[:100], b"", b"GIF89a"):
        second.write_bytes(damaged)
        refused(second, "not a readable image", "remove", path=tmp_path / "set")
    second.write_bytes(png(images[1][:8]))
    refused(second, "(8, 16, 3)", "(16, 16, 3)", "one size", path=tmp_path / "set")
    second.write_bytes(png(images[1][..., :1]))
    refused(second, "(16, 16)", "one mode", path=tmp_path / "set")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(first)
    refused(first, "16 bits", "8 bits", path=tmp_path / "set")


def test_empty_folders(tmp_path):
    (tmp_path / "empty" / "test").mkdir(parents=True)
    refused(tmp_path / "empty" / "test", "no images", ".png", path=tmp_path / "empty")
    assert not files.holds_images(tmp_path / "empty")


def test_single_bad_images_are_left_out_with_the_reason(rng, tmp_path):
    images = noise(rng, 8, 8, 8, 3)
    write_images(tmp_path, images)
    (tmp_path / "000.png").write_bytes(b"")
    (tmp_path / "002.png").write_bytes(png(images[2][:4]))
    (tmp_path / "005.png").write_bytes(png(images[5])[:-20])
    opened = files.open_images(tmp_path, "test")
    (tmp_path / "006.png").unlink()
    got, bad = opened.examine(slice(0, 8))
    np.testing.assert_array_equal(got, images[[1, 3, 4, 7]])
    assert list(bad) == [0, 2, 5, 6]
    for index, word in [(0, "readable"), (2, "(4, 8, 3)"), (5, "readable"), (6, "opened")]:
        assert str(tmp_path / f"{index:03d}.png") in bad[index] and word in bad[index]
    assert opened.examine(slice(5, 7))[0].shape == (0, 8, 8, 3)
    np.testing.assert_array_equal(opened.examine(slice(3, 5))[0], images[3:5])
    with pytest.raises(DataError, match=r"002\.png"):
        opened[1:6]
    with pytest.raises(ValueError, match="start < stop"):
        opened.examine(slice(3, 3))


def test_a_first_image_of_another_size_does_not_decide_the_size_of_the_set(rng, tmp_path):
    images = noise(rng, 4, 8, 8, 3)
    write_images(tmp_path, images)
    (tmp_path / "000.png").write_bytes(png(images[0][:4]))
    (tmp_path / "001.png").write_bytes(b"")
    got, bad = files.open_images(tmp_path, "test").examine(slice(0, 4))
    np.testing.assert_array_equal(got, images[2:])
    assert list(bad) == [0, 1] and "(4, 8, 3), the others are (8, 8, 3)" in bad[0]


def test_files_that_are_not_read_are_listed_as_skipped(rng, tmp_path):
    write_images(tmp_path / "flat", noise(rng, 2, 8, 8, 1))
    write_images(tmp_path / "classes" / "cat", noise(rng, 2, 8, 8, 1), ".PnG")
    for folder in (tmp_path / "flat", tmp_path / "classes" / "cat"):
        for name in ("b.gif", "a.tiff", "none", ".DS_Store", "._000.png", "Thumbs.db"):
            (folder / name).touch()
    (tmp_path / "classes" / "cat" / "deeper").mkdir()
    (tmp_path / "classes" / "notes.txt").touch()
    assert files.open_images(tmp_path / "flat", "test").skipped == ["a.tiff", "b.gif", "none"]
    classes = files.open_images(tmp_path / "classes", "test")
    assert classes.names == ["cat/000.PnG", "cat/001.PnG"]
    others = ["cat/a.tiff", "cat/b.gif", "cat/none"]
    assert classes.skipped == ["notes.txt", *others, "cat/deeper/"]
