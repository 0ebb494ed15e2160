"""RealNVP in PyTorch, the peer of `jaxood.models.realnvp`."""

# pyright: reportMissingImports=false

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.benchmarks.peers.layers import (
    Density,
    Tree,
    copy,
    normal_log_prob,
    squeeze,
    tensor,
    unstack,
)

ALPHA = 0.05


def _norm_relu_conv(width: int) -> list[nn.Module]:
    conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True), conv]


class ResidualBlock(nn.Module):
    """Pre-activation residual block."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(*_norm_relu_conv(width), *_norm_relu_conv(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, width, h, w)`` to the same shape."""
        return x + self.body(x)

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        for i in range(2):
            name = f"BatchNorm_{i}"
            copy(self.body[3 * i], params[name], stats[name])
            copy(self.body[3 * i + 2], params[f"Conv_{i}"])


class ResNet(nn.Module):
    """Convolution, residual blocks, and a 1x1 convolution."""

    def __init__(self, channels: int, width: int, depth: int):
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.norm = nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, h, w)`` to ``(n, 2 c, h, w)``."""
        x = self.blocks(self.enter(x))
        return self.out(torch.relu_(self.norm(x)))

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        copy(self.enter, params["Conv_0"])
        copy(self.norm, params["BatchNorm_0"], stats["BatchNorm_0"])
        copy(self.out, params["Conv_1"])
        for i, block in enumerate(self.blocks):
            assert isinstance(block, ResidualBlock)
            block.load(unstack(params["blocks"], i), unstack(stats["blocks"], i))


class Coupling(nn.Module):
    """Affine coupling under a mask ``(1, c, h, w)``."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int, depth: int):
        super().__init__()
        channels = mask.shape[1]
        self.register_buffer("mask", mask)
        self.net = ResNet(channels, width, depth)
        self.bound = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``(n, c, h, w)``; return the log-determinant ``(n,)`` as well."""
        hidden = 1 - self.mask
        log_scale, shift = self.net(self.mask * x).chunk(2, 1)
        log_scale = hidden * self.bound * torch.tanh(log_scale)
        return x * log_scale.exp() + hidden * shift, log_scale.sum((1, 2, 3))

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        self.net.load(params["net"], stats["net"])
        with torch.no_grad():
            self.bound.copy_(tensor(params["log_scale_bound"])[:, None, None])


class RealNVP(Density):
    """RealNVP over uint8 images, with the arguments of `jaxood.realnvp`."""

    def __init__(self, image_shape: Sequence[int], *, width: int = 32, depth: int = 4):
        super().__init__()
        h, w, c = image_shape

        def couplings(count, mask, width):
            masks = (mask if i % 2 == 0 else 1 - mask for i in range(count))
            return nn.ModuleList(Coupling(mask, width, depth) for mask in masks)

        half = torch.zeros(1, 4 * c, h // 2, w // 2)
        half[:, : 2 * c] = 1
        self.fine = couplings(3, _checkerboard(c, h, w), width)
        self.squeezed = couplings(3, half, 2 * width)
        self.coarse = couplings(4, _checkerboard(2 * c, h // 2, w // 2), 2 * width)

    def noise(self, x: Tensor) -> Tensor:
        """Draw uniform noise for dequantization."""
        return torch.rand_like(x, dtype=torch.float32)

    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute log-likelihoods, see `Density`."""
        y = ALPHA + (1 - 2 * ALPHA) / 256 * (x + (0.5 if noise is None else noise))
        log_y, log_not_y = y.log(), torch.log1p(-y)
        log_slope = math.log((1 - 2 * ALPHA) / 256) - log_y - log_not_y
        z, fine = _through(self.fine, log_y - log_not_y)
        z, squeezed = _through(self.squeezed, squeeze(z))
        kept, factored_out = z.chunk(2, 1)
        kept, coarse = _through(self.coarse, kept)
        log_prior = normal_log_prob(kept) + normal_log_prob(factored_out)
        return log_prior + log_slope.sum((1, 2, 3)) + fine + squeezed + coarse

    def load(self, variables: Tree) -> None:
        """Copy from jaxood's variables."""
        params, stats = variables["params"], variables["batch_stats"]
        for part in ("fine", "squeezed", "coarse"):
            for i, coupling in enumerate(getattr(self, part)):
                coupling.load(params[f"{part}_{i}"], stats[f"{part}_{i}"])


def _through(couplings, x: Tensor) -> tuple[Tensor, Tensor]:
    log_det = x.new_zeros(len(x))
    for coupling in couplings:
        x, term = coupling(x)
        log_det = log_det + term
    return x, log_det


def _checkerboard(c: int, h: int, w: int) -> Tensor:
    even = (torch.arange(h)[:, None] + torch.arange(w)) % 2 == 0
    return even.float().expand(1, c, h, w).contiguous()
