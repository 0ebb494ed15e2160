"""Slices of opened images equal the slices of what `load` returns."""

import numpy as np
import pytest

from jaxood import data
from jaxood.data import DataError
from tests.data.helpers import drawings, noise, png, write_idx, write_images, write_tfds


def in_every_format(rng, folder):
    """Write seven images in each format, and return the paths, which `data.open` reads."""
    colour, gray = noise(rng, 7, 8, 6, 3), noise(rng, 7, 8, 6)
    np.save(folder / "array.npy", colour)
    np.save(folder / "fortran.npy", np.asfortranarray(colour))
    np.savez(folder / "stored.npz", x_test=colour, y_test=np.arange(7))
    np.savez_compressed(folder / "packed.npz", gray)
    write_images(folder / "flat", colour)
    write_images(folder / "classes" / "b", colour[:4])
    write_images(folder / "classes" / "a", colour[4:])
    write_idx(folder / "idx" / "t10k-images-idx3-ubyte", gray)
    write_idx(folder / "gz" / "t10k-images-idx3-ubyte.gz", gray)
    write_idx(folder / "gz" / "t10k-labels-idx1-ubyte.gz", np.arange(7, dtype=np.uint8))
    names = ("array.npy", "fortran.npy", "stored.npz", "packed.npz", "flat", "classes", "idx", "gz")
    return [folder / name for name in names]


def same_in_pieces(name, *arguments):
    """Assert that slices, forward and backward, equal those of what `load` returns."""
    whole, labels = data.load(name, *arguments)
    images = data.open(name, *arguments)
    assert images.shape == whole.shape and len(images) == len(whole)
    for size in (1, 3, len(whole)):
        starts = range(0, len(whole), size)
        pieces = [images[start : start + size] for start in starts]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        for start, piece in reversed(list(zip(starts, pieces, strict=True))):
            np.testing.assert_array_equal(images[start : start + size], piece)
    pixels, some = images.rows(2, 5)
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    np.testing.assert_array_equal(some, None if labels is None else labels[2:5])


def test_slices_of_every_format_are_what_load_gives(rng, tmp_path):
    for path in in_every_format(rng, tmp_path):
        same_in_pieces(path)
        same_in_pieces(f"{path}/rotated/contrast_0.5")


def test_slices_of_registered_sets_are_what_load_gives(rng, tmp_path):
    images, papers = noise(rng, 7, 28, 28, 1), drawings(rng, 7)
    write_tfds(tmp_path / "mnist/3.0.1", {"test": (images, range(7))})
    halves = {"small1": (papers[:4], range(4)), "small2": (papers[2:], range(2, 7))}
    write_tfds(tmp_path / "omniglot/3.0.0", halves)
    same_in_pieces("mnist/rotated_bilinear", "test", tmp_path)
    same_in_pieces("omniglot", "test", tmp_path)
    same_in_pieces("digits/scaled_0.5", "test", tmp_path)


def test_names_of_files(rng, tmp_path):
    write_images(tmp_path / "classes" / "b", noise(rng, 2, 4, 4, 3))
    write_images(tmp_path / "classes" / "a", noise(rng, 1, 4, 4, 3))
    assert data.open(tmp_path / "classes").names == ["a/000.png", "b/000.png", "b/001.png"]
    assert data.open("digits").names is None


def test_slices_must_be_plain():
    images = data.open("digits")
    for wrong in (slice(4, 4), slice(0, 4, 2), slice(10_000, None)):
        with pytest.raises(ValueError, match="start < stop"):
            images[wrong]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_shows_before_the_first_image_is_used(rng, tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, x_test=noise(rng, 400, 8, 8, 3))
    whole = bytearray(path.read_bytes())
    whole[len(whole) * 3 // 4] ^= 255
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.npz: damaged .npz file"):
        data.open(path)


def test_an_array_that_ends_too_early(rng, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, noise(rng, 20, 8, 8, 3))
    images = data.open(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"damaged .npy file .* write it again"):
        data.open(path)
    assert len(images[:19]) == 19  # the file was whole when it was opened
    with pytest.raises(DataError, match=r"damaged .npy file .*become shorter.* write it again"):
        images[:]


def test_an_image_unlike_the_first_is_refused_in_any_piece(rng, tmp_path):
    write_images(tmp_path / "set", noise(rng, 4, 8, 8, 3))
    (tmp_path / "set" / "003.png").write_bytes(png(noise(rng, 8, 9, 3)))
    images = data.open(tmp_path / "set")
    assert len(images[:3]) == 3
    with pytest.raises(DataError, match=r"003.png: this image is \(8, 9, 3\), the others are"):
        images[3:]
