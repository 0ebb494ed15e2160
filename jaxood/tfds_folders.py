"""Folders that TFDS prepared, read without TensorFlow, and its downloads, which need it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxood.image_files import decode
from jaxood.images import (
    AbsentError,
    DataError,
    Images,
    Loaded,
    MissingSplit,
    check_images,
    check_shape,
    why,
)

if TYPE_CHECKING:
    from jaxood.data import Dataset


def prepared(tfds_name: str, places: Sequence[Path]) -> Iterator[Path]:
    """The folder of the newest prepared version in each place that has one."""
    for place in places:
        folders = [info.parent for info in (place / tfds_name).glob("*/dataset_info.json")]
        versions = [folder for folder in folders if re.fullmatch(r"\d+(\.\d+)*", folder.name)]
        if versions:
            yield max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")])


def open_tfds(folder: Path, name: str, spec: Dataset, split: str) -> Images:
    """A split of a prepared folder, without TensorFlow; `name` and `spec` of a registered set."""
    import tensorflow_datasets as tfds

    with _readable(folder, name):
        builder: Any = tfds.builder_from_directory(folder)
        have = set(builder.info.splits)
        wanted = next((s for s in spec.splits[split] if set(_parts(s)) <= have), None)
        if wanted is None:
            remedy = "delete it and prepare the whole set again"
            raise MissingSplit(folder, split, have, remedy)
        skip = {"image": tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split=wanted, decoders=skip)
        n = min(len(source), spec.limit or len(source))
    labelled = "label" in builder.info.features

    def records(start: int, stop: int) -> list[Any]:
        with _readable(folder, name):
            return source.__getitems__(list(range(start, stop)))

    if "+" in wanted:  # Omniglot's small sets share drawings
        unique = list({record["image"]: record for record in records(0, n)}.values())
        n, records = len(unique), lambda start, stop: unique[start:stop]

    def rows(start: int, stop: int) -> Loaded:
        chosen = records(start, stop)
        encoded = [(f"{folder}[{wanted}]", record["image"]) for record in chosen]
        images = decode(encoded, spec.shape, spec.prepare)
        labels = np.array([record["label"] for record in chosen]) if labelled else None
        return check_images(images, labels, folder, spec.shape)

    return Images(check_shape(np.dtype(np.uint8), (n, *spec.shape), folder), rows)


@contextmanager
def _readable(folder: Path, name: str) -> Iterator[None]:
    """What TFDS raises, as a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(
            f"{folder}: {name} was not prepared as array_record; convert it with 'tfds "
            f"convert_format --dataset_version_dir={folder} --out_file_format=array_record'"
        ) from error
    except Exception as error:  # array_record raises bare RuntimeErrors, the JSON files others
        raise DataError(
            f"{folder}: damaged, or not readable as {name} ({why(error)}); delete it and "
            "prepare the set again"
        ) from error


def _parts(splits: str) -> list[str]:
    """Names in a TFDS split expression such as `small1+small2` or `train[:10000]`."""
    return [part.partition("[")[0] for part in splits.split("+")]


def download(name: str, spec: Dataset, root: Path, absent: str) -> Path:
    """Downloads and prepares a registered set under `root`, by TFDS; its folder.

    `absent` is the beginning of the message where that cannot be: why it is asked for.
    """
    remedy = f"or put {name}.npz or a folder {name} of images in {root}"
    if importlib.util.find_spec("tensorflow") is None:
        raise AbsentError(
            f"{absent}, and to download it TensorFlow is missing: pip install 'jaxood[tfds]', "
            f"{remedy}"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(spec.tfds, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # whatever the network and some thirty libraries may raise
        raise AbsentError(
            f"{absent}, and TFDS could not download it ({why(error)}); try again, {remedy}"
        ) from error
    return Path(builder.data_path)
