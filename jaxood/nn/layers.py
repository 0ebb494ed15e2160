"""Layers that several models share."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxood.nn.batch_norm import BatchNorm
from jaxood.nn.convolution import Conv

Either = TypeVar("Either", jax.Array, np.ndarray)


def turns_at_once(module: nn.Module, depth: int) -> int:
    """Choose the ``unroll`` of a module's scan over this many blocks.

    A loop copies what its turns keep for the gradient, a third of a training step on the CPU. So up
    to eight blocks are unrolled. More are scanned, so that compilation ends in reasonable time; and
    so are all blocks where their initial values are made, since that happens once.
    """
    return depth if depth <= 8 and not module.is_initializing() else 1


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice BatchNorm, ReLU, 3x3 convolution (He et al. 2016).

    Attributes:
        width: channels of the input and of the result.
        conv: makes the convolutions, as `flax.linen.Conv` does.
    """

    width: int
    conv: Callable[..., Any] = Conv

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map ``(n, h, w, width)`` to the same shape; ``train`` is the BatchNorm mode."""
        h = x
        for _ in range(2):
            h = BatchNorm(use_running_average=not train, relu=True)(h)
            h = self.conv(self.width, (3, 3), use_bias=False)(h)
        return x + h


class ResNet(nn.Module):
    """Convolution, a stack of residual blocks, and a 1x1 convolution that starts at zero.

    Attributes:
        width: channels of the residual blocks.
        depth: number of residual blocks.
        out_channels: channels of the result, which is zero at initialization.
        conv: makes the convolutions, as `flax.linen.Conv` does.
    """

    width: int
    depth: int
    out_channels: int
    conv: Callable[..., Any] = Conv

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h, w, out_channels)``; ``train`` is the BatchNorm mode."""
        x = self.conv(self.width, (3, 3), use_bias=False)(x)
        stack = nn.scan(
            lambda block, x, _: (block(x, train=train), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=turns_at_once(self, self.depth),
        )
        x, _ = stack(ResidualBlock(self.width, self.conv, name="blocks"), x, None)
        x = BatchNorm(use_running_average=not train, relu=True)(x)
        return self.conv(self.out_channels, (1, 1), kernel_init=nn.initializers.zeros)(x)


def squeeze(x: Either) -> Either:
    """Move each 2x2 patch into channels: ``(n, h, w, c)`` to ``(n, h/2, w/2, 4c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def unsqueeze(x: Either) -> Either:
    """Undo `squeeze`: ``(n, h, w, 4c)`` to ``(n, 2h, 2w, c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def checkerboard(shape: Sequence[int]) -> jax.Array:
    """Return the mask of images ``(n, h, w, c)`` that is 1 where row + column is even.

    The mask is float32 ``(h, w, c)`` (Dinh et al. 2017, Figure 3).
    """
    _, h, w, c = shape
    even = (jnp.arange(h)[:, None] + jnp.arange(w)) % 2 == 0
    return jnp.broadcast_to(even[:, :, None], (h, w, c)).astype(jnp.float32)


def channelwise(shape: Sequence[int]) -> jax.Array:
    """Return the mask of images ``(n, h, w, c)`` that is 1 on the first half of the channels.

    The mask is float32 ``(h, w, c)`` (Dinh et al. 2017, Figure 3).
    """
    _, h, w, c = shape
    return jnp.broadcast_to(jnp.arange(c) < c // 2, (h, w, c)).astype(jnp.float32)
