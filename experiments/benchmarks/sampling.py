"""The speed of PixelCNN++'s cached sampling, against a whole forward pass for each pixel.

Both draw the same images with the same noise. In single precision, rounding errors may carry a
pixel to the next level, and what follows it in that image; in double precision they do not.
"""

import dataclasses
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import lab
from jaxood.models.pixelcnn.layers import Settings
from jaxood.models.pixelcnn.network import PixelCNN
from jaxood.models.pixelcnn.sampling import sample_incremental, sample_naive
from jaxood.nn.likelihoods import logistic_mixture_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark."""

    size: int = 28
    """Height and width of the images."""
    image_channels: int = 1
    """Channels of the images."""
    width: int = 32
    """Channels of the network."""
    depth: int = 2
    """Residual blocks a stage."""
    levels: int = 3
    """Resolutions."""
    n: int = 16
    """Images that are drawn together."""
    repeats: int = 3
    """Timed runs with cached activations; the other is timed once."""
    double: bool = False
    """Compute in double precision."""


def main(config: Config):
    """Print times, their ratio, and how many of the images are the same."""
    lab.start(config)
    jax.config.update("jax_enable_x64", config.double)
    dtype = jnp.float64 if config.double else jnp.float32
    shape = (config.size, config.size, config.image_channels)
    network = PixelCNN(
        logistic_mixture_size(config.image_channels, 10),
        config.depth,
        config.levels,
        Settings(config.width, "batch", 0.0),
    )
    key = jax.random.key(config.seed)
    variables = jax.jit(network.init)(key, jnp.zeros((1, *shape)))
    variables = jax.tree.map(lambda a: a.astype(dtype), variables)

    methods = {
        "cached activations": (sample_incremental, config.repeats),
        "whole passes": (sample_naive, 1),
    }
    table = Table(title=f"{config.n} samples of PixelCNN++, {shape}, {dtype.__name__}")
    for head in ("method", "compiled in (s)", "median (s)", "images/s"):
        table.add_column(head, justify="left" if head == "method" else "right")
    images, seconds = [], []
    for name, (method, repeats) in methods.items():
        start = time.perf_counter()
        draw = functools.partial(method, network, n=config.n, image_shape=shape, temperature=1.0)
        draw = jax.jit(draw).lower(variables, key).compile()
        compiling = time.perf_counter() - start
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            x = np.asarray(draw(variables, key))
            times.append(time.perf_counter() - start)
        images.append(x)
        seconds.append(statistics.median(times))
        figures = compiling, seconds[-1], config.n / seconds[-1]
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    Console().print(table)
    same = np.equal(*images)
    print(
        f"speed-up {seconds[1] / seconds[0]:.1f}, "
        f"{same.all((1, 2, 3)).sum()} of {config.n} images the same to the last pixel"
    )
