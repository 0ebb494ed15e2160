"""Variational autoencoder of the BatchNorm paper (Appendix C.1, Table 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxood import compilation
from jaxood.density import (
    Array,
    DensityModel,
    Variables,
    builder,
    check_images,
    check_shape,
    draw,
    image_keys,
)
from jaxood.nn.batch_norm import BatchNorm
from jaxood.nn.convolution import Conv, ConvTranspose
from jaxood.nn.likelihoods import LEVELS, categorical_log_prob, categorical_sample, to_unit

MIN_SCALE = 1e-3
"""The least scale of the posterior, so that no image makes its logarithm infinite."""


class Encoder(nn.Module):
    """The inference network: six convolutions, each with BatchNorm and ReLU, and a dense layer.

    Attributes:
        width: channels of the first layer for each channel of the image.
        latent: size of the latent vector.
        conv: makes the convolutions, as `flax.linen.Conv` does.
    """

    width: int
    latent: int
    conv: Callable[..., Any] = Conv

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map ``(n, h, w, c)`` in [-1, 1] to the posterior's mean and scale, ``(n, latent)``."""
        _, h, w, c = x.shape
        narrow, wide = self.width * c, 2 * self.width * c
        for features, kernel, stride, padding in (
            (narrow, (5, 5), 1, 2),
            (narrow, (5, 5), 2, 2),
            (narrow, (5, 5), 1, 2),
            (wide, (5, 5), 2, 2),
            (wide, (5, 5), 1, 2),
            (8 * self.width, (h // 4, w // 4), 1, 0),
        ):
            x = self.conv(features, kernel, stride, padding, use_bias=False)(x)
            x = BatchNorm(use_running_average=not train, relu=True)(x)
        mean, scale = jnp.split(nn.Dense(2 * self.latent)(x.reshape(len(x), -1)), 2, axis=-1)
        return mean, MIN_SCALE + nn.softplus(scale)


class Decoder(nn.Module):
    """The generator: eight transposed convolutions, the first six with BatchNorm.

    Attributes:
        width: as in `Encoder`.
        image_shape: ``(h, w, c)``.
        conv_transpose: makes the convolutions, as `jaxood.nn.convolution.ConvTranspose` does.
    """

    width: int
    image_shape: tuple[int, int, int]
    conv_transpose: Callable[..., Any] = ConvTranspose

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Map ``(n, latent)`` to logits ``(n, h, w, c, 256)``."""
        h, w, c = self.image_shape
        narrow, wide = self.width * c, 2 * self.width * c
        x = z[:, None, None]
        for features, kernel, stride, padding in (
            (wide, (h // 4, w // 4), 1, 0),
            (wide, (5, 5), 2, 2),
            (wide, (5, 5), 1, 2),
            (narrow, (5, 5), 2, 2),
            (narrow, (5, 5), 1, 2),
            (narrow, (5, 5), 1, 2),
        ):
            # With an output padding of 1, a stride of 2 doubles the size exactly.
            conv = self.conv_transpose(
                features, kernel, stride, padding, output_padding=stride - 1, use_bias=False
            )
            x = BatchNorm(use_running_average=not train, relu=True)(conv(x))
        x = nn.relu(self.conv_transpose(8 * self.width, (5, 5), padding=2)(x))
        x = self.conv_transpose(LEVELS * c, (1, 1))(x)
        return x.reshape(len(z), h, w, c, LEVELS)


class VAE(nn.Module):
    """The two networks and the two terms of the evidence lower bound.

    Attributes:
        image_shape: ``(h, w, c)``.
        width: as in `Encoder`.
        latent: size of the latent vector.
        conv: makes the encoder's convolutions, as `flax.linen.Conv` does.
        conv_transpose: makes the decoder's, as `jaxood.nn.convolution.ConvTranspose` does.
    """

    image_shape: tuple[int, int, int]
    width: int = 32
    latent: int = 64
    conv: Callable[..., Any] = Conv
    conv_transpose: Callable[..., Any] = ConvTranspose

    def setup(self):
        self.encoder = Encoder(self.width, self.latent, self.conv)
        self.decoder = Decoder(self.width, self.image_shape, self.conv_transpose)

    def encode(self, x: Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Map uint8 ``(n, h, w, c)`` to the posterior's mean and scale, each ``(n, latent)``."""
        return self.encoder(to_unit(x), train=train)

    def decode(self, z: jax.Array, *, train: bool = False) -> jax.Array:
        """Map ``(n, latent)`` to logits ``(n, h, w, c, 256)``."""
        return self.decoder(z, train=train)

    def __call__(
        self, x: Array, noise: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Return ``log p(x|z)`` at ``z = mean + scale * noise`` and ``KL(q(z|x) || p(z))``.

        Args:
            x: uint8 ``(n, h, w, c)``.
            noise: ``(n, latent)``.
            train: BatchNorm mode.

        Returns:
            Two arrays ``(n,)``, nats.
        """
        mean, scale = self.encode(x, train=train)
        logits = self.decode(mean + scale * noise, train=train)
        kl = 0.5 * (mean**2 + scale**2 - 1) - jnp.log(scale)
        return categorical_log_prob(logits, x).sum((1, 2, 3)), kl.sum(1)


@builder
def vae(
    image_shape: Sequence[int],
    *,
    width: int = 32,
    latent: int = 64,
    conv: Callable[..., Any] = Conv,
    conv_transpose: Callable[..., Any] = ConvTranspose,
) -> DensityModel:
    """VAE over uint8 images with a categorical likelihood over 256 levels (BatchNorm paper).

    ``log_prob`` estimates the evidence lower bound on the discrete log-likelihood: the expectation
    over the posterior by one draw, the Kullback-Leibler term in closed form (Kingma & Welling
    2013). Without a key the draw is the posterior's mean, and the value is no bound.
    `elbo_estimate` averages draws and gives the Monte-Carlo error. There is no importance
    weighting, because copies of an image would replace the statistics of its batch.

    The architecture is that of Table 3, with two additions that it needs to work: the decoder's
    first layer has an h/4 x w/4 kernel without padding, as it starts from a point, and strided
    layers have an output padding of 1. The paper leaves two choices:

    - BatchNorm sits "before each convolutional layer" (Section 4.1) and belongs "to all the
      convolutional layers and deconvolutional layers, except for the last two" (Appendix C.1).
      Here it follows each of those layers, before the ReLU, and so lies before the next; pixels
      and latents themselves are not normalized.
    - The paper names no activations. They are ReLU here: its table has no room for the gates of
      the VAE that it cites (van den Berg et al. 2018).

    Args:
        image_shape: ``(h, w, c)``, height and width equal and a multiple of 4.
        width: channels of the first layer for each channel of the image (paper: 32). The other
            layers are in proportion, except for the 256 levels.
        latent: size of the latent vector; the paper does not say, its source takes 64.
        conv: makes the encoder's convolutions, as `flax.linen.Conv` does.
        conv_transpose: makes the decoder's, as `jaxood.nn.convolution.ConvTranspose` does.

    Returns:
        A `DensityModel`. ``sample`` draws latents of standard deviation ``temperature``, decodes in
        evaluation mode and draws every pixel from its categorical distribution.

    Raises:
        ValueError: if height and width differ or are not a multiple of 4.
    """
    h, w, c = image_shape
    if h != w or h % 4:
        raise ValueError(
            f"the VAE halves square images twice: {h}x{w} images need one size, a multiple of 4"
        )
    net: Any = VAE((h, w, c), width, latent, conv, conv_transpose)

    @compilation.jit
    def init(key, x):
        return net.init(key, jnp.zeros((1, *x.shape[1:]), jnp.uint8), jnp.zeros((1, latent)))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del dropout_key  # this model has no dropout
        check_images(x)
        check_shape(x, image_shape)
        shape = (len(x), latent)
        noise = jnp.zeros(shape) if key is None else draw(jax.random.normal, key, shape)
        (log_likelihood, kl), updates = net.apply(
            variables, x, noise, train=train, mutable=["batch_stats"]
        )
        result = log_likelihood - kl
        return (result, updates["batch_stats"]) if mutable else result

    def sample(variables, key, n, *, temperature=1.0):
        latent_key, pixel_key = jax.random.split(key)
        z = temperature * jax.random.normal(latent_key, (n, latent))
        logits = net.apply(variables, z, method="decode")
        return categorical_sample(pixel_key, logits)

    return DensityModel(init, log_prob, sample)


def elbo_estimate(
    model: DensityModel, variables: Variables, x: Array, key: jax.Array, draws: int
) -> tuple[jax.Array, jax.Array]:
    """Average the evidence lower bound over draws, in evaluation mode.

    Args:
        model: a `DensityModel` with noise.
        variables: variables of the model.
        x: uint8 ``(n, h, w, c)``.
        key: a typed key; an image's noise is a function of this key and the image alone.
        draws: number of draws, at least 2.

    Returns:
        The mean and its Monte-Carlo standard error, each float32 ``(n,)``, nats.
    """
    values = lax.map(
        lambda key: model.log_prob(variables, x, key=image_keys(key, x)),
        jax.random.split(key, draws),
    )
    return values.mean(0), values.std(0, ddof=1) / jnp.sqrt(draws)
