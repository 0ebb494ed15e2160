"""The time until Glow's first training step ends: initialization, compilation and the step.

The steps of a level are scanned, so compilation takes as long for one as for 32 of them.
"""

import dataclasses
import time

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from experiments import lab
from jaxood import parallel, train
from jaxood.models.glow import glow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark; by default the authors' model for CIFAR-10, and a shallow one."""

    size: int = 32
    """Height and width of the images, which have three channels."""
    width: int = 512
    """Channels of the couplings' networks."""
    depths: tuple[int, ...] = (1, 32)
    """Steps a level, for each of the models."""
    batch_size: int = 16
    """Images a training step."""


def main(config: Config):
    """Print the seconds of each part, and how much longer the last compiles than the first."""
    lab.start(config)
    shape = (config.size, config.size, 3)
    images = np.random.default_rng(config.seed).integers(
        0, 256, (config.batch_size, *shape), np.uint8
    )
    table = Table(title=f"Glow, width {config.width}, batches of {len(images)} images {shape}")
    for head in ("steps a level", "parameters", "start (s)", "compilation (s)", "step (s)"):
        table.add_column(head, justify="right")
    mesh = parallel.mesh(config.devices)
    data = parallel.shard(images, mesh)
    compilations, first = [], 0.0
    for depth in config.depths:
        start = time.perf_counter()
        model = glow(shape, depth=depth, width=config.width)
        variables = jax.block_until_ready(model.init(jax.random.key(config.seed), images))
        optimizer = optax.adam(1e-3)
        state = parallel.replicate(train.init_state(variables, optimizer, steps=2), mesh)
        started = time.perf_counter()
        steps = train.make_train_steps(
            train.neg_log_prob_loss(model), optimizer, len(images), config.seed
        )
        state, _ = jax.block_until_ready(steps(state, data, 1))
        first = time.perf_counter() - start
        again = time.perf_counter()
        jax.block_until_ready(steps(state, data, 2))
        step = time.perf_counter() - again
        compilations.append(start + first - started - step)
        parameters = sum(p.size for p in jax.tree.leaves(variables["params"]))
        table.add_row(
            f"{depth}", f"{parameters:,}",
            *(f"{seconds:.1f}" for seconds in (started - start, compilations[-1], step)),
        )  # fmt: skip
    Console().print(table)
    print(
        f"first training step at {config.depths[-1]} steps a level after {first:.1f} s; "
        f"compilation x {compilations[-1] / compilations[0]:.2f}"
    )
