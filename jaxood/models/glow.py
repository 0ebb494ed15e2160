"""Glow (Kingma and Dhariwal 2018), with whose likelihoods the NRM paper compares its own."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from jaxood import compilation
from jaxood.density import Init, LogProb, Sample, Spec, builder, check_shape, dequantize
from jaxood.nn.channels import at_every_pixel
from jaxood.nn.convolution import Conv
from jaxood.nn.layers import squeeze, turns_at_once, unsqueeze
from jaxood.nn.likelihoods import LEVELS
from jaxood.nn.rotation import Invertible1x1, Rotation, lu_rotations

SCALE_SPEED = 3.0
"""The factor of the learned log-scale of a layer that starts at zero, as in the authors' code."""


class Glow(NamedTuple):
    """A `DensityModel` with a further function, the density of its latents.

    Attributes:
        init: ``(key, x) -> variables``. Activation normalization starts from the data: ``x`` is a
            uint8 batch of training images, and its values matter.
        log_prob: as in a `DensityModel`; exact for the dequantized image. There is no BatchNorm,
            so ``train`` changes nothing.
        sample: as in a `DensityModel`.
        log_pz: ``(variables, x, *, key=None)`` to ``(n, levels)`` nats: the log-density of the
            latents that leave the flow at each level, given those of later levels. The last column
            is the density of "the last layer of latent variables" (NRM paper, Section 3.3,
            Figure 1b).
        spec: as in a `DensityModel`.
    """

    init: Init
    log_prob: LogProb
    sample: Sample
    log_pz: Callable[..., jax.Array]
    spec: Spec | None = None


class ActNorm(nn.Module):
    """Activation normalization: shift and scale by channel.

    The first batch sets both, so that its own activations have mean 0 and deviation 1.
    """

    @nn.compact
    def __call__(
        self, x: jax.Array, *, inverse: bool = False
    ) -> tuple[jax.Array, jax.Array | float]:
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``()``."""
        shift = self.param("shift", lambda _: -x.mean((0, 1, 2)))
        log_scale = self.param("log_scale", lambda _: -jnp.log(x.std((0, 1, 2)) + 1e-6))
        if inverse:
            y = x * jnp.exp(-log_scale) - shift
        else:
            y = (x + at_every_pixel(shift, x)) * at_every_pixel(jnp.exp(log_scale), x)
        return y, x.shape[1] * x.shape[2] * log_scale.sum()


class ZeroConv(nn.Module):
    """3x3 convolution with a learned scale by channel, whose results start at zero."""

    features: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h, w, features)``."""
        x = self.conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(x)
        log_scale = self.param("log_scale", nn.initializers.zeros, (self.features,))
        return x * at_every_pixel(jnp.exp(SCALE_SPEED * log_scale), x)


class Coupling(nn.Module):
    """Affine coupling: a network of the first half of the channels shifts and scales the second."""

    width: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``(n,)``."""
        kept, changed = jnp.split(x, 2, axis=-1)
        h = kept
        for kernel in ((3, 3), (1, 1)):
            h, _ = ActNorm()(self.conv(self.width, kernel, use_bias=False)(h))
            h = nn.relu(h)
        shift, scale = jnp.split(ZeroConv(x.shape[-1], self.conv)(h), 2, axis=-1)
        log_scale = nn.log_sigmoid(scale + 2)
        if inverse:
            changed = changed * jnp.exp(-log_scale) - shift
        else:
            changed = (changed + shift) * jnp.exp(log_scale)
        return jnp.concatenate([kept, changed], axis=-1), log_scale.sum((1, 2, 3))


class Step(nn.Module):
    """One step of the flow: activation normalization, 1x1 convolution, coupling (Figure 2a)."""

    width: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        log_det: jax.Array | float = 0.0,
        rotation: Rotation | None = None,
        *,
        inverse: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the image of ``x`` ``(n, h, w, c)``; add its log-determinant to ``log_det``."""
        layers = [
            ActNorm(name="norm"),
            functools.partial(Invertible1x1(name="mix"), rotation=rotation),
            Coupling(self.width, self.conv, name="coupling"),
        ]
        for layer in reversed(layers) if inverse else layers:
            x, term = layer(x, inverse=inverse)
            log_det += term
        return x, jnp.asarray(log_det)


class Steps(nn.Module):
    """The steps of a level.

    Attributes:
        depth: number of steps.
        width: channels of the couplings' networks.
        conv: makes their convolutions, as `flax.linen.Conv` does.
        rotations: rotations of `lu_rotations`, one a step; or None.
    """

    depth: int
    width: int
    conv: Callable[..., Any]
    rotations: Rotation | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``(n,)``."""
        scanned = nn.scan(
            lambda step, carry, rotation: (step(*carry, rotation, inverse=inverse), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            reverse=inverse,
            unroll=turns_at_once(self, self.depth),
        )
        start = (x, jnp.zeros(len(x), x.dtype))
        result, _ = scanned(Step(self.width, self.conv, name="step"), start, self.rotations)
        x, log_det = result
        if self.rotations is None:
            # Together: the decomposition in each step would be half of its program.
            weights = self.get_variable("params", "step")["mix"]["kernel"]
            log_det += x.shape[1] * x.shape[2] * jnp.linalg.slogdet(weights)[1].sum()
        return x, log_det


class Prior(nn.Module):
    """Normal density of the values that leave a level.

    Its mean and its log-deviation are functions of the values that stay or, where nothing stays,
    learned by channel.
    """

    conv: Callable[..., Any]

    @nn.compact
    def __call__(
        self, z: jax.Array, kept: jax.Array | None, *, inverse: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Map values that leave to standard normal latents or, with ``inverse=True``, back.

        Args:
            z: ``(n, h, w, c)``.
            kept: the values that stay, ``(n, h, w, c)``; None at the last level.
            inverse: map latents to values.

        Returns:
            ``(n, h, w, c)`` and the log-density of the values, ``(n,)`` nats.
        """
        if kept is None:
            both = self.param("prior", nn.initializers.zeros, (2 * z.shape[-1],))
        else:
            both = ZeroConv(2 * z.shape[-1], self.conv)(kept)
        mean, log_std = jnp.split(both, 2, axis=-1)
        if inverse:
            noise, result = z, mean + z * jnp.exp(log_std)
        else:
            noise = result = (z - mean) * jnp.exp(-log_std)
        return result, (norm.logpdf(noise) - log_std).sum((1, 2, 3))


class Flow(nn.Module):
    """The bijection of Glow: at each level a squeeze, steps, and half of the channels leave.

    Attributes:
        levels: L.
        depth: steps of each level, K.
        width: channels of the couplings' networks.
        lu: parametrize the 1x1 convolutions by their LU decomposition.
        conv: makes the convolutions, as `flax.linen.Conv` does.
        image_channels: c.
    """

    levels: int = 3
    depth: int = 32
    width: int = 512
    lu: bool = False
    conv: Callable[..., Any] = Conv
    image_channels: int = 3

    def setup(self):
        def rotations(level):
            channels = self.image_channels * 2 ** (level + 2)
            return lu_rotations(self.depth, channels, level) if self.lu else None

        self.steps = [
            Steps(self.depth, self.width, self.conv, rotations(level))
            for level in range(self.levels)
        ]
        self.priors = [Prior(self.conv) for _ in range(self.levels)]

    def __call__(self, x: Any, *, inverse: bool = False) -> tuple[Any, jax.Array, jax.Array]:
        """Map real-valued images to latents or, with ``inverse=True``, latents to images.

        Args:
            x: floating images ``(n, h, w, c)``; or latents, one array ``(n, h', w', c')`` for
                every level, standard normal under the model.
            inverse: map latents to images.

        Returns:
            Latents, or images; the log-densities of the values that leave at each level, as the
            priors have them, ``(n, levels)`` nats; and the log-determinant of the *forward* map to
            these values, ``(n,)`` nats.
        """
        return self._images(x) if inverse else self._latents(x)

    def _latents(self, x: Any):
        latents, log_pz = [], []
        log_det = jnp.zeros(len(x), x.dtype)
        for level in range(self.levels):
            x, term = self.steps[level](squeeze(x))
            log_det += term
            x, z = jnp.split(x, 2, axis=-1) if level < self.levels - 1 else (None, x)
            z, log_density = self.priors[level](z, x)
            latents.append(z)
            log_pz.append(log_density)
        return tuple(latents), jnp.stack(log_pz, 1), log_det

    def _images(self, latents):
        x, log_pz = None, []
        log_det = jnp.zeros(len(latents[0]), latents[0].dtype)
        for level in reversed(range(self.levels)):
            z, log_density = self.priors[level](latents[level], x, inverse=True)
            x = z if x is None else jnp.concatenate([x, z], axis=-1)
            x, term = self.steps[level](x, inverse=True)
            x = unsqueeze(x)
            log_det += term
            log_pz.append(log_density)
        return x, jnp.stack(log_pz[::-1], 1), log_det


@builder
def glow(
    image_shape: Sequence[int],
    *,
    levels: int = 3,
    depth: int = 32,
    width: int = 512,
    lu: bool = False,
    conv: Callable[..., Any] = Conv,
) -> Glow:
    """Glow over uint8 images.

    The defaults are the authors' for CIFAR-10 at 8 bits, 44.05 million parameters. Their code has
    82,944 more: the kernel of the last prior's convolution, which only sees zeros. Only its bias
    learns, so only the bias is here.

    Args:
        image_shape: ``(h, w, c)``, height and width divisible by ``2 ** levels``.
        levels: L; half of the channels leave after each level except the last.
        depth: steps of each level, K.
        width: channels of the couplings' networks.
        lu: parametrize the 1x1 convolutions by their LU decomposition.
        conv: makes the convolutions, as `flax.linen.Conv` does.

    Returns:
        A `Glow`. ``sample`` draws latents at ``temperature`` times their prior deviation.

    Raises:
        ValueError: if the height or the width is not divisible by ``2 ** levels``.
    """
    h, w, c = image_shape
    if h % 2**levels or w % 2**levels:
        raise ValueError(
            f"Glow halves images {levels} times: {h}x{w} images need a multiple of {2**levels}"
        )
    flow: Any = Flow(levels, depth, width, lu, conv, c)

    def centred(x, key):
        check_shape(x, image_shape)
        return dequantize(key, x) / LEVELS - 0.5

    @compilation.jit
    def init(key, x):
        params_key, noise_key = jax.random.split(key)
        return flow.init(params_key, centred(x, noise_key))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del train, dropout_key  # this model has neither BatchNorm nor dropout
        _, log_pz, log_det = flow.apply(variables, centred(x, key))
        result = log_pz.sum(1) + log_det - h * w * c * np.log(LEVELS)
        return (result, {}) if mutable else result

    def sample(variables, key, n, *, temperature=1.0):
        shapes = [(h >> i, w >> i, c << i) for i in range(1, levels)]
        shapes.append((h >> levels, w >> levels, c << (levels + 1)))
        keys = jax.random.split(key, levels)
        latents = [
            temperature * jax.random.normal(k, (n, *shape))
            for k, shape in zip(keys, shapes, strict=True)
        ]
        x, _, _ = flow.apply(variables, latents, inverse=True)
        return jnp.clip(jnp.floor((x + 0.5) * LEVELS), 0, LEVELS - 1).astype(jnp.uint8)

    def log_pz(variables, x, *, key=None):
        return flow.apply(variables, centred(x, key))[1]

    return Glow(init, log_prob, sample, log_pz)
