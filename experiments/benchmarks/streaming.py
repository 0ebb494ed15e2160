"""Does screening many images take more memory, or more time an image, than screening few?

Writes synthetic images to a temporary folder, screens them from there with a small RealNVP, each
number of images in a process of its own, and prints peak memory and time per image, and their
ratios. Both should be near 1. The model is not trained: that changes neither.
"""

import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from experiments import lab
from jaxood import data, detector, scores, stream
from jaxood.density import Array
from jaxood.models.realnvp import realnvp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark; --data-dir and --out are not used."""

    few: int = 10_000
    """Images of the first process."""
    many: int = 100_000
    """Images of the second."""
    source: Literal["npy", "npz", "folder"] = "npy"
    """Format on the disk: one array, one compressed array, or PNG files."""
    size: int = 16
    """Height and width of the images, which have three channels."""
    score: Literal["neg_log_prob", "batch_norm_delta", "brightness"] = "neg_log_prob"
    """A per-image score, a batch score, or brightness, which costs next to nothing: reading and
    writing are then timed, and large images are affordable."""
    set_size: int = 1024
    """Images read, scored and written at a time."""
    measure: Path | None = None
    """Screen these images and print the numbers as JSON, as each process of the benchmark does."""


def main(config: Config) -> None:
    """Print peak memory and time per image for both numbers of images, and their ratios."""
    lab.start(config)
    if config.measure:
        print(json.dumps(measure(config, config.measure)))
        return
    table = Table(
        title=f"{config.score} of {config.size}x{config.size} images from {config.source}"
    )
    for head in ("images", "on disk (MB)", "peak memory (MB)", "ms an image"):
        table.add_column(head, justify="right")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for n in (config.few, config.many):
            path = write(Path(folder) / str(n), config, n)
            files = [path] if path.is_file() else list(path.iterdir())
            found.append(in_a_process(config, path))
            megabytes = sum(file.stat().st_size for file in files) / 1e6
            memory, seconds = found[-1]["bytes"] / 1e6, found[-1]["seconds"]
            table.add_row(
                f"{n:,}", *(f"{x:.1f}" for x in (megabytes, memory)), f"{seconds / n * 1e3:.3f}"
            )
    Console().print(table)
    few, many = found
    memory = many["bytes"] / few["bytes"]
    seconds = many["seconds"] / config.many / (few["seconds"] / config.few)
    print(f"peak memory x {memory:.3f}, time per image x {seconds:.3f}")


def write(stem: Path, config: Config, n: int) -> Path:
    """Write random images piece by piece, and return the path that `data.open` reads."""
    rng = np.random.default_rng(config.seed)
    shape = (n, config.size, config.size, 3)
    if config.source == "folder":
        stem.mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, shape[1:], np.uint8)).save(stem / f"{i:07d}.png")
        return stem
    path = stem.with_suffix(f".{config.source}")
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if config.source == "npz":
            archive = stack.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED))
            file = stack.enter_context(archive.open("images.npy", "w", force_zip64=True))
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n, 1000):
            images = rng.integers(0, 256, (min(1000, n - start), *shape[1:]), np.uint8)
            file.write(images.tobytes())
    return path


def in_a_process(config: Config, path: Path) -> dict[str, float]:
    """Call `measure` in a process of its own.

    The peak memory that a system reports is never less than what the process that started it
    held, so this one must stay small.
    """
    flags = [f"--{name.replace('_', '-')}={getattr(config, name)}" for name in _PASSED_ON]
    line = [sys.executable, "-m", "experiments.stream_memory", *flags, f"--measure={path}"]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


_PASSED_ON = ("platform", "seed", "size", "score", "set_size")


@dataclasses.dataclass(frozen=True)
class Brightness:
    """The mean of an image, as a score."""

    name: str = "brightness"
    per_image: bool = True

    def __call__(self, images: Array, /) -> np.ndarray:
        """Score images."""
        return np.asarray(_brightness(images))


@jax.jit
def _brightness(images):
    return images.mean((1, 2, 3))


def score_of(config: Config, trusted: np.ndarray) -> detector.Score:
    """Build the score, of a model at its initial parameters."""
    if config.score == "brightness":
        return Brightness()
    model = realnvp(trusted.shape[1:], width=4, depth=1)
    variables = model.init(jax.random.key(config.seed), trusted[:64])
    if config.score == "neg_log_prob":
        return scores.neg_log_prob(model, variables)
    return scores.batch_norm_delta(model, variables, trusted, draws=1)


def measure(config: Config, path: Path) -> dict[str, float]:
    """Screen images, and measure seconds without compilation and the peak memory in bytes."""
    shape = (config.size, config.size, 3)
    rng = np.random.default_rng(config.seed + 1)
    trusted = rng.integers(0, 256, (config.set_size, *shape), np.uint8)
    score = score_of(config, trusted)
    set_size = None if score.per_image else config.set_size
    judge = detector.fit(score, trusted, set_size=set_size)  # compiles, as well
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        stream.judge(
            judge,
            data.open(path),
            Path(folder) / "scores.csv",
            set_size=config.set_size,
            false_positive_rate=0.5,
            show_progress=True,
        )
        seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "bytes": peak}
