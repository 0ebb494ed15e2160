"""What tests share: the repository's root, commands, variables away from initialization."""

import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parents[1]


def command(*arguments):
    """The command line that runs a module with arguments."""
    return [sys.executable, "-m", *map(str, arguments)]


def perturb(variables, scale=0.1, seed=0):
    rng = np.random.default_rng(seed)

    def leaf(path, value):
        noise = rng.normal(size=value.shape)
        if path[0].key == "params":
            value = np.asarray(value) + scale * noise
        else:
            value = 0.3 * noise if path[-1].key == "mean" else np.exp(0.3 * noise)
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, variables)


def initial(init, *args):
    return jax.jit(init)(jax.random.key(0), *args)
