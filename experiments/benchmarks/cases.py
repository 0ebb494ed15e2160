"""The models that are timed, as plain data: neither JAX nor PyTorch is imported."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

Preset = Literal["standard", "paper", "smoke"]


class Case(NamedTuple):
    """A model at a size.

    Attributes:
        title: as tables name it.
        builder: name of jaxood's builder, as `jaxood.density.build` takes it.
        peer: module and class of its peer in `experiments.benchmarks.peers`.
        shape: ``(h, w, c)`` of the images.
        batch_size: images in a step, and in an evaluation.
        sizes: further arguments of the builder and of the peer.
        terms: weights of the terms of an NRM's loss, as `jaxood.nrm.LossWeights` has them. Peers
            have the cross-entropy alone.
    """

    title: str
    builder: str
    peer: str
    shape: tuple[int, int, int]
    batch_size: int
    sizes: Mapping[str, Any]
    terms: tuple[float, ...] = (1, 0, 0, 0, 0)

    @property
    def has_peer(self) -> bool:
        """Whether the peer does the same training step."""
        return self.terms[1:] == (0, 0, 0, 0)

    def images(self, seed: int) -> np.ndarray:
        """Draw four batches of images, uint8 ``(n, h, w, c)``."""
        shape = (4 * self.batch_size, *self.shape)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    def labels(self, seed: int) -> np.ndarray:
        """Draw their classes, int ``(n,)``."""
        return np.random.default_rng(seed).integers(0, 10, 4 * self.batch_size)

    def at(self, title: str, shape: tuple[int, int, int], batch_size: int, **sizes: Any) -> "Case":
        """Return the same model at another size."""
        title = f"{self.title.split(',')[0].rpartition(' ')[0]} {title}"
        return Case(title, self.builder, self.peer, shape, batch_size, sizes)


GREY, COLOUR = (28, 28, 1), (32, 32, 3)

STANDARD = {
    "realnvp": Case(
        "RealNVP 28x28x1, 32 channels, 4 blocks", "realnvp", "realnvp.RealNVP",
        GREY, 64, {"width": 32, "depth": 4},
    ),
    "realnvp_cifar": Case(
        "RealNVP 32x32x3, 64 channels, 8 blocks", "realnvp", "realnvp.RealNVP",
        COLOUR, 64, {"width": 64, "depth": 8},
    ),
    "vae": Case("VAE 28x28x1", "vae", "vae.VAE", GREY, 64, {}),
    "pixelcnn": Case(
        "PixelCNN++ 28x28x1, 40 filters, 2 blocks", "pixelcnn", "pixelcnn.PixelCNN",
        GREY, 16, {"width": 40, "depth": 2},
    ),
    "glow": Case(
        "Glow 32x32x3, 3 x 8 steps, width 128", "glow", "glow.Glow",
        COLOUR, 16, {"depth": 8, "width": 128},
    ),
    "nrm_16": Case(
        "NRM All-CNN-C 32x32x3, width 16", "all_cnn_c", "nrm.AllCnnC", COLOUR, 64, {"width": 16}
    ),
    "nrm_96": Case(
        "NRM All-CNN-C 32x32x3, width 96", "all_cnn_c", "nrm.AllCnnC", COLOUR, 64, {"width": 96}
    ),
}  # fmt: skip
"""Models at sizes for a CPU."""

PAPER = {
    "realnvp": STANDARD["realnvp"],
    "realnvp_cifar": STANDARD["realnvp_cifar"],
    "vae": STANDARD["vae"],
    "vae_cifar": STANDARD["vae"].at("32x32x3", COLOUR, 64),
    "pixelcnn": STANDARD["pixelcnn"].at("28x28x1, 80 filters, 5 blocks", GREY, 64),
    "pixelcnn_cifar": STANDARD["pixelcnn"].at("32x32x3, 80 filters, 5 blocks", COLOUR, 64),
    "glow": STANDARD["glow"].at("32x32x3, 3 x 32 steps, width 512", COLOUR, 64),
    "nrm": STANDARD["nrm_96"].at("32x32x3, width 96, batch 128", COLOUR, 128, width=96),
    "nrm_rendering": STANDARD["nrm_96"]
    .at("32x32x3, width 96, all terms", COLOUR, 128, width=96)
    ._replace(terms=(1, 10, 40, 3, 0)),
}
"""The models of the experiments' preset "paper"."""

SMOKE = {
    "realnvp": STANDARD["realnvp"].at("(tiny)", (8, 8, 1), 8, width=4, depth=1),
    "realnvp_cifar": STANDARD["realnvp_cifar"].at("(tiny)", (8, 8, 3), 8, width=4, depth=1),
    "vae": STANDARD["vae"].at("(tiny)", (8, 8, 1), 8, width=4, latent=4),
    "pixelcnn": STANDARD["pixelcnn"].at("(tiny)", (8, 8, 1), 4, width=4, depth=1, levels=2),
    "glow": STANDARD["glow"].at("(tiny)", (8, 8, 3), 4, width=4, depth=2, levels=2),
    "nrm_16": STANDARD["nrm_16"].at("(tiny)", (12, 12, 3), 8, width=4),
}
"""Sizes for a test of the benchmark."""

PRESETS: dict[Preset, dict[str, Case]] = {"standard": STANDARD, "paper": PAPER, "smoke": SMOKE}
