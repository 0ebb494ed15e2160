"""Titles of data sets: `load` and `title` read the same names in the same way."""

import pytest

from jaxood import data
from jaxood.data.naming import split_name


def test_every_registered_set_of_the_literature_has_a_title():
    for name, dataset in data.DATASETS.items():
        assert bool(dataset.title) == bool(dataset.tfds), name
        assert data.title(name) == (dataset.title or name.replace("_", " "))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("cifar10/rotated", "CIFAR-10, rotated"),
        ("celeb_a/scaled_0.8", "CelebA × 0.8"),
        ("celeb_a/unit_scaled_.8", "CelebA × .8 in [−1, 1]"),
        ("digits/contrast_2/rotated_bilinear", "digits, contrast × 2, rotated bilinear"),
        ("lsun/scaled_1e-1 (control)", "LSUN × 1e-1 (control)"),
        ("/data/mine/rotated", "/data/mine, rotated"),
        ("mnist/scaled_-1", "mnist/scaled_-1"),
        ("mnist/scaled_inf", "mnist/scaled_inf"),
    ],
)
def test_a_title_names_the_set_then_its_transforms(name, title):
    assert data.title(name) == title


def test_the_longest_known_beginning_of_a_name_is_the_set():
    known = {"a", "a/b", "/x/y"}.__contains__
    assert split_name("a/b/c/d", known) == ("a/b", ["c", "d"])
    assert split_name("a/c", known) == ("a", ["c"])
    assert split_name("/x/y/z", known) == ("/x/y", ["z"])
    assert split_name("other/c", known) == ("other", ["c"])
    assert split_name("/other/c", known) == ("/other", ["c"])
