"""PixelCNN++ with BatchNorm in PyTorch, the peer of `jaxood.models.pixelcnn`."""

# pyright: reportMissingImports=false

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.benchmarks.peers.layers import Density, Tree, copy, to_unit, unstack

MIN_LOG_SCALE = -7.0


class ShiftedConv(nn.Module):
    """A convolution that sees no row below its output's, and BatchNorm."""

    def __init__(self, channels: int, features: int, kernel: tuple[int, int], stride: int = 1):
        super().__init__()
        height, width = kernel
        left, right = (width // 2, width // 2) if width % 2 else (width - 1, 0)
        self.margin = (left, right, height - 1, 0)
        self.conv = nn.Conv2d(channels, features, kernel, stride, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, c, h, w)`` to ``(n, features, h / stride, w / stride)``."""
        return self.norm(self.conv(F.pad(x, self.margin)))

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        params, stats = params["Normalized_0"], stats["Normalized_0"]
        copy(self.conv, params["conv"])
        copy(self.norm, params["norm"], stats["norm"])


class ShiftedConvTranspose(nn.Module):
    """A transposed convolution that doubles height and width, and BatchNorm."""

    def __init__(self, width: int, kernel: tuple[int, int]):
        super().__init__()
        extra = (0, kernel[1] - 2)
        self.conv = nn.ConvTranspose2d(width, width, kernel, 2, extra, extra, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, width, h, w)`` to ``(n, width, 2 h, 2 w)``."""
        return self.norm(self.conv(x))

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        params, stats = params["Normalized_0"], stats["Normalized_0"]
        copy(self.conv, params["conv_transpose"])
        copy(self.norm, params["norm"], stats["norm"])


def concat_elu(x: Tensor) -> Tensor:
    """Join the ELUs of ``x`` and of ``-x``."""
    return F.elu(torch.cat([x, -x], 1))


class GatedBlock(nn.Module):
    """Gated residual block, with a short-cut connection of ``skip`` channels; 0 for none."""

    def __init__(self, width: int, kernel: tuple[int, int], skip: int, dropout: float):
        super().__init__()
        self.enter = ShiftedConv(2 * width, width, kernel)
        self.skip = nn.Conv2d(2 * skip, width, 1) if skip else None
        self.dropout = nn.Dropout(dropout)
        self.out = ShiftedConv(2 * width, 2 * width, kernel)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map ``(n, width, h, w)`` to the same shape."""
        h = self.enter(concat_elu(x))
        if self.skip is not None and skip is not None:
            h = h + self.skip(concat_elu(skip))
        return x + F.glu(self.out(self.dropout(concat_elu(h))), 1)

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        self.enter.load(params["ShiftedConv_0"], stats["ShiftedConv_0"])
        self.out.load(params["ShiftedConv_1"], stats["ShiftedConv_1"])
        if self.skip is not None:
            copy(self.skip, params["Normalized_0"]["conv"])


class Stream(nn.Module):
    """One of the two streams; ``context`` says whether it sees the other."""

    down: Any
    up: Any

    def __init__(
        self,
        width: int,
        kernel: tuple[int, int],
        depth: int,
        levels: int,
        context: bool,
        dropout: float,
    ):
        super().__init__()
        last = levels - 1

        def blocks(count, skip):
            return nn.ModuleList(GatedBlock(width, kernel, skip, dropout) for _ in range(count))

        skip = width if context else 0
        self.down = nn.ModuleList(blocks(depth, skip) for _ in range(levels))
        # The stages that follow an upsampling have one block more.
        self.up = nn.ModuleList(blocks(depth + (i < last), skip + width) for i in range(levels))
        self.strided = nn.ModuleList(ShiftedConv(width, width, kernel, 2) for _ in range(last))
        self.transposed = nn.ModuleList(ShiftedConvTranspose(width, kernel) for _ in range(last))

    def forward(self, x: Tensor, context: list[list[Tensor]]) -> tuple[Tensor, list[list[Tensor]]]:
        """Run all resolutions.

        Args:
            x: ``(n, width, h, w)``.
            context: the second result of the vertical stream, for the horizontal one; else empty.

        Returns:
            ``(n, width, h, w)``, and the outputs of the blocks of every stage, in the order in
            which the stages are run.
        """
        given = iter(context)
        outputs, states = [], []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.strided[level - 1](x)
            states.append([x])
            skips = next(given, None)
            for i, block in enumerate(blocks):
                x = block(x, skips[i] if skips else None)
                states[-1].append(x)
            outputs.append(states[-1][1:])
        states[-1].pop()  # the coarsest level's own input
        for level in reversed(range(len(self.up))):
            if level < len(self.transposed):
                x = self.transposed[level](x)
            skips = next(given, None)
            outputs.append([])
            for i, block in enumerate(self.up[level]):
                skip = states[level].pop()
                x = block(x, torch.cat([skips[i], skip], 1) if skips else skip)
                outputs[-1].append(x)
        return x, outputs

    def load(self, params: Tree, stats: Tree) -> None:
        """Copy from Flax."""
        for part in ("down", "up"):
            for level, blocks in enumerate(getattr(self, part)):
                for i, block in enumerate(blocks):
                    name = f"{part}_{level}"
                    block.load(unstack(params[name], i), unstack(stats[name], i))
        for part in ("strided", "transposed"):
            for level, conv in enumerate(getattr(self, part)):
                conv.load(params[f"{part}_{level}"], stats[f"{part}_{level}"])


class PixelCNN(Density):
    """PixelCNN++ over uint8 images, with the arguments of `jaxood.pixelcnn`."""

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        width: int = 80,
        depth: int = 5,
        mixtures: int = 10,
        levels: int = 3,
        dropout: float = 0.5,
    ):
        super().__init__()
        c = image_shape[2]
        self.mixtures = mixtures
        self.vertical = Stream(width, (2, 3), depth, levels, False, dropout)
        self.horizontal = Stream(width, (2, 2), depth, levels, True, dropout)
        self.enter_vertical = ShiftedConv(c + 1, width, (2, 3))
        self.enter_above = ShiftedConv(c + 1, width, (1, 3))
        self.enter_left = ShiftedConv(c + 1, width, (2, 1))
        self.out = nn.Conv2d(width, mixtures * (1 + 2 * c + c * (c - 1) // 2), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1] ``(n, c, h, w)`` to parameters ``(n, features, h, w)``."""
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        above = F.pad(x, (0, 0, 1, 0))[:, :, :-1]
        left = F.pad(x, (1, 0, 0, 0))[:, :, :, :-1]
        _, context = self.vertical(self.enter_vertical(above), [])
        h, _ = self.horizontal(self.enter_above(above) + self.enter_left(left), context)
        return self.out(F.elu(h))

    def log_prob(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute log-likelihoods, see `Density`."""
        del noise
        return logistic_mixture_log_prob(self(to_unit(x)), x, self.mixtures).sum((1, 2))

    def load(self, variables: Tree) -> None:
        """Copy from jaxood's variables."""
        params, stats = variables["params"], variables["batch_stats"]
        for part in ("vertical", "horizontal", "enter_vertical", "enter_above", "enter_left"):
            getattr(self, part).load(params[part], stats[part])
        copy(self.out, params["out"]["conv"])


def logistic_mixture_log_prob(parameters: Tensor, x: Tensor, mixtures: int) -> Tensor:
    """Compute log-masses of pixels under a mixture of discretized logistics.

    Args:
        parameters: ``(n, features, h, w)``.
        x: uint8 ``(n, c, h, w)``.
        mixtures: number of components.

    Returns:
        ``(n, h, w)`` nats.
    """
    c = x.shape[1]
    logits, rest = parameters.permute(0, 2, 3, 1).tensor_split([mixtures], -1)
    rest = rest.unflatten(-1, (mixtures, -1))
    means, log_scales, coefficients = rest.tensor_split([c, 2 * c], -1)
    log_scales = log_scales.clamp(min=MIN_LOG_SCALE)
    level = x.permute(0, 2, 3, 1)[..., None, :]
    pixel = to_unit(level)
    if c == 3:
        red_green, red_blue, green_blue = coefficients.tanh().unbind(-1)
        red, green = pixel[..., 0], pixel[..., 1]
        shifts = [torch.zeros_like(red_green), red_green * red, red_blue * red + green_blue * green]
        means = means + torch.stack(shifts, -1)
    distance, inverse = pixel - means, (-log_scales).exp()
    upper = F.logsigmoid(inverse * (distance + 1 / 255))
    lower = F.logsigmoid(-inverse * (distance - 1 / 255))
    # The mass is sigmoid(a) sigmoid(-b) (1 - exp(b - a)) between the edges a > b.
    log_width = math.log(2 / 255) - log_scales
    width = log_width.exp()
    narrow = width < 1e-3
    wide_enough = torch.where(narrow, 1.0, width)
    between = torch.where(narrow, log_width - width / 2, (-torch.expm1(-wide_enough)).log())
    mass = torch.where(level > 0, lower, 0.0) + torch.where(level < 255, upper, 0.0)
    mass = mass + torch.where((level > 0) & (level < 255), between, 0.0)
    return torch.logsumexp(logits.log_softmax(-1) + mass.sum(-1), -1)
