"""How much cheaper the NRM's latent likelihood is by one forward-mode pass than by rendering.

Rendering is timed alone, and with the terms of all other scores (`jaxood.scores.nrm_measure`).
All are timed in turn on the same images, so the ratios hold when the machine's speed drifts.
"""

import dataclasses
import statistics
import time
from typing import Literal

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from experiments import lab
from jaxood import nrm
from jaxood.scores.nrm import latent_log_prob, measure_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark."""

    architecture: Literal["all_cnn_c", "convpool_cnn_c", "all_conv_13", "resnet"] = "all_conv_13"
    """Network."""
    size: int = 32
    """Height and width of the images."""
    width: int = 32
    """Channels of the first layers."""
    batch_size: int = 64
    """Number of images in a call."""
    repeats: int = 7
    """Number of timed calls of each."""


def main(config: Config) -> None:
    """Print times, the ratio of medians, and the largest difference of the values."""
    lab.start(config)
    shape = (config.size, config.size, 3)
    model = getattr(nrm, config.architecture)(shape, width=config.width)
    x = jax.random.bits(jax.random.key(config.seed), (config.batch_size, *shape), jnp.uint8)
    variables = model.init(jax.random.key(config.seed), x)
    # Biases start at zero, where there is nothing to compare.
    variables = jax.tree.map(lambda a: a + 0.1 if a.ndim == 1 else a, variables)

    def by_rendering(variables, x):
        found = nrm.explain(model, variables, x)
        # The image too: a program that stops above it would have rendered less than the paper.
        return sum(path.sum((1, 2, 3)) for path in found.paths), found.rendered[0]

    def with_all_scores(variables, x):
        measured = measure_batch(model, variables, x)._replace(sizes=None)
        return measured.latent.sum(1), measured

    methods = {
        "rendering": jax.jit(by_rendering),
        "rendering, all scores": jax.jit(with_all_scores),
        "forward mode": jax.jit(lambda v, x: (latent_log_prob(model, v, x).log_prob, None)),
    }
    values = {name: jax.block_until_ready(run(variables, x)[0]) for name, run in methods.items()}
    times = {name: [] for name in methods}
    for _ in range(config.repeats):
        for name, run in methods.items():
            start = time.perf_counter()
            jax.block_until_ready(run(variables, x))
            times[name].append(time.perf_counter() - start)

    table = Table(title=f"{config.architecture}, width {config.width}, {len(x)} images {shape}")
    fast = statistics.median(times["forward mode"])
    for head in ("log p(z*|y*) by", "median (s)", "fastest (s)", "of forward mode"):
        table.add_column(head, justify="left" if head.startswith("log") else "right")
    for name, taken in times.items():
        median = statistics.median(taken)
        table.add_row(name, f"{median:.4f}", f"{min(taken):.4f}", f"{median / fast:.2f}")
    Console().print(table)
    slow = statistics.median(times["rendering"])
    gap = jnp.abs(values["forward mode"] / values["rendering"] - 1).max()
    print(f"speed-up {slow / fast:.2f}, largest relative difference {gap:.1e}")
