"""Building blocks that several models share."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from jaxood.nn.convolution import Conv

BATCH_NORM_MOMENTUM = 0.9
"""Weight of the OLD value in a running average (Flax's convention)."""

BATCH_NORM_EPSILON = 1e-5
"""Added to the variance."""

BatchNorm = functools.partial(
    nn.BatchNorm,
    momentum=BATCH_NORM_MOMENTUM,
    epsilon=BATCH_NORM_EPSILON,
    # E[x^2] - E[x]^2 cancels badly, and the BatchNorm test measures small differences.
    use_fast_variance=False,
)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice BatchNorm, ReLU, 3x3 convolution (He et al. 2016)."""

    channels: int
    conv: Callable
    train: bool

    @nn.compact
    def __call__(self, x, _=None):
        h = x
        for _ in range(2):
            h = nn.relu(BatchNorm(use_running_average=not self.train)(h))
            h = self.conv(self.channels, (3, 3), use_bias=False)(h)
        return x + h, None


class ResNet(nn.Module):
    """Convolution, a scanned stack of residual blocks, and a 1x1 convolution that starts at zero.

    Attributes:
        width: channels of the residual blocks.
        depth: their number.
        out_channels: of the result, which is zero at initialization.
        conv: makes the convolutions, as `flax.linen.Conv` does.
        unroll: how many blocks one turn of the scan holds.
    """

    width: int
    depth: int
    out_channels: int
    conv: Callable = Conv
    unroll: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        """Map ``(n, h, w, c)`` to ``(n, h, w, out_channels)``; ``train`` is the BatchNorm mode."""
        x = self.conv(self.width, (3, 3), use_bias=False)(x)
        stack = nn.scan(
            ResidualBlock,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.unroll,
        )
        x, _ = stack(self.width, self.conv, train, name="blocks")(x, None)
        x = nn.relu(BatchNorm(use_running_average=not train)(x))
        return self.conv(self.out_channels, (1, 1), kernel_init=nn.initializers.zeros)(x)


def squeeze(x):
    """Move each 2x2 patch into channels: ``(n, h, w, c)`` to ``(n, h/2, w/2, 4c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def unsqueeze(x):
    """The inverse of `squeeze`: ``(n, h, w, 4c)`` to ``(n, 2h, 2w, c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def checkerboard(shape):
    """Float32 mask ``(h, w, c)`` for images ``(n, h, w, c)``: 1 where row + column is even.

    Dinh et al. 2017, Figure 3.
    """
    _, h, w, c = shape
    even = (jnp.arange(h)[:, None] + jnp.arange(w)) % 2 == 0
    return jnp.broadcast_to(even[:, :, None], (h, w, c)).astype(jnp.float32)


def channelwise(shape):
    """Float32 mask ``(h, w, c)`` for images ``(n, h, w, c)``: 1 on the first half of the channels.

    Dinh et al. 2017, Figure 3.
    """
    _, h, w, c = shape
    return jnp.broadcast_to(jnp.arange(c) < c // 2, (h, w, c)).astype(jnp.float32)
