"""PixelCNN++ (Salimans et al. 2017), with BatchNorm as in the BatchNorm paper (Appendix C.1)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxood.density import DensityModel, builder
from jaxood.models.pixelcnn.sampling import sample_incremental
from jaxood.nn.convolution import Conv, ConvTranspose
from jaxood.nn.layers import BatchNorm
from jaxood.nn.likelihoods import logistic_mixture_log_prob, logistic_mixture_size, to_unit

INIT_IMAGES = 64
"""Weight normalization is initialized from at most so many."""


class Settings(NamedTuple):
    """What every part of a PixelCNN++ is told.

    Attributes:
        width: channels of both streams.
        normalization: "batch", after every shifted convolution; "weight", of every convolution;
            "none", where one of them has been folded into the kernels.
        dropout: rate, where a dropout key is given.
        train: BatchNorm mode.
    """

    width: int
    normalization: str
    dropout: float
    train: bool = False


class Normalized(nn.Module):
    """A convolution and what normalizes it.

    Attributes:
        make_conv: the convolution, but for ``use_bias``.
        normalization: as in `Settings`. "weight" is initialized from the data, to outputs of mean
            zero (Salimans & Kingma 2016).
        train: BatchNorm mode.
        init_scale: standard deviation of the outputs at initialization.
        feature_axis: of the kernel, that of the outputs.
    """

    make_conv: Callable
    normalization: str
    train: bool = False
    init_scale: float = 1.0
    feature_axis: int = -1

    @nn.compact
    def __call__(self, x):
        conv = self.make_conv(use_bias=self.normalization == "none")
        if self.normalization == "none":
            return conv(x)
        if self.normalization == "batch":
            scale_init = nn.initializers.constant(self.init_scale)
            norm = BatchNorm(use_running_average=not self.train, scale_init=scale_init, name="norm")
            return norm(conv(x))
        x = nn.WeightNorm(conv, use_scale=False, feature_axes=self.feature_axis)(x)
        scale = self.param("scale", lambda _: self.init_scale / (x.std((0, 1, 2)) + 1e-6))
        bias = self.param("bias", lambda _: -scale * x.mean((0, 1, 2)))
        return scale * x + bias


class ShiftedConv(nn.Module):
    """A convolution that looks up and, with an odd width, to both sides, else to the left.

    Its output at a pixel is made of inputs at that pixel, in ``kernel[0] - 1`` rows above it and,
    for an even width, in columns to the left. Where the collection ``"cache"`` is mutable, ``x``
    is the newest row (odd width) or pixel (even width) only, and ``window`` in the cache holds
    what the kernel sees around it: the past is read from there, and ``x`` is written there.

    Attributes:
        features: of the output.
        kernel: height and width.
        settings: of the network.
        stride: in both directions.
        init_scale: of the outputs.
    """

    features: int
    kernel: tuple[int, int]
    settings: Settings
    stride: int = 1
    init_scale: float = 1.0

    @nn.compact
    def __call__(self, x):
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
        settings = self.settings
        return Normalized(conv, settings.normalization, settings.train, self.init_scale)(x)


class ShiftedConvTranspose(nn.Module):
    """Doubles height and width; an input reaches no row and, with width 2, no column before it."""

    kernel: tuple[int, int]
    settings: Settings

    @nn.compact
    def __call__(self, x):
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
        return Normalized(conv, settings.normalization, settings.train, feature_axis=-2)(x)


def pointwise(features, settings, name=None):
    """A 1x1 convolution. It is no shifted one: "batch" leaves it a bias instead."""
    conv = functools.partial(Conv, features, (1, 1), name="conv")
    return Normalized(conv, "weight" if settings.normalization == "weight" else "none", name=name)


def concat_elu(x):
    """ELU of ``x`` and of ``-x``: twice the channels (Salimans et al. 2017's code)."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


class GatedBlock(nn.Module):
    """Gated residual block of shifted convolutions, with a short-cut connection from ``skip``."""

    kernel: tuple[int, int]
    settings: Settings

    @nn.compact
    def __call__(self, x, skip=None):
        width, dropout = self.settings.width, self.settings.dropout
        h = ShiftedConv(width, self.kernel, self.settings)(concat_elu(x))
        if skip is not None:
            h += pointwise(width, self.settings)(concat_elu(skip))
        h = nn.Dropout(dropout, deterministic=not self.has_rng("dropout"))(concat_elu(h))
        h = ShiftedConv(2 * width, self.kernel, self.settings, init_scale=0.1)(h)
        h, gate = jnp.split(h, 2, axis=-1)
        x += h * nn.sigmoid(gate)
        return x, x


class Stream(nn.Module):
    """One of the two streams: down through the resolutions and up again, with long skips.

    Attributes:
        kernel: (2, 3) for the vertical stream, which looks up, (2, 2) for the horizontal one,
            which looks up and left.
        depth: residual blocks a stage; those on the way up that follow an upsampling have one
            more.
        levels: resolutions.
        settings: of the network.
    """

    kernel: tuple[int, int]
    depth: int
    levels: int
    settings: Settings

    def setup(self):
        def stage(length):
            return nn.scan(
                GatedBlock,
                variable_axes={"params": 0, "batch_stats": 0, "cache": 0},
                split_rngs={"params": True, "dropout": True},
                length=length,
            )(self.kernel, self.settings)

        width, last = self.settings.width, self.levels - 1
        self.down = [stage(self.depth) for _ in range(self.levels)]
        self.up = [stage(self.depth + (level < last)) for level in range(self.levels)]
        self.strided = [
            ShiftedConv(width, self.kernel, self.settings, stride=2) for _ in range(last)
        ]
        self.transposed = [ShiftedConvTranspose(self.kernel, self.settings) for _ in range(last)]

    def __call__(self, x, context=None, level=0):
        """Run all resolutions from ``level`` on.

        Args:
            x: ``(n, h, w, width)``.
            context: what this returns beside the result, from the vertical stream to the
                horizontal one.
            level: 0 is the full resolution.

        Returns:
            ``(n, h, w, width)``, and each level's block outputs on the way down and on the way
            up, two arrays ``(blocks, n, h', w', width)``.
        """
        x, states = self.descend(x, context, level)
        coarser = []
        if level < self.levels - 1:
            x, coarser = self(self.shrink(x, level), context, level + 1)
            x = self.grow(x, level)
        x, outputs = self.ascend(x, states, context, level)
        return x, [(states[1:], outputs), *coarser]

    def descend(self, x, context, level):
        """A level's blocks before the coarser ones: the result, and the states around each."""
        end, outputs = self.down[level](x, context and context[level][0])
        return end, jnp.concatenate([x[None], outputs])

    def ascend(self, x, states, context, level):
        """A level's blocks after the coarser ones: the result, and the state after each."""
        # The last state is the coarsest level's own input.
        skips = jnp.flip(states if level < self.levels - 1 else states[:-1], axis=0)
        if context:
            skips = jnp.concatenate([context[level][1], skips], axis=-1)
        return self.up[level](x, skips)

    def shrink(self, x, level):
        """From a level to the next, half as high and wide."""
        return self.strided[level](x)

    def grow(self, x, level):
        """Back to a level from the next."""
        return self.transposed[level](x)


class PixelCNN(nn.Module):
    """The network: from images to the parameters of each pixel's logistic mixture.

    The vertical stream sees the rows above a pixel; the horizontal one sees the row's pixels to
    the left and, at every block, the vertical stream.

    Attributes:
        features: numbers a pixel's distribution has.
        depth: residual blocks a stage.
        levels: resolutions; height and width are divisible by ``2^(levels - 1)``.
        settings: of the network.
    """

    features: int
    depth: int
    levels: int
    settings: Settings

    def setup(self):
        width = self.settings.width
        self.vertical = Stream((2, 3), self.depth, self.levels, self.settings)
        self.horizontal = Stream((2, 2), self.depth, self.levels, self.settings)
        self.enter_vertical = ShiftedConv(width, (2, 3), self.settings)
        self.enter_above = ShiftedConv(width, (1, 3), self.settings)
        self.enter_left = ShiftedConv(width, (2, 1), self.settings)
        self.out = pointwise(self.features, self.settings)

    def __call__(self, x):
        """Map images ``(n, h, w, c)`` in [-1, 1] to parameters ``(n, h, w, features)``."""
        # The channel of ones tells the inside of an image from the padding around it.
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        above = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        left = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        _, context = self.vertical(self.enter_vertical(above))
        h, _ = self.horizontal(self.enter_above(above) + self.enter_left(left), context)
        return self.read_out(h)

    def read_out(self, h):
        """From the horizontal stream's result to the parameters."""
        return self.out(nn.elu(h))


@builder
def pixelcnn(
    image_shape,
    *,
    width=80,
    depth=5,
    mixtures=10,
    levels=3,
    normalization="batch",
    dropout=0.5,
):
    """PixelCNN++ over uint8 images.

    ``log_prob`` is exact under the discrete measure, draws no noise and ignores its key. In
    training mode a pixel's parameters see the pixels after it through the batch statistics, so
    it is no log-probability there: over the values of one image it does not sum to one.

    Args:
        image_shape: ``(h, w, c)``, 1 or 3 channels.
        width: channels of both streams (paper: 80).
        depth: gated residual blocks a stage (paper: 5).
        mixtures: logistic components (paper: 10).
        levels: resolutions (paper: 3), each half as high and wide as the one before.
        normalization: "batch", after every shifted convolution (the BatchNorm paper), or "weight",
            of every convolution (Salimans et al.). For "weight", the images that ``init`` is given
            set the scale of the initial parameters: pass real ones.
        dropout: rate where ``log_prob`` is given a dropout key (paper: 0.5).

    Returns:
        A `DensityModel`.

    Raises:
        ValueError: if the size is not divisible by ``2^(levels - 1)``, if there are neither 1 nor
            3 channels, or if the normalization is neither of the two.
    """
    h, w, c = image_shape
    coarsest = 2 ** (levels - 1)
    if h % coarsest or w % coarsest:
        raise ValueError(
            f"PixelCNN++ with {levels} resolutions needs a height and width divisible by "
            f"{coarsest}, not {h}x{w}"
        )
    if normalization not in ("batch", "weight"):
        raise ValueError(f'normalization is "batch" or "weight", not {normalization!r}')
    settings = Settings(width, normalization, dropout)
    network = PixelCNN(logistic_mixture_size(c, mixtures), depth, levels, settings)

    @jax.jit
    def init(key, x):
        return network.init(key, to_unit(x[:INIT_IMAGES]))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key  # the distribution is discrete: no noise
        if x.dtype != jnp.uint8:
            raise TypeError(f"images must be uint8 with levels 0 to 255, got {x.dtype}")
        mode = network.clone(settings=settings._replace(train=train))
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        parameters, updates = mode.apply(variables, to_unit(x), rngs=rngs, mutable=["batch_stats"])
        result = logistic_mixture_log_prob(parameters, x).sum((1, 2, 3))
        return (result, updates.get("batch_stats", {})) if mutable else result

    @functools.partial(jax.jit, static_argnames="n")
    def sample(variables, key, n, *, temperature=1.0):
        return sample_incremental(network, variables, key, n, image_shape, temperature)

    return DensityModel(init, log_prob, sample)
