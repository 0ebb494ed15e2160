"""The speed of a RealNVP training step, against the same step computed in another way.

The peer is the best form of plain ``nn.Conv``: residual blocks unrolled, since XLA's CPU backend
takes convolution gradients inside a loop a hundred times slower. With ``--against fusion`` the peer
is our own program with the fusions that `jaxood.parallel.cpu_fusion` switches off on the CPU. Both
are timed in turn, so the ratio holds when the machine's speed drifts.
"""

import dataclasses
import statistics
import time
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

from experiments import lab
from jaxood import train
from jaxood.models.realnvp import realnvp
from jaxood.nn.convolution import Conv
from jaxood.parallel import cpu_fusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark."""

    size: int = 28
    """Height and width of the images."""
    image_channels: int = 1
    """Channels of the images."""
    width: int = 32
    """Channels of the networks."""
    depth: int = 4
    """Residual blocks a network."""
    batch_size: int = 64
    """Images a step."""
    repeats: int = 5
    """Timed steps of each."""
    against: Literal["nn.Conv", "fusion"] = "nn.Conv"
    """The peer: Flax's own convolution, or XLA's fusions with YNNPACK."""
    evaluation: bool = False
    """Time log-likelihoods in evaluation mode instead of a training step."""
    peer: bool = True
    """Time the peer as well."""


def main(config: Config):
    """Print times, the ratio of medians, and the difference of the losses.

    Raises:
        UsageError: if the peer is the fusions, and jaxlib or the platform has none.
    """
    lab.start(config)
    shape = (config.size, config.size, config.image_channels)
    images = jax.random.bits(jax.random.key(config.seed), (config.batch_size, *shape), jnp.uint8)
    variants: dict[str, tuple[Any, int, Any]] = {"jaxood": (Conv, 1, None)}
    if config.peer and config.against == "nn.Conv":
        variants["nn.Conv"] = (nn.Conv, config.depth, None)
    elif config.peer:
        if jax.default_backend() != "cpu" or not cpu_fusion.fuses():
            raise lab.UsageError("there are no such fusions here: leave --against fusion out")
        variants["fusion"] = (Conv, 1, cpu_fusion.FUSED)
    make = _evaluation if config.evaluation else _one_step
    steps, compiling, times = {}, {}, {name: [] for name in variants}
    for name, (conv, unroll, options) in variants.items():
        start = time.perf_counter()
        model = realnvp(shape, width=config.width, depth=config.depth, conv=conv, unroll=unroll)
        variables = model.init(jax.random.key(config.seed), images)
        steps[name] = make(model, variables, images, config.seed, options)
        compiling[name] = time.perf_counter() - start
    losses = {name: [] for name in variants}
    for _ in range(config.repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            losses[name].append(float(step()))
            times[name].append(time.perf_counter() - start)

    what = "evaluation" if config.evaluation else "training step"
    table = Table(title=f"RealNVP {what}, {shape}, batch {config.batch_size}")
    for head in ("program", "ready after (s)", "median (s)", "fastest (s)", "last loss (nats)"):
        table.add_column(head, justify="left" if head == "program" else "right")
    for name in variants:
        figures = (compiling[name], statistics.median(times[name]), min(times[name]))
        table.add_row(name, *(f"{x:.2f}" for x in figures), f"{losses[name][-1]:.4f}")
    Console().print(table)
    if not config.peer:
        return
    ratio = statistics.median(times[config.against]) / statistics.median(times["jaxood"])
    gap = max(abs(a / b - 1) for a, b in zip(losses["jaxood"], losses[config.against], strict=True))
    print(f"speed-up {ratio:.2f}, relative difference of the losses {gap:.1e}")


def _evaluation(model, variables, images, seed, options):
    """A compiled evaluation as a function without arguments that returns minus the mean."""
    del seed
    evaluate = jax.jit(lambda variables: -model.log_prob(variables, images).mean())
    compiled = evaluate.lower(variables).compile(options)
    return lambda: compiled(variables)


def _one_step(model, variables, images, seed, options):
    """A compiled update as a function without arguments that returns the loss.

    It stands alone and not in the loop of `train.make_train_steps`, where the peer would be a
    hundred times slower.
    """
    loss = train.neg_log_prob_loss(model)
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
    compiled = jax.jit(update).lower(variables, opt_state).compile(options)

    def step():
        nonlocal variables, opt_state
        variables, opt_state, value = compiled(variables, opt_state)
        return value

    return step
