"""PixelCNN++ (Salimans et al. 2017), with BatchNorm as in the BatchNorm paper (Appendix C.1)."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxood import compilation
from jaxood.density import DensityModel, builder, check_images, check_shape
from jaxood.models.pixelcnn.layers import (
    GatedBlock,
    Settings,
    ShiftedConv,
    ShiftedConvTranspose,
    pointwise,
)
from jaxood.models.pixelcnn.sampling import sample_incremental
from jaxood.nn.layers import turns_at_once
from jaxood.nn.likelihoods import logistic_mixture_log_prob, logistic_mixture_size, to_unit

INIT_IMAGES = 64
"""The most images that weight normalization is initialized from."""

Context = list[tuple[jax.Array, jax.Array]]
"""The outputs of a stream's blocks on the way down and on the way up, for each level."""


class Stream(nn.Module):
    """One of the two streams, which goes down through the resolutions and up again.

    Each block on the way up has a short-cut connection from the block of the same depth on the
    way down.

    Attributes:
        kernel: (2, 3) for the vertical stream, which sees rows above; (2, 2) for the horizontal
            one, which sees rows above and columns to the left.
        depth: residual blocks in each stage. A stage that follows an upsampling has one more.
        levels: number of resolutions.
        settings: settings of the network.
    """

    kernel: tuple[int, int]
    depth: int
    levels: int
    settings: Settings

    def setup(self):
        def blocks():
            return [GatedBlock(self.kernel, self.settings) for _ in range(self.levels)]

        width, last = self.settings.width, self.levels - 1
        self.down, self.up = blocks(), blocks()
        self.strided = [
            ShiftedConv(width, self.kernel, self.settings, stride=2) for _ in range(last)
        ]
        self.transposed = [ShiftedConvTranspose(self.kernel, self.settings) for _ in range(last)]

    def __call__(
        self, x: jax.Array, context: Context | None = None, level: int = 0, *, train: bool = False
    ) -> tuple[jax.Array, Context]:
        """Run all resolutions from ``level`` on.

        Args:
            x: ``(n, h, w, width)``.
            context: the second result of the vertical stream, for the horizontal one.
            level: 0 is the full resolution.
            train: BatchNorm mode.

        Returns:
            ``(n, h, w, width)``, and for each level the outputs of its blocks on the way down and
            on the way up, two arrays ``(blocks, n, h', w', width)``.
        """
        x, states = self.descend(x, context, level, train=train)
        coarser = []
        if level < self.levels - 1:
            x = self.shrink(x, level, train=train)
            x, coarser = self(x, context, level + 1, train=train)
            x = self.grow(x, level, train=train)
        x, outputs = self.ascend(x, states, context, level, train=train)
        return x, [(states[1:], outputs), *coarser]

    def descend(
        self, x: jax.Array, context: Context | None, level: int, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Run the blocks of a level that come before the coarser levels.

        Returns:
            The result, and the states before the first block and after each.
        """
        skips = context[level][0] if context else None
        end, outputs = self._stage(self.down[level], self.depth, x, skips, train)
        return end, jnp.concatenate([x[None], outputs])

    def ascend(
        self,
        x: jax.Array,
        states: jax.Array,
        context: Context | None,
        level: int,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Run the blocks of a level that come after the coarser levels.

        Returns:
            The result, and the state after each block.
        """
        # The last state is the coarsest level's own input.
        skips = jnp.flip(states if level < self.levels - 1 else states[:-1], axis=0)
        if context:
            skips = jnp.concatenate([context[level][1], skips], axis=-1)
        # The stages that follow an upsampling have one block more.
        depth = self.depth + (level < self.levels - 1)
        return self._stage(self.up[level], depth, x, skips, train)

    def _stage(self, block, depth, x, skips, train):
        """The result of a block repeated, each time with other parameters, and all its outputs."""

        def step(block, x, skip):
            x = block(x, skip, train=train)
            return x, x

        return nn.scan(
            step,
            variable_axes={"params": 0, "batch_stats": 0, "cache": 0},
            split_rngs={"params": True, "dropout": True},
            length=depth,
            unroll=turns_at_once(self, depth),
        )(block, x, skips)

    def shrink(self, x: jax.Array, level: int, *, train: bool = False) -> jax.Array:
        """Go from a level to the next, which is half as high and wide."""
        return self.strided[level](x, train=train)

    def grow(self, x: jax.Array, level: int, *, train: bool = False) -> jax.Array:
        """Go back to a level from the next."""
        return self.transposed[level](x, train=train)


class PixelCNN(nn.Module):
    """The network that maps images to the parameters of each pixel's logistic mixture.

    The vertical stream sees the rows above a pixel. The horizontal stream sees the pixels to the
    left in the row and, at every block, the vertical stream.

    Attributes:
        features: number of parameters of a pixel's distribution.
        depth: residual blocks in each stage.
        levels: number of resolutions; height and width are divisible by ``2^(levels - 1)``.
        settings: settings of the network.
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

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Map images ``(n, h, w, c)`` in [-1, 1] to parameters ``(n, h, w, features)``."""
        # The channel of ones tells the inside of an image from the padding around it.
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        above = jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        left = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        _, context = self.vertical(self.enter_vertical(above, train=train), train=train)
        entered = self.enter_above(above, train=train) + self.enter_left(left, train=train)
        h, _ = self.horizontal(entered, context, train=train)
        return self.read_out(h)

    def read_out(self, h: jax.Array) -> jax.Array:
        """Map the result of the horizontal stream to the parameters."""
        return self.out(nn.elu(h))


@builder
def pixelcnn(
    image_shape: Sequence[int],
    *,
    width: int = 80,
    depth: int = 5,
    mixtures: int = 10,
    levels: int = 3,
    normalization: str = "batch",
    dropout: float = 0.5,
) -> DensityModel:
    """PixelCNN++ over uint8 images.

    ``log_prob`` is exact under the discrete measure. It draws no noise and ignores its key. In
    training mode a pixel's parameters depend on later pixels through the batch statistics. There
    ``log_prob`` is no log-probability: over the values of one image it does not sum to one.

    Args:
        image_shape: ``(h, w, c)``, 1 or 3 channels.
        width: channels of both streams (paper: 80).
        depth: gated residual blocks in each stage (paper: 5).
        mixtures: logistic components (paper: 10).
        levels: number of resolutions (paper: 3), each half as high and wide as the one before.
        normalization: "batch" puts BatchNorm after every shifted convolution (the BatchNorm
            paper); "weight" normalizes the weights of every convolution (Salimans et al.). For
            "weight", ``init`` takes the scale of its parameters from the images that it is given,
            so pass real ones.
        dropout: rate; dropout acts where ``log_prob`` is given a dropout key (paper: 0.5).

    Returns:
        A `DensityModel`.

    Raises:
        ValueError: if the height or the width is not divisible by ``2^(levels - 1)``, if the
            number of channels is not 1 or 3, or if the normalization has another name.
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
    network: Any = PixelCNN(logistic_mixture_size(c, mixtures), depth, levels, settings)

    @compilation.jit
    def init(key, x):
        return network.init(key, to_unit(x[:INIT_IMAGES]))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key  # the distribution is discrete and needs no noise
        check_images(x)
        check_shape(x, image_shape)
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        parameters, updates = network.apply(
            variables, to_unit(x), train=train, rngs=rngs, mutable=["batch_stats"]
        )
        result = logistic_mixture_log_prob(parameters, x).sum((1, 2, 3))
        return (result, updates.get("batch_stats", {})) if mutable else result

    @functools.partial(jax.jit, static_argnames="n")
    def sample(variables, key, n, *, temperature=1.0):
        return sample_incremental(network, variables, key, n, image_shape, temperature)

    return DensityModel(init, log_prob, sample)
