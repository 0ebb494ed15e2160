"""Helpers of the tests of data: images of noise, files in every format, expected refusals."""

import gzip
import importlib.util
import io
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxood.data import DataError, files, load


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Uniform uint8 noise of a shape."""
    return rng.integers(0, 256, shape, dtype=np.uint8)


def drawings(rng: np.random.Generator, n: int) -> np.ndarray:
    """White paper, uint8 ``(n, 105, 105, 3)``, with one black square of 30 pixels somewhere."""
    images = np.full((n, 105, 105, 3), 255, np.uint8)
    for image, (y, x) in zip(images, rng.choice(75, (n, 2)), strict=True):
        image[y : y + 30, x : x + 30] = 0
    return images


# --------------------------------------------------------------------------------- writing files


def png(image: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """One image ``(h, w, c)``, encoded as a PNG or in another format."""
    stream = io.BytesIO()
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture.save(stream, format, **options)
    return stream.getvalue()


def write_images(
    folder: Path, images: Iterable[np.ndarray], suffix: str = ".png", **options: Any
) -> None:
    """Write images as files 000.png, 001.png, ... in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (folder / f"{i:03d}{suffix}").write_bytes(png(image, **options))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array as an idx file; it is gzipped if the name ends in ``.gz``."""
    header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
        file.write(header + array.tobytes())


def write_tfds(
    folder: Path,
    splits: Mapping[str, tuple[np.ndarray, Iterable[int]]],
    file_format: str = "array_record",
) -> None:
    """Write a prepared TFDS folder with TFDS's own serialization.

    Args:
        folder: ``<name>/<version>``.
        splits: images and labels by the name of the split.
        file_format: the format that the folder claims to have.
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets import features as kind

    folder.mkdir(parents=True)
    name = folder.parent.name
    shape = next(iter(splits.values()))[0].shape[1:]
    fields = {"image": kind.Image(shape=shape), "label": kind.ClassLabel(num_classes=2000)}
    features = kind.FeaturesDict(fields)
    features.save_config(str(folder))
    info = {"name": name, "version": folder.name, "fileFormat": file_format, "splits": []}
    for split, (images, labels) in splits.items():
        shard = folder / f"{name}-{split}.{file_format}-00000-of-00001"
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            example = {"image": io.BytesIO(png(image)), "label": int(label)}
            writer.write(features.serialize_example(features.encode_example(example)))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = {"numBytes": "1", "shardLengths": [str(len(images))]}
        info["splits"].append({"name": split, "filepathTemplate": template, **lengths})
    (folder / "dataset_info.json").write_text(json.dumps(info))


# ----------------------------------------------------------------------- loading and refusals


def read(path: Path, split: str = "test", **options: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """All images and labels of the user's own file or folder; options of `open_images`."""
    images = files.open_images(path, split, **options)
    return images.rows(0, len(images))


def load_labelled(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
    """Load a set that has labels."""
    images, labels = load(*arguments)
    assert labels is not None
    return images, labels


def raises(function: Callable[..., Any], *words: Any, **arguments: Any) -> None:
    """Assert that the function raises a `DataError` of one sentence that has all these words."""
    with pytest.raises(DataError) as caught:
        function(**arguments)
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    assert "\n" not in message
    assert not message.endswith(".")


def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide TensorFlow, so that nothing can be downloaded."""
    find = importlib.util.find_spec

    def find_spec(name: str, *arguments: Any) -> Any:
        return None if name == "tensorflow" else find(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
