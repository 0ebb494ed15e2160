"""The models that are timed, and their training steps and evaluations in JAX."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.timing import Run
from jaxood import nrm, train
from jaxood.models.glow import glow
from jaxood.models.pixelcnn.network import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae


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

    def labels(self, seed: int) -> np.ndarray:
        """Draw their classes, int ``(n,)``."""
        return np.random.default_rng(seed).integers(0, 10, 4 * self.batch_size)

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
    "vae": Case("VAE 28x28x1", vae, "vae.VAE", GREY, 64, {}),
    "pixelcnn": Case(
        "PixelCNN++ 28x28x1, 40 filters, 2 blocks", pixelcnn, "pixelcnn.PixelCNN",
        GREY, 16, {"width": 40, "depth": 2},
    ),
    "glow": Case(
        "Glow 32x32x3, 3 x 8 steps, width 128", glow, "glow.Glow",
        COLOUR, 16, {"depth": 8, "width": 128},
    ),
    "nrm_16": Case(
        "NRM All-CNN-C 32x32x3, width 16", nrm.all_cnn_c, "nrm.AllCnnC", COLOUR, 64, {"width": 16}
    ),
    "nrm_96": Case(
        "NRM All-CNN-C 32x32x3, width 96", nrm.all_cnn_c, "nrm.AllCnnC", COLOUR, 64, {"width": 96}
    ),
}  # fmt: skip
"""The models of the table, at its sizes."""

TINY: dict[str, tuple[tuple[int, int, int], int, Mapping[str, Any]]] = {
    "realnvp": ((8, 8, 1), 8, {"width": 4, "depth": 1}),
    "realnvp_cifar": ((8, 8, 3), 8, {"width": 4, "depth": 1}),
    "vae": ((8, 8, 1), 8, {"width": 4, "latent": 4}),
    "pixelcnn": ((8, 8, 1), 4, {"width": 4, "depth": 1, "levels": 2}),
    "glow": ((8, 8, 3), 4, {"width": 4, "depth": 2, "levels": 2}),
    "nrm_16": ((12, 12, 3), 8, {"width": 4}),
    "nrm_96": ((12, 12, 3), 8, {"width": 8}),
}
"""Shapes, batch sizes and sizes of the same models for a test of the benchmark."""


def tiny(name: str) -> Case:
    """Return a model of the table at a size that a test affords."""
    shape, batch_size, sizes = TINY[name]
    title = f"{CASES[name].title.split()[0]} (tiny)"
    return CASES[name]._replace(title=title, shape=shape, batch_size=batch_size, sizes=sizes)


def training(case: Case, model: Any, variables: Any, seed: int) -> Run:
    """Prepare training steps by the library's loop, with Adam."""
    data: Any = jnp.asarray(case.images(seed))
    if isinstance(model, nrm.NRM):
        data = data, jnp.asarray(case.labels(seed), jnp.int32)
        loss = nrm.loss(model, nrm.LossWeights(1, 0, 0, 0, 0))
    else:
        loss = train.neg_log_prob_loss(model)
    optimizer = optax.adam(1e-3)
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
    """Prepare log-likelihoods of a batch in evaluation mode; of an NRM, its logits."""
    x = jnp.asarray(case.images(seed)[: case.batch_size])

    @jax.jit
    def evaluate(variables, x):
        if isinstance(model, nrm.NRM):
            return model.encode(variables, x)[0]
        return model.log_prob(variables, x)

    return lambda count: [jax.block_until_ready(evaluate(variables, x)) for _ in range(count)][-1]
