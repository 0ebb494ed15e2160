"""Layers of PixelCNN++: shifted convolutions with their normalization, and gated blocks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxood.nn.batch_norm import BatchNorm
from jaxood.nn.convolution import Conv, ConvTranspose


class Settings(NamedTuple):
    """The settings that all parts of a PixelCNN++ share.

    Attributes:
        width: channels of both streams.
        normalization: "batch" normalizes the result of every shifted convolution; "weight"
            normalizes the kernel of every convolution; "none" is for parameters into which a
            normalization has been folded.
        dropout: rate; dropout acts where a dropout key is given.
    """

    width: int
    normalization: str
    dropout: float


class Normalized(nn.Module):
    """A convolution and its normalization.

    Attributes:
        make_conv: makes the convolution; it is called with ``use_bias``.
        normalization: as in `Settings`. "weight" is initialized from the data, to outputs of mean
            zero (Salimans & Kingma 2016).
        init_scale: standard deviation of the outputs at initialization.
        feature_axis: the kernel's axis of output channels.
    """

    make_conv: Callable[..., Any]
    normalization: str
    init_scale: float = 1.0
    feature_axis: int = -1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Map ``(n, h, w, c)`` to the convolution's size; ``train`` is the BatchNorm mode."""
        conv = self.make_conv(use_bias=self.normalization == "none")
        if self.normalization == "none":
            return conv(x)
        if self.normalization == "batch":
            scale_init = nn.initializers.constant(self.init_scale)
            norm = BatchNorm(use_running_average=not train, scale_init=scale_init, name="norm")
            return norm(conv(x))
        x = nn.WeightNorm(conv, use_scale=False, feature_axes=self.feature_axis)(x)
        scale = self.param("scale", lambda _: self.init_scale / (x.std((0, 1, 2)) + 1e-6))
        bias = self.param("bias", lambda _: -scale * x.mean((0, 1, 2)))
        return scale * x + bias


class ShiftedConv(nn.Module):
    """A convolution that is shifted, so that it sees no row below its output's.

    A kernel of odd width is shifted up: an output sees its own row and ``kernel[0] - 1`` rows
    above it, in columns on both sides. A kernel of even width is shifted up and to the left: an
    output sees these rows, in its own column and columns to the left.

    Where the collection ``"cache"`` is mutable, ``x`` is only the newest row (odd width) or pixel
    (even width). ``window`` in the cache holds what the kernel sees: earlier inputs are read from
    it, and ``x`` is written to it.

    Attributes:
        features: channels of the output.
        kernel: height and width.
        settings: settings of the network.
        stride: in both directions.
        init_scale: standard deviation of the outputs at initialization.
    """

    features: int
    kernel: tuple[int, int]
    settings: Settings
    stride: int = 1
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h / stride, w / stride, features)``."""
        height, width = self.kernel
        side = (width // 2, width // 2) if width % 2 else (width - 1, 0)
        padding = ((height - 1, 0), side)
        if self.is_mutable_collection("cache") and not self.is_initializing():
            missing = 0 if width % 2 else width - 1
            n, _, columns, c = x.shape
            window = self.variable(
                "cache", "window", jnp.zeros, (n, height, columns + missing, c), x.dtype
            )
            x = lax.dynamic_update_slice(window.value, x, (0, height - 1, missing, 0))
            window.value = x
            padding = ((0, 0), side if width % 2 else (0, 0))
        strides = (self.stride, self.stride)
        conv = functools.partial(
            Conv, self.features, self.kernel, strides=strides, padding=padding, name="conv"
        )
        return Normalized(conv, self.settings.normalization, self.init_scale)(x, train=train)


class ShiftedConvTranspose(nn.Module):
    """A transposed convolution that doubles height and width, shifted as a `ShiftedConv`.

    An input reaches no output in a row above its own and, with a kernel of width 2, none in a
    column to the left.

    Attributes:
        kernel: height and width.
        settings: settings of the network.
    """

    kernel: tuple[int, int]
    settings: Settings

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, 2h, 2w, width)``."""
        settings, extra = self.settings, (0, self.kernel[1] - 2)
        conv = functools.partial(
            ConvTranspose,
            settings.width,
            self.kernel,
            strides=2,
            padding=extra,
            output_padding=extra,
            name="conv_transpose",
        )
        return Normalized(conv, settings.normalization, feature_axis=-2)(x, train=train)


def pointwise(features: int, settings: Settings, name: str | None = None) -> Normalized:
    """Make a 1x1 convolution.

    It is no shifted convolution, so that with the normalization "batch" it has a bias and no
    BatchNorm.
    """
    conv = functools.partial(Conv, features, (1, 1), name="conv")
    return Normalized(conv, "weight" if settings.normalization == "weight" else "none", name=name)


def concat_elu(x: jax.Array) -> jax.Array:
    """Join the ELUs of ``x`` and of ``-x`` to twice the channels (Salimans et al. 2017's code)."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


class GatedBlock(nn.Module):
    """Gated residual block of shifted convolutions, with a short-cut connection from ``skip``.

    Attributes:
        kernel: height and width.
        settings: settings of the network.
    """

    kernel: tuple[int, int]
    settings: Settings

    @nn.compact
    def __call__(
        self, x: jax.Array, skip: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """Map ``(n, h, w, width)``, and ``skip`` with any channels, to ``(n, h, w, width)``."""
        width, dropout = self.settings.width, self.settings.dropout
        h = ShiftedConv(width, self.kernel, self.settings)(concat_elu(x), train=train)
        if skip is not None:
            h += pointwise(width, self.settings)(concat_elu(skip))
        h = nn.Dropout(dropout, deterministic=not self.has_rng("dropout"))(concat_elu(h))
        h = ShiftedConv(2 * width, self.kernel, self.settings, init_scale=0.1)(h, train=train)
        h, gate = jnp.split(h, 2, axis=-1)
        return x + h * nn.sigmoid(gate)
