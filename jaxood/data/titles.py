"""Names of data sets as a person writes them."""

from __future__ import annotations

_TITLES = {
    "celeb_a": "CelebA",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "downsampled_imagenet": "ImageNet 32×32",
    "fashion_mnist": "Fashion-MNIST",
    "imagenet": "ImageNet",
    "kmnist": "KMNIST",
    "lsun": "LSUN",
    "mnist": "MNIST",
    "omniglot": "Omniglot",
    "svhn": "SVHN",
    "svhn_cropped": "SVHN",
    "tiny_imagenet32": "Tiny-ImageNet",
}
_ROTATED = {"rotated": ", rotated", "rotated_bilinear": ", rotated bilinear"}
_FACTORS = {"scaled": " × {}", "unit_scaled": " × {} in [−1, 1]", "contrast": ", contrast × {}"}


def title(name: str) -> str:
    """Write the name of a data set as a person does: ``celeb_a/scaled_0.8`` as ``CelebA × 0.8``.

    Args:
        name: a name that `load` takes, with its transforms; a note in brackets may follow, as in
            ``cifar10/rotated (control)``.

    Returns:
        The title of the set, then those of its transforms, then the note. A set without a title
        loses its underscores; a path stays as it is.
    """
    base, bracket, note = name.partition(" (")
    transforms = []
    while "/" in base:
        rest, _, last = base.rpartition("/")
        words = _transform(last)
        if words is None:
            break
        base = rest
        transforms.insert(0, words)
    text = base if "/" in base else _TITLES.get(base, base.replace("_", " ").strip())
    return "".join([text, *transforms, bracket, note])


def _transform(text: str) -> str | None:
    kind, _, factor = text.rpartition("_")
    if kind in _FACTORS and factor.replace(".", "", 1).isdecimal():
        return _FACTORS[kind].format(factor)
    return _ROTATED.get(text)
