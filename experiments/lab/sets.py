"""The OOD sets of an experiment, as far as they can be loaded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.lab.flags import UsageError
from jaxood import data

Labelled = tuple[np.ndarray, np.ndarray | None]
"""Images, uint8 ``(n, h, w, c)``, and their labels ``(n,)`` if they have any."""


def load_ood(
    names: Sequence[str], *, trusted: str, shape: tuple[int, ...], data_dir: Path | None
) -> tuple[dict[str, Labelled], dict[str, str]]:
    """Load the test images of OOD sets, and leave out those that are absent.

    Args:
        names: names of the sets.
        trusted: name of the trusted set, for messages.
        shape: ``(h, w, c)`` of its images.
        data_dir: where to look, as for `data.load`.

    Returns:
        By name, images and labels of the sets that are there, and why each other set is absent.

    Raises:
        DataError: if none is there, or one is damaged.
        UsageError: if images have another shape.
    """
    found: dict[str, Labelled] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            images, labels = data.load(name, "test", data_dir)
        except data.AbsentError as error:
            print(f"left out: {error}", flush=True)
            absent[name] = str(error)
            continue
        if images.shape[1:] != shape:
            raise UsageError(
                f"images of {name} are {images.shape[1:]}, those of {trusted} {shape}: give sets "
                "of one shape"
            )
        found[name] = images, labels
    if not found:
        raise data.DataError(f"no OOD set can be loaded: {'; '.join(absent.values())}")
    return found, absent
