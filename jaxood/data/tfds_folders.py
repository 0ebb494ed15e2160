"""Folders that TFDS prepared, read without TFDS or TensorFlow; and downloads, which need both.

Only the list of splits and the records of a prepared folder are read, as plain data. TFDS itself
would import classes by the names in the folder's ``features.json``, and so could run the code of
whoever wrote that file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxood.data.image_files import decode
from jaxood.data.images import (
    AbsentError,
    DataError,
    Images,
    Loaded,
    MissingSplit,
    check_images,
    check_shape,
    open_regular,
    why,
)

if TYPE_CHECKING:
    from jaxood.data.registry import Dataset

_MOST_INFO = 2**26
"""Largest size of a ``dataset_info.json`` in bytes; those of TFDS have some thousands."""


def prepared(tfds_name: str, places: Sequence[Path]) -> Iterator[Path]:
    """Find the folder of the newest prepared version in each place that has one."""
    for place in places:
        folders = [info.parent for info in (place / tfds_name).glob("*/dataset_info.json")]
        versions = [folder for folder in folders if re.fullmatch(r"\d+(\.\d+)*", folder.name)]
        if versions:
            yield max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")])


def open_tfds(folder: Path, name: str, spec: Dataset, split: str) -> Images:
    """Open a split of a prepared folder.

    Args:
        folder: the folder, as `prepared` finds it.
        name: name of the registered set.
        spec: description of the registered set.
        split: "train" or "test".

    Raises:
        MissingSplit: if the folder has only other splits.
        DataError: if the folder is damaged, in another format, or holds other images; or if a
            library that reads it cannot be imported.
    """
    with _readable(folder, name):
        lengths = _split_lengths(folder, name)
    wanted = next((s for s in spec.splits[split] if {p for p, _ in _parts(s)} <= {*lengths}), None)
    if wanted is None:
        raise MissingSplit(folder, split, lengths, "delete it and prepare the whole set again")

    parts = _parts(wanted)
    first = parts[0][1]
    shards = [shard for part, _ in parts for shard in _shards(folder, spec, part, lengths)]
    array_record, example = _libraries(folder)
    with _readable(folder, name):
        source = array_record.ArrayRecordDataSource([str(shard) for shard in shards])
        if len(source) != sum(sum(lengths[part]) for part, _ in parts):
            raise ValueError("there are not as many records as dataset_info.json claims")
        n = min(len(source) - first, spec.limit or len(source))
        labelled = n > 0 and "label" in _fields(example, source[first])

    def records(start: int, stop: int) -> list[tuple[bytes, int]]:
        """Read encoded images and labels; the labels are 0 if the set has none."""
        with _readable(folder, name):
            encoded = source.__getitems__(range(first + start, first + stop))
            found = [_fields(example, record) for record in encoded]
            images = [fields["image"].bytes_list.value[0] for fields in found]
            labels = [fields["label"].int64_list.value[0] if labelled else 0 for fields in found]
        return list(zip(images, labels, strict=True))

    if len(parts) > 1:  # Omniglot's small sets have drawings in common
        unique = list({image: (image, label) for image, label in records(0, n)}.values())
        n, records = len(unique), lambda start, stop: unique[start:stop]

    def rows(start: int, stop: int) -> Loaded:
        chosen = records(start, stop)
        encoded = [(f"{folder}[{wanted}]", image) for image, _ in chosen]
        images = decode(encoded, spec.shape, spec.prepare)
        labels = np.array([label for _, label in chosen]) if labelled else None
        return check_images(images, labels, folder, spec.shape)

    return Images(check_shape(np.dtype(np.uint8), (n, *spec.shape), folder), rows)


def _split_lengths(folder: Path, name: str) -> dict[str, list[int]]:
    """Read the number of records of each shard, for each split."""
    with open_regular(folder / "dataset_info.json") as file:
        text = file.read(_MOST_INFO + 1)
    if len(text) > _MOST_INFO:
        raise ValueError(f"its dataset_info.json has more than {_MOST_INFO} bytes")
    info = json.loads(text)
    if "array_record" not in (info.get("fileFormat"), *info.get("alternativeFileFormats", [])):
        raise DataError(
            f"{folder}: {name} was not prepared as array_record; convert it with 'tfds "
            f"convert_format --dataset_version_dir={folder} --out_file_format=array_record'"
        )
    return {
        split["name"]: [int(length) for length in split.get("shardLengths", [])]
        for split in info["splits"]
    }


def _parts(splits: str) -> list[tuple[str, int]]:
    """Parse ``train[10000:]`` or ``small1+small2`` into names and numbers of images to skip."""
    parts = (re.fullmatch(r"(\w+)(?:\[(\d+):\])?", part) for part in splits.split("+"))
    return [(part[1], int(part[2] or 0)) for part in parts if part]


def _shards(
    folder: Path, spec: Dataset, split: str, lengths: Mapping[str, list[int]]
) -> Iterator[Path]:
    """Name the files of a split as TFDS does, and check that they can be opened."""
    dataset, number = spec.tfds.partition("/")[0], len(lengths[split])
    for i in range(number):
        shard = folder / f"{dataset}-{split}.array_record-{i:05d}-of-{number:05d}"
        open_regular(shard).close()
        yield shard


def _libraries(folder: Path) -> tuple[Any, Any]:
    """Import the module that reads records, and make the type of a record."""
    try:
        from array_record.python import array_record_data_source

        return array_record_data_source, _example_type()
    except Exception as error:  # versions that do not fit raise other errors than ImportError
        versions = " and ".join(f"{p} {_version(p)}" for p in ("array_record", "protobuf"))
        raise DataError(
            f"{folder}: {versions}, which read it, fail to be imported ({why(error)}); install "
            "versions that fit each other"
        ) from error


@cache
def _example_type() -> Any:
    """Make the type ``tensorflow.train.Example``, whose own definition comes with TensorFlow.

    A protobuf map is encoded as a repeated message of key and value.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    kind = descriptor_pb2.FieldDescriptorProto
    one, many = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
    for message, fields in {
        "Example": [("features", 1, one, kind.TYPE_MESSAGE, ".Features")],
        "Features": [("feature", 1, many, kind.TYPE_MESSAGE, ".Entry")],
        "Entry": [
            ("key", 1, one, kind.TYPE_STRING, None),
            ("value", 2, one, kind.TYPE_MESSAGE, ".Feature"),
        ],
        "Feature": [
            ("bytes_list", 1, one, kind.TYPE_MESSAGE, ".BytesList"),
            ("int64_list", 3, one, kind.TYPE_MESSAGE, ".Int64List"),
        ],
        "BytesList": [("value", 1, many, kind.TYPE_BYTES, None)],
        "Int64List": [("value", 1, many, kind.TYPE_INT64, None)],
    }.items():
        described = file.message_type.add(name=message)
        for name, number, label, type_, type_name in fields:
            described.field.add(
                name=name, number=number, label=label, type=type_, type_name=type_name
            )
    pool = descriptor_pool.DescriptorPool()  # not the default pool, which TensorFlow adds it to
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


def _fields(example: Any, record: bytes) -> dict[str, Any]:
    """Parse a record into its fields by name."""
    return {entry.key: entry.value for entry in example.FromString(record).features.feature}


@contextmanager
def _readable(folder: Path, name: str) -> Iterator[None]:
    """Turn the errors that the reading of a folder raises into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # array_record raises bare RuntimeErrors, the JSON file others
        raise DataError(
            f"{folder}: this folder is damaged, or not readable as {name} ({why(error)}); delete "
            "it and prepare the set again"
        ) from error


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def download(name: str, spec: Dataset, root: Path, absent: str) -> Path:
    """Download and prepare a registered set with TFDS.

    Args:
        name: name of the registered set.
        spec: description of the registered set.
        root: the folder to prepare it in.
        absent: the beginning of the message of an error; it says why the set must be downloaded.

    Returns:
        The folder of the prepared set.

    Raises:
        AbsentError: if TensorFlow is missing, or the download fails.
    """
    remedy = f"or put {name}.npz or a folder {name} of images in {root}"
    if importlib.util.find_spec("tensorflow") is None:
        raise AbsentError(
            f"{absent}, and TensorFlow, which a download needs, is missing: "
            f"pip install 'jaxood[tfds]', {remedy}"
        )
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(spec.tfds, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # the network and some thirty libraries may raise anything
        raise AbsentError(
            f"{absent}, and tensorflow-datasets {_version('tensorflow-datasets')} (with protobuf "
            f"{_version('protobuf')}) could not download it ({why(error)}); try again, {remedy}"
        ) from error
    return Path(builder.data_path)
