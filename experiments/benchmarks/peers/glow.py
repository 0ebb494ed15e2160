"""Glow in PyTorch, the peer of `jaxood.models.glow`."""

# pyright: reportMissingImports=false

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.peers.layers import (
    Density,
    Tree,
    copy,
    normal_log_prob,
    squeeze,
    tensor,
    unstack,
)

SCALE_SPEED = 3.0


class ActNorm(nn.Module):
    """Shift and scale by channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, h, w)`` to the same shape."""
        return (x + self.shift) * self.log_scale.exp()

    @torch.no_grad()
    def load(self, params: Tree) -> None:
        """Copy from Flax."""
        self.shift.copy_(tensor(params["shift"])[:, None, None])
        self.log_scale.copy_(tensor(params["log_scale"])[:, None, None])


class ZeroConv(nn.Module):
    """3x3 convolution with a learned scale by channel."""

    def __init__(self, channels: int, features: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, features, 3, padding=1)
        self.log_scale = nn.Parameter(torch.zeros(features, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, h, w)`` to ``(n, features, h, w)``."""
        return self.conv(x) * (SCALE_SPEED * self.log_scale).exp()

    def load(self, params: Tree) -> None:
        """Copy from Flax."""
        copy(self.conv, params["Conv_0"])
        with torch.no_grad():
            self.log_scale.copy_(tensor(params["log_scale"])[:, None, None])


class Step(nn.Module):
    """Activation normalization, 1x1 convolution, affine coupling."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = ActNorm(channels)
        self.weight = nn.Parameter(torch.eye(channels))
        self.net = nn.Sequential(
            nn.Conv2d(channels // 2, width, 3, padding=1, bias=False),
            ActNorm(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            ActNorm(width),
            nn.ReLU(inplace=True),
            ZeroConv(width, channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``(n, c, h, w)``; return the log-determinant ``(n,)`` as well."""
        pixels = x.shape[2] * x.shape[3]
        same = self.norm.log_scale.sum() + torch.linalg.slogdet(self.weight).logabsdet
        kept, changed = F.conv2d(self.norm(x), self.weight.T[:, :, None, None]).chunk(2, 1)
        shift, scale = self.net(kept).chunk(2, 1)
        log_scale = F.logsigmoid(scale + 2)
        changed = (changed + shift) * log_scale.exp()
        return torch.cat([kept, changed], 1), pixels * same + log_scale.sum((1, 2, 3))

    def load(self, params: Tree) -> None:
        """Copy from Flax."""
        coupling: Any = params["coupling"]
        net: Any = self.net
        self.norm.load(params["norm"])
        with torch.no_grad():
            self.weight.copy_(tensor(params["mix"]["kernel"]))
        for i in range(2):
            copy(net[3 * i], coupling[f"Conv_{i}"])
            net[3 * i + 1].load(coupling[f"ActNorm_{i}"])
        net[6].load(coupling["ZeroConv_0"])


class Glow(Density):
    """Glow over uint8 images, with the arguments of `jaxood.glow`."""

    steps: Any
    priors: Any

    def __init__(
        self, image_shape: Sequence[int], *, levels: int = 3, depth: int = 32, width: int = 512
    ):
        super().__init__()
        channels = image_shape[2]
        self.steps, self.priors = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            channels *= 4
            self.steps.append(nn.ModuleList(Step(channels, width) for _ in range(depth)))
            if level < levels - 1:
                channels //= 2
                self.priors.append(ZeroConv(channels, 2 * channels))
        self.last_prior = nn.Parameter(torch.zeros(2 * channels, 1, 1))

    def noise(self, x: Tensor) -> Tensor:
        """Draw uniform noise for dequantization."""
        return torch.rand_like(x, dtype=torch.float32)

    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute log-likelihoods, see `Density`."""
        result = torch.full((len(x),), -x[0].numel() * math.log(256))
        z = (x + (0.5 if noise is None else noise)) / 256 - 0.5
        for level, steps in enumerate(self.steps):
            z = squeeze(z)
            for step in steps:
                z, term = step(z)
                result = result + term
            if level < len(self.priors):
                z, leaving = z.chunk(2, 1)
                mean, log_std = self.priors[level](z).chunk(2, 1)
            else:
                leaving = z
                mean, log_std = self.last_prior.expand(len(z), -1, *z.shape[2:]).chunk(2, 1)
            result = result + normal_log_prob((leaving - mean) * (-log_std).exp())
            result = result - log_std.sum((1, 2, 3))
        return result

    def load(self, variables: Tree) -> None:
        """Copy from jaxood's variables."""
        params, last = variables["params"], len(self.priors)
        for level, steps in enumerate(self.steps):
            for i, step in enumerate(steps):
                step.load(unstack(params[f"steps_{level}"]["step"], i))
        for level, prior in enumerate(self.priors):
            prior.load(params[f"priors_{level}"]["ZeroConv_0"])
        with torch.no_grad():
            self.last_prior.copy_(tensor(params[f"priors_{last}"]["prior"])[:, None, None])
