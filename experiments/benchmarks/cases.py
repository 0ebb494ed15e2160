"""The models that are timed, and their training steps and evaluations in JAX."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.timing import Run
from jaxood import train
from jaxood.models.realnvp import realnvp


class Case(NamedTuple):
    """A model at a size.

    Attributes:
        title: as tables name it.
        builder: builder of jaxood's model.
        peer: module and class of its peer in `experiments.benchmarks.peers`.
        shape: ``(h, w, c)`` of the images.
        batch_size: images in a step, and in an evaluation.
        sizes: further arguments of the builder and of the peer.
    """

    title: str
    builder: Callable[..., Any]
    peer: str
    shape: tuple[int, int, int]
    batch_size: int
    sizes: Mapping[str, Any]

    def images(self, seed: int) -> np.ndarray:
        """Draw four batches of images, uint8 ``(n, h, w, c)``."""
        shape = (4 * self.batch_size, *self.shape)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    def model(self, **options: Any) -> Any:
        """Build jaxood's model; ``options`` are further arguments of its builder."""
        return self.builder(self.shape, **self.sizes, **options)


GREY, COLOUR = (28, 28, 1), (32, 32, 3)

CASES = {
    "realnvp": Case(
        "RealNVP 28x28x1, 32 channels, 4 blocks", realnvp, "realnvp.RealNVP",
        GREY, 64, {"width": 32, "depth": 4},
    ),
    "realnvp_cifar": Case(
        "RealNVP 32x32x3, 64 channels, 8 blocks", realnvp, "realnvp.RealNVP",
        COLOUR, 64, {"width": 64, "depth": 8},
    ),
}  # fmt: skip


def training(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare training steps by the library's loop, with Adam."""
    data = jnp.asarray(case.images(seed))
    loss, optimizer = train.neg_log_prob_loss(model), optax.adam(1e-3)
    state = jax.tree.map(jnp.copy, train.init_state(variables, optimizer, steps=10_000))
    steps = train.make_train_steps(loss, optimizer, case.batch_size, seed)
    done = 0

    def run(count: int) -> None:
        nonlocal state, done
        done += count
        state, ok = steps(state, data, done)
        assert bool(ok), "the training diverged"

    return run


def evaluation(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare log-likelihoods of a batch in evaluation mode."""
    x = jnp.asarray(case.images(seed)[: case.batch_size])
    log_prob = jax.jit(lambda variables, x: model.log_prob(variables, x))
    return lambda count: [jax.block_until_ready(log_prob(variables, x)) for _ in range(count)][-1]
