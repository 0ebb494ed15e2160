"""Glow (Kingma and Dhariwal 2018), whose likelihoods the NRM paper holds its own against."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy import linalg
from scipy.stats import special_ortho_group

from jaxood.density import Init, LogProb, Sample, Spec, builder, dequantize
from jaxood.nn.convolution import Conv
from jaxood.nn.layers import squeeze, unsqueeze
from jaxood.nn.likelihoods import LEVELS

SCALE_SPEED = 3.0
"""Of the learned scale of a layer that starts at zero, as in the authors' code."""


class Glow(NamedTuple):
    """A `DensityModel`, and the density of its latents.

    Attributes:
        init: ``(key, x) -> variables``. Activation normalization starts from the data: ``x`` is a
            uint8 batch of training images, and its values matter.
        log_prob: as of a `DensityModel`; exact for the dequantized image. There is no BatchNorm:
            all modes are one.
        sample: as of a `DensityModel`.
        log_pz: ``(variables, x, *, key=None)`` to ``(n, levels)`` nats: the log-density of the
            latents that leave the flow at each level, given those of the levels below it. The last
            is that of "the last layer of latent variables" (NRM paper, Section 3.3, Figure 1b).
        spec: as of a `DensityModel`.
    """

    init: Init
    log_prob: LogProb
    sample: Sample
    log_pz: Callable
    spec: Spec | None = None


class ActNorm(nn.Module):
    """Shift and scale by channel; the first batch leaves it with mean 0 and deviation 1."""

    inverse: bool = False

    @nn.compact
    def __call__(self, x):
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``()``."""
        shift = self.param("shift", lambda _: -x.mean((0, 1, 2)))
        log_scale = self.param("log_scale", lambda _: -jnp.log(x.std((0, 1, 2)) + 1e-6))
        y = x * jnp.exp(-log_scale) - shift if self.inverse else (x + shift) * jnp.exp(log_scale)
        return y, x.shape[1] * x.shape[2] * log_scale.sum()


class Invertible1x1(nn.Module):
    """Invertible 1x1 convolution, a learned rotation of the channels to start with.

    Attributes:
        inverse: direction.
        rotation: None; or what `lu_rotations` gives: the weight is then ``P L U``, with P fixed,
            and its determinant is a product (the paper's eq. 10).
    """

    inverse: bool = False
    rotation: Any = None

    @nn.compact
    def __call__(self, x):
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``()``."""
        c = x.shape[-1]
        if self.rotation is None:
            weight = self.param("kernel", nn.initializers.orthogonal(), (c, c))
            log_det = jnp.linalg.slogdet(weight)[1]
        else:
            permutation, sign, start = self.rotation
            packed = self.param("lu", lambda _: start)
            log_scale = jnp.diag(packed)
            lower = jnp.tril(packed, -1) + jnp.eye(c, dtype=packed.dtype)
            upper = jnp.triu(packed, 1) + jnp.diag(sign * jnp.exp(log_scale))
            weight, log_det = (lower @ upper)[permutation], log_scale.sum()
        if self.inverse:
            weight = jnp.linalg.inv(weight)
        return x @ weight, x.shape[1] * x.shape[2] * log_det


def lu_rotations(count, channels, seed):
    """Random rotations ``W = P L U``, for `Invertible1x1`.

    Args:
        count: of rotations.
        channels: c.
        seed: of the rotations: P stays what it is, so it is no function of ``init``'s key.

    Returns:
        Rows of L U in the order of W, int ``(count, c)``; signs of the diagonal of U, float32
        ``(count, c)``; and float32 ``(count, c, c)`` with L below, U above, and log |diag U| on
        the diagonal.
    """
    rotations = special_ortho_group.rvs(channels, size=count, random_state=seed)
    permutations, signs, packed = [], [], []
    for rotation in rotations.reshape(count, channels, channels):
        factors: Any = linalg.lu(rotation)
        p, lower, upper = factors
        diagonal = np.diag(upper)
        permutations.append(p.argmax(1))
        signs.append(np.sign(diagonal).astype(np.float32))
        triangles = np.tril(lower, -1) + np.triu(upper, 1)
        packed.append(np.float32(triangles + np.diag(np.log(np.abs(diagonal)))))
    return np.stack(permutations), np.stack(signs), np.stack(packed)


class ZeroConv(nn.Module):
    """3x3 convolution with a learned scale by channel; zero to start with."""

    features: int
    conv: Callable

    @nn.compact
    def __call__(self, x):
        """Map ``(n, h, w, c)`` to ``(n, h, w, features)``."""
        x = self.conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(x)
        log_scale = self.param("log_scale", nn.initializers.zeros, (self.features,))
        return x * jnp.exp(SCALE_SPEED * log_scale)


class Coupling(nn.Module):
    """Affine coupling: shift and scale the second half of the channels by what the first says."""

    width: int
    conv: Callable
    inverse: bool = False

    @nn.compact
    def __call__(self, x):
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``(n,)``."""
        kept, changed = jnp.split(x, 2, axis=-1)
        h = kept
        for kernel in ((3, 3), (1, 1)):
            h, _ = ActNorm()(self.conv(self.width, kernel, use_bias=False)(h))
            h = nn.relu(h)
        shift, scale = jnp.split(ZeroConv(x.shape[-1], self.conv)(h), 2, axis=-1)
        log_scale = nn.log_sigmoid(scale + 2)
        if self.inverse:
            changed = changed * jnp.exp(-log_scale) - shift
        else:
            changed = (changed + shift) * jnp.exp(log_scale)
        return jnp.concatenate([kept, changed], axis=-1), log_scale.sum((1, 2, 3))


class Step(nn.Module):
    """One step of the flow: activation normalization, 1x1 convolution, coupling (Figure 2a)."""

    width: int
    conv: Callable
    inverse: bool = False

    @nn.compact
    def __call__(self, carry, rotation=None):
        """Map ``(x, log_det)`` on: a step of a scan."""
        x, log_det = carry
        layers = [
            ActNorm(self.inverse, name="norm"),
            Invertible1x1(self.inverse, rotation, name="mix"),
            Coupling(self.width, self.conv, self.inverse, name="coupling"),
        ]
        for layer in reversed(layers) if self.inverse else layers:
            x, term = layer(x)
            log_det += term
        return (x, log_det), None


class Steps(nn.Module):
    """The steps of a level, scanned: compile time does not grow with their number."""

    depth: int
    width: int
    conv: Callable
    rotations: Any = None

    @nn.compact
    def __call__(self, x, *, inverse=False):
        """Return the image of ``x`` ``(n, h, w, c)`` and the forward log-determinant ``(n,)``."""
        scanned = nn.scan(
            Step,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            reverse=inverse,
        )
        step = scanned(self.width, self.conv, inverse, name="step")
        carry, _ = step((x, jnp.zeros(len(x), x.dtype)), self.rotations)
        return carry


class Prior(nn.Module):
    """Mean and log-deviation of the latents that leave: from those that stay, or learned alone."""

    conv: Callable

    @nn.compact
    def __call__(self, kept, shape):
        """Two arrays that broadcast to ``shape`` ``(n, h, w, c)``; ``kept`` may be None."""
        if kept is None:
            both = self.param("prior", nn.initializers.zeros, (2 * shape[-1],))
        else:
            both = ZeroConv(2 * shape[-1], self.conv)(kept)
        return jnp.split(both, 2, axis=-1)


class Flow(nn.Module):
    """The bijection: at each level squeeze, steps, and half of the channels out.

    Attributes:
        levels: L.
        depth: steps a level, K.
        width: channels of the couplings' networks.
        lu: parametrize the 1x1 convolutions by their LU decomposition.
        conv: makes the convolutions.
        image_channels: c.
    """

    levels: int = 3
    depth: int = 32
    width: int = 512
    lu: bool = False
    conv: Callable = Conv
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

    def __call__(self, x):
        """Map images to latents.

        Args:
            x: floating ``(n, h, w, c)``.

        Returns:
            For every level latents ``(n, h', w', c')``, standard normal under the model; their
            log-densities as the prior has them, ``(n, levels)`` nats; and the log-determinant of
            the map to what the prior is over, ``(n,)`` nats.
        """
        latents, log_pz = [], []
        log_det = jnp.zeros(len(x), x.dtype)
        for level in range(self.levels):
            x, term = self.steps[level](squeeze(x))
            log_det += term
            if level < self.levels - 1:
                x, z = jnp.split(x, 2, axis=-1)
                mean, log_std = self.priors[level](x, z.shape)
            else:
                z = x
                mean, log_std = self.priors[level](None, z.shape)
            noise = (z - mean) * jnp.exp(-log_std)
            latents.append(noise)
            log_pz.append((norm.logpdf(noise) - log_std).sum((1, 2, 3)))
        return tuple(latents), jnp.stack(log_pz, 1), log_det

    def invert(self, latents):
        """Map latents, as ``__call__`` returns them, to images."""
        x = None
        for level in reversed(range(self.levels)):
            mean, log_std = self.priors[level](x, latents[level].shape)
            z = mean + latents[level] * jnp.exp(log_std)
            x = z if x is None else jnp.concatenate([x, z], axis=-1)
            x, _ = self.steps[level](x, inverse=True)
            x = unsqueeze(x)
        return x


@builder
def glow(image_shape, *, levels=3, depth=32, width=512, lu=False, conv: Callable = Conv):
    """Glow over uint8 images.

    The defaults are the authors' for CIFAR-10 at 8 bits: 44.05 million parameters. Their code has
    82,944 more, the kernel of a convolution over zeros that makes the last prior: only its bias
    ever learns, and only that is here.

    Args:
        image_shape: ``(h, w, c)``, height and width divisible by ``2 ** levels``.
        levels: L; half of the channels leave after each but the last.
        depth: steps a level, K; scanned.
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
        return dequantize(key, x) / LEVELS - 0.5

    @jax.jit
    def init(key, x):
        params_key, noise_key = jax.random.split(key)
        return flow.init(params_key, centred(x, noise_key))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del train, dropout_key  # no BatchNorm, no dropout in this model
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
        x = flow.apply(variables, latents, method="invert")
        return jnp.clip(jnp.floor((x + 0.5) * LEVELS), 0, LEVELS - 1).astype(jnp.uint8)

    def log_pz(variables, x, *, key=None):
        return flow.apply(variables, centred(x, key))[1]

    return Glow(init, log_prob, sample, log_pz)
