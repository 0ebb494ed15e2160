"""How fast a RealNVP training step is, against the same step with Flax's own convolution.

The peer is the best form of plain ``nn.Conv``: residual blocks unrolled, since XLA's CPU backend
takes convolution gradients inside a loop a hundred times slower. Both are timed in turn, so the
ratio holds when the machine's speed drifts.
"""

import dataclasses
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

from experiments import common
from jaxood import train
from jaxood.convolution import Conv
from jaxood.models.realnvp import realnvp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
    """Flags of the benchmark."""

    size: int = 28
    """Height and width of the images."""
    image_channels: int = 1
    """Channels of the images."""
    channels: int = 32
    """Width of the networks."""
    blocks: int = 4
    """Residual blocks a network."""
    batch_size: int = 64
    """Images a step."""
    repeats: int = 5
    """Timed steps of each."""
    peer: bool = True
    """Time the peer as well."""


def main(config: Config):
    """Print times, the ratio of medians, and the difference of the losses."""
    common.start(config)
    shape = (config.size, config.size, config.image_channels)
    images = jax.random.bits(jax.random.key(config.seed), (config.batch_size, *shape), jnp.uint8)
    variants = {
        "jaxood": {"conv": Conv},
        "nn.Conv": {"conv": nn.Conv, "unroll": config.blocks},
    }
    if not config.peer:
        del variants["nn.Conv"]
    steps, compiling, times = {}, {}, {name: [] for name in variants}
    for name, options in variants.items():
        start = time.perf_counter()
        model = realnvp(shape, channels=config.channels, blocks=config.blocks, **options)
        variables = model.init(jax.random.key(config.seed), images)
        steps[name] = _one_step(train.neg_log_prob_loss(model), variables, images, config.seed)
        compiling[name] = time.perf_counter() - start
    losses = {name: [] for name in variants}
    for _ in range(config.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            losses[name].append(float(step()))
            times[name].append(time.perf_counter() - start)

    table = Table(title=f"RealNVP training step, {shape}, batch {config.batch_size}")
    for head in ("convolution", "ready after (s)", "median (s)", "fastest (s)", "last loss (nats)"):
        table.add_column(head, justify="left" if head == "convolution" else "right")
    for name in variants:
        figures = (compiling[name], statistics.median(times[name]), min(times[name]))
        table.add_row(name, *(f"{x:.2f}" for x in figures), f"{losses[name][-1]:.4f}")
    Console().print(table)
    if not config.peer:
        return
    ratio = statistics.median(times["nn.Conv"]) / statistics.median(times["jaxood"])
    gap = max(abs(a / b - 1) for a, b in zip(losses["jaxood"], losses["nn.Conv"], strict=True))
    print(f"speed-up {ratio:.2f}, relative difference of the losses {gap:.1e}")


def _one_step(loss, variables, images, seed):
    """A compiled update as a function without arguments that returns the loss.

    It stands alone and not in the loop of `train.make_train_steps`, where the peer would be a
    hundred times slower.
    """
    optimizer = optax.adam(1e-3)
    key = jax.random.key(seed)

    def update(variables, opt_state):
        def loss_of(params):
            return loss(variables | {"params": params}, images, key)

        (value, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": batch_stats}, opt_state, value

    opt_state = optimizer.init(variables["params"])
    compiled = jax.jit(update).lower(variables, opt_state).compile()

    def step():
        nonlocal variables, opt_state
        variables, opt_state, value = compiled(variables, opt_state)
        return value

    return step


if __name__ == "__main__":
    common.run(main, Config, __doc__)
