"""RealNVP (Dinh et al. 2017) as the BatchNorm paper uses it (Section 6, Appendix C.1)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxood import compilation
from jaxood.density import DensityModel, builder, check_shape, dequantize
from jaxood.nn.convolution import Conv
from jaxood.nn.jacobian import own_log_det
from jaxood.nn.layers import ResNet, channelwise, checkerboard, squeeze, unsqueeze

ALPHA = 0.05
"""The margin that keeps a pixel's logit finite: ``logit(ALPHA + (1 - 2 ALPHA) x)``, x in (0, 1)."""


class Coupling(nn.Module):
    """Affine coupling (Dinh et al. 2017, eq. 9, 10).

    A network sees the values that the mask shows, and scales and shifts those that it hides.

    Attributes:
        width: channels of the scale-and-shift network.
        depth: its residual blocks.
        conv: makes its convolutions, as `flax.linen.Conv` does.
    """

    width: int
    depth: int
    conv: Callable[..., Any] = Conv

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, *, train: bool, inverse: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Transform values ``(n, h, w, c)`` under a mask ``(h, w, c)``.

        Returns:
            ``(n, h, w, c)`` and the log-determinant of the forward map, ``(n,)`` nats.
        """
        c = x.shape[-1]
        mask = mask.astype(x.dtype)
        net = ResNet(self.width, self.depth, 2 * c, self.conv, name="net")
        log_scale, shift = jnp.split(net(mask * x, train=train), 2, axis=-1)
        bound = self.param("log_scale_bound", nn.initializers.ones, (c,))
        log_scale = (1 - mask) * bound * jnp.tanh(log_scale)
        shift = (1 - mask) * shift
        if inverse:
            x = (x - shift) * jnp.exp(-log_scale)
        else:
            x = x * jnp.exp(log_scale) + shift
        return x, log_scale.sum((1, 2, 3))


class RealNVP(nn.Module):
    """The bijection of RealNVP: ten couplings at two resolutions.

    Three couplings have checkerboard masks. After a squeeze, three have channelwise masks. Half of
    the channels then leave, and four couplings with checkerboard masks transform the others.
    BatchNorm sits in the scale-and-shift networks only, never in the flow itself.

    Attributes:
        width: channels of the first three networks; the other networks have twice as many.
        depth: residual blocks of each network.
        conv: makes the convolutions, as `flax.linen.Conv` does.
    """

    width: int = 32
    depth: int = 4
    conv: Callable[..., Any] = Conv

    def setup(self):
        def couplings(count, width):
            settings = (width, self.depth, self.conv)
            return [Coupling(*settings) for _ in range(count)]

        self.fine = couplings(3, self.width)
        self.squeezed = couplings(3, 2 * self.width)
        self.coarse = couplings(4, 2 * self.width)

    def __call__(
        self, x: jax.Array, *, train: bool = False, inverse: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Map real-valued images to latents or, with ``inverse=True``, latents to images.

        Args:
            x: floating ``(n, h, w, c)``, ``h`` and ``w`` even.
            train: BatchNorm mode.
            inverse: map latents to images.

        Returns:
            ``(n, h, w, c)`` and the log-determinant of the *forward* map, ``(n,)`` nats. Latents
            have the layout of images: half of the values of each 2x2 patch come from the last
            couplings, and half were factored out before them.
        """
        log_det = jnp.zeros(len(x), x.dtype)

        def through(couplings, mask, x, log_det):
            masked = [(f, mask if i % 2 == 0 else 1 - mask) for i, f in enumerate(couplings)]
            for f, mask in reversed(masked) if inverse else masked:
                x, term = f(x, mask, train=train, inverse=inverse)
                log_det += term
            return x, log_det

        def fine(x, log_det):
            return through(self.fine, checkerboard(x.shape), x, log_det)

        def squeezed(x, log_det):
            return through(self.squeezed, channelwise(x.shape), x, log_det)

        def coarse(x, log_det):
            kept, factored_out = jnp.split(x, 2, axis=-1)
            kept, log_det = through(self.coarse, checkerboard(kept.shape), kept, log_det)
            return jnp.concatenate([kept, factored_out], axis=-1), log_det

        if inverse:
            x, log_det = squeezed(*coarse(squeeze(x), log_det))
            return fine(unsqueeze(x), log_det)
        x, log_det = fine(x, log_det)
        x, log_det = coarse(*squeezed(squeeze(x), log_det))
        return unsqueeze(x), log_det


@builder
def realnvp(
    image_shape: Sequence[int],
    *,
    width: int = 32,
    depth: int = 4,
    conv: Callable[..., Any] = Conv,
    jacobian: Literal["usual", "exact"] = "usual",
) -> DensityModel:
    """RealNVP over uint8 images.

    ``log_prob`` is exact for the dequantized image ``x + u``. (The density leaves a little mass
    outside ``[0, 256]^d``, because the logits of the pixels end at ±2.94.) Averaged over ``u`` it
    is a lower bound on the discrete log-likelihood.

    In training mode it is the paper's ``log p~(x_j | x_-j)``. The usual log-determinant leaves out
    that ``x_j`` itself moves the batch statistics, so that the density does not integrate to 1.
    With the exact log-determinant (`own_log_det`) it does, and a batch costs ``n h w c`` times as
    much. Either is chosen here or in a call, ``log_prob(..., train=True, jacobian="exact")``. In
    evaluation mode the two are equal.

    Args:
        image_shape: ``(h, w, c)``, even height and width.
        width: channels of the scale-and-shift networks (paper: 32, for CIFAR 64).
        depth: residual blocks of these networks (paper: 4, for CIFAR 8).
        conv: makes their convolutions, as `flax.linen.Conv` does.
        jacobian: the log-determinant of training mode, ``"usual"`` or ``"exact"``.

    Returns:
        A `DensityModel`.

    Raises:
        ValueError: if the height or the width is odd, or ``jacobian`` is another word.
    """
    h, w, c = image_shape
    if h % 2 or w % 2:
        raise ValueError(f"RealNVP squeezes 2x2 patches: {h}x{w} images need an even size")
    _check_jacobian(jacobian)
    flow = RealNVP(width, depth, conv)

    @compilation.jit
    def init(key, x):
        return flow.init(key, jnp.zeros((1, *x.shape[1:])))

    def log_prob(
        variables,
        x,
        *,
        train=False,
        key=None,
        dropout_key=None,
        mutable=False,
        jacobian=jacobian,
    ):
        del dropout_key  # this model has no dropout
        _check_jacobian(jacobian)
        check_shape(x, image_shape)
        y = ALPHA + (1 - 2 * ALPHA) * dequantize(key, x) / 256
        logit = jnp.log(y) - jnp.log1p(-y)
        # The derivative of the logit by the pixel, on the scale where a level is one wide.
        log_slope = jnp.log((1 - 2 * ALPHA) / 256) - jnp.log(y) - jnp.log1p(-y)
        apply = functools.partial(flow.apply, variables, train=train, mutable=["batch_stats"])
        (z, log_det), updates = apply(logit)
        if train and jacobian == "exact":
            log_det = own_log_det(lambda logit: apply(logit)[0][0], logit)
        result = (jax.scipy.stats.norm.logpdf(z) + log_slope).sum((1, 2, 3)) + log_det
        return (result, updates["batch_stats"]) if mutable else result

    def sample(variables, key, n, *, temperature=1.0):
        z = temperature * jax.random.normal(key, (n, h, w, c))
        logit, _ = flow.apply(variables, z, inverse=True)
        pixels = 256 * (jax.nn.sigmoid(logit) - ALPHA) / (1 - 2 * ALPHA)
        return jnp.clip(jnp.floor(pixels), 0, 255).astype(jnp.uint8)

    return DensityModel(init, log_prob, sample)


def _check_jacobian(jacobian):
    if jacobian not in ("usual", "exact"):
        raise ValueError(f"jacobian must be 'usual' or 'exact', got {jacobian!r}")
