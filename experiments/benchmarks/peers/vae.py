"""The VAE of the BatchNorm paper in PyTorch, the peer of `jaxood.models.vae`."""

# pyright: reportMissingImports=false

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.peers.layers import Density, Tree, copy, to_unit

MIN_SCALE = 1e-3


class VAE(Density):
    """VAE over uint8 images, with the arguments of `jaxood.vae`."""

    def __init__(self, image_shape: Sequence[int], *, width: int = 32, latent: int = 64):
        super().__init__()
        h, w, c = image_shape
        self.latent, narrow, wide = latent, width * c, 2 * width * c
        encoder, decoder, channels = [], [], c
        for features, kernel, stride, padding in (
            (narrow, 5, 1, 2),
            (narrow, 5, 2, 2),
            (narrow, 5, 1, 2),
            (wide, 5, 2, 2),
            (wide, 5, 1, 2),
            (8 * width, (h // 4, w // 4), 1, 0),
        ):
            encoder += [
                nn.Conv2d(channels, features, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            ]
            channels = features
        channels = latent
        for features, kernel, stride, padding in (
            (wide, (h // 4, w // 4), 1, 0),
            (wide, 5, 2, 2),
            (wide, 5, 1, 2),
            (narrow, 5, 2, 2),
            (narrow, 5, 1, 2),
            (narrow, 5, 1, 2),
        ):
            decoder += [
                nn.ConvTranspose2d(
                    channels, features, kernel, stride, padding, stride - 1, bias=False
                ),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            ]
            channels = features
        decoder += [nn.ConvTranspose2d(channels, 8 * width, 5, padding=2), nn.ReLU(inplace=True)]
        decoder += [nn.ConvTranspose2d(8 * width, 256 * c, 1)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        self.dense = nn.Linear(8 * width, 2 * latent)

    def noise(self, x: Tensor) -> Tensor:
        """Draw the noise of the posterior."""
        return torch.randn(len(x), self.latent)

    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Estimate the evidence lower bound, see `Density`."""
        mean, scale = self.dense(self.encoder(to_unit(x)).flatten(1)).chunk(2, 1)
        scale = MIN_SCALE + F.softplus(scale)
        z = mean if noise is None else mean + scale * noise
        logits = self.decoder(z[:, :, None, None]).unflatten(1, (x.shape[1], 256))
        kl = 0.5 * (mean.square() + scale.square() - 1) - scale.log()
        wrong = F.cross_entropy(logits.transpose(1, 2), x.long(), reduction="none")
        return -wrong.sum((1, 2, 3)) - kl.sum(1)

    def load(self, variables: Tree) -> None:
        """Copy from jaxood's variables."""
        for part, name in (("encoder", "Conv"), ("decoder", "ConvTranspose")):
            params, stats = variables["params"][part], variables["batch_stats"][part]
            layers = getattr(self, part)
            convs = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
            norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
            for i, conv in enumerate(convs):
                copy(conv, params[f"{name}_{i}"])
            for i, norm in enumerate(norms):
                copy(norm, params[f"BatchNorm_{i}"], stats[f"BatchNorm_{i}"])
        copy(self.dense, variables["params"]["encoder"]["Dense_0"])
