"""Names of data sets: the set or path that they begin with, and the transforms behind it."""

from __future__ import annotations

from collections.abc import Callable

from jaxood.data.registry import DATASETS
from jaxood.data.transforms import by_name

_TITLES = {"imagenet": "ImageNet", "svhn": "SVHN", "tiny_imagenet32": "Tiny-ImageNet"}
"""Titles of sets that are not registered, which users keep in files of these names."""


def split_name(name: str, known: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Split a name such as ``cifar10/rotated/scaled_0.8`` into the set and its transforms.

    Args:
        name: the name.
        known: tells whether a text is a set or path without transforms.

    Returns:
        The longest beginning of the name that is known, or its first part if none is, and the
        parts behind it.
    """
    base, transforms = name, []
    while not known(base):
        rest, _, last = base.rpartition("/")
        if not rest:
            break
        base = rest
        transforms.insert(0, last)
    return base, transforms


def title(name: str) -> str:
    """Write the name of a data set as a person does: ``celeb_a/scaled_0.8`` as ``CelebA × 0.8``.

    Args:
        name: a name that `load` takes; a note in brackets may follow, as in
            ``cifar10/rotated (control)``.

    Returns:
        The title of the set, then those of its transforms, then the note. In the name of a set
        without a title, underscores become spaces; a path stays as it is.
    """

    def known(text: str) -> bool:
        return text in DATASETS or not by_name(text.rpartition("/")[2])

    name, bracket, note = name.partition(" (")
    base, transforms = split_name(name, known)
    if base in DATASETS and DATASETS[base].title:
        text = DATASETS[base].title
    else:
        text = base if "/" in base else _TITLES.get(base, base.replace("_", " ").strip())
    titles = [transform.title for part in transforms if (transform := by_name(part))]
    return "".join([text, *titles, bracket, note])
