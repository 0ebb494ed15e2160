"""Distributions over the 256 levels of a pixel: log-masses and samples."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxood.density import Array, draw

LEVELS = 256
"""The number of levels of a pixel."""

MIN_LOG_SCALE = -7.0
"""The least log-scale of a logistic component (Salimans et al. 2017, their code).

The scale is e^-7, about a ninth of the width of a level, which is 2/255.
"""


def to_unit(levels: Array, dtype: Any = jnp.float32) -> jax.Array:
    """Scale levels 0 to 255, of any dtype and shape, to [-1, 1]."""
    return jnp.asarray(levels, dtype) / 127.5 - 1


def categorical_log_prob(logits: Array, x: Array) -> jax.Array:
    """Compute the log-masses of levels under a softmax.

    Args:
        logits: floating ``(..., 256)``.
        x: uint8 ``(...)``.

    Returns:
        ``(...)``, nats a value.
    """
    log_probs = jax.nn.log_softmax(logits)
    # Not by indexing, whose gradient is a scatter into an array of zeros.
    return jnp.where(jnp.arange(LEVELS) == x[..., None], log_probs, 0).sum(-1)


def categorical_sample(
    key: jax.Array, logits: Array, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Draw levels from a softmax of ``logits / temperature``; temperature 0 gives the mode.

    Args:
        key: one key for all values, or ``(n,)`` keys, one for each entry of the first axis.
        logits: floating ``(..., 256)``.
        temperature: number >= 0 (BatchNorm paper, Appendix C.2).

    Returns:
        uint8 ``(...)``.
    """
    noise = draw(jax.random.gumbel, key, logits.shape, logits.dtype)
    # The Gumbel-max trick, on a scale where temperature 0 divides nothing by zero.
    return jnp.argmax(logits + temperature * noise, axis=-1).astype(jnp.uint8)


def logistic_mixture_size(channels: int, mixtures: int) -> int:
    """Count the parameters of a pixel's mixture: weights, means, scales, channel coefficients.

    Raises:
        ValueError: unless there are 1 or 3 channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"the logistic mixture is for 1 or 3 channels, not {channels}")
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def logistic_mixture_log_prob(parameters: Array, x: Array) -> jax.Array:
    """Compute log-masses of pixels under a mixture of discretized logistics.

    A component is a logistic law that is cut into 256 levels (Salimans et al. 2017, eq. 2). The
    first and the last level take the tails. The component's mean for a channel moves with the true
    values of the earlier channels (eq. 3), and the channels of a pixel share one choice of
    component.

    Args:
        parameters: floating ``(..., logistic_mixture_size(c, mixtures))``.
        x: levels 0 to 255 ``(..., c)``, ``c`` 1 or 3: uint8, or floating to differentiate by them.

    Returns:
        ``(..., c)`` nats: the log-mass of each channel given the earlier ones. Their sum is the
        log-mass of the pixel.
    """
    dtype = parameters.dtype
    logits, means, log_scales, coefficients = _unpack(parameters, x.shape[-1])
    pixel = to_unit(x, dtype)[..., None, :]
    means = [_mean(means, coefficients, pixel, i) for i in range(x.shape[-1])]
    masses = _log_mass(x[..., None, :], pixel - jnp.stack(means, axis=-1), log_scales)
    # p(x_1, ..., x_i) for each i, whose ratios are the conditional masses.
    joint = jax.nn.log_softmax(logits)[..., None] + jnp.cumsum(masses, axis=-1)
    joint = jax.nn.logsumexp(joint, axis=-2)
    return jnp.diff(joint, axis=-1, prepend=0)


def logistic_mixture_sample(
    key: jax.Array, parameters: Array, channels: int, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Draw pixels from a mixture of discretized logistics, channel by channel.

    The paper divides "each pre-softmax scalar output" by the temperature (BatchNorm paper,
    Appendix C.2). In a logistic mixture these are the logits of the components. A component's own
    entropy lies in its scale, so its noise is multiplied by the temperature as well, which divides
    the argument of the logistic function. Temperature 0 gives the mean of the likeliest component.

    Args:
        key: one key for all pixels, or ``(n,)`` keys, one for each entry of the first axis.
        parameters: floating ``(..., logistic_mixture_size(channels, mixtures))``.
        channels: 1 or 3.
        temperature: number >= 0.

    Returns:
        uint8 ``(..., channels)``.
    """
    logits, means, log_scales, coefficients = _unpack(parameters, channels)
    shape, dtype = parameters.shape[:-1], parameters.dtype
    which_key, where_key = jnp.moveaxis(_split(key), -1, 0)
    gumbel = draw(jax.random.gumbel, which_key, logits.shape, dtype)
    which = jnp.argmax(logits + temperature * gumbel, axis=-1)[..., None, None]
    means, log_scales, coefficients = (
        jnp.take_along_axis(values, which, axis=-2)[..., 0, :]
        for values in (means, log_scales, coefficients)
    )
    logistic = draw(jax.random.logistic, where_key, (*shape, channels), dtype)
    noise = temperature * jnp.exp(log_scales) * logistic
    pixel = jnp.zeros((*shape, channels), dtype)
    for i in range(channels):
        value = _mean(means, coefficients, pixel, i) + noise[..., i]
        # The nearest level is the one whose log-mass the value counts in. The next mean sees it.
        level = jnp.clip(jnp.round((value + 1) * 127.5), 0, 255)
        pixel = pixel.at[..., i].set(to_unit(level, dtype))
    return jnp.round((pixel + 1) * 127.5).astype(jnp.uint8)


def _unpack(parameters, c):
    """Logits ``(..., k)``, means and log-scales ``(..., k, c)``, coefficients of their pairs."""
    k = parameters.shape[-1] // logistic_mixture_size(c, 1)
    logits, rest = parameters[..., :k], parameters[..., k:]
    rest = rest.reshape(*rest.shape[:-1], k, -1)
    log_scales = jnp.maximum(rest[..., c : 2 * c], MIN_LOG_SCALE)
    return logits, rest[..., :c], log_scales, jnp.tanh(rest[..., 2 * c :])


def _mean(means, coefficients, pixel, i):
    """The mean of channel ``i``, moved by the channels before it."""
    first = i * (i - 1) // 2
    shift = (coefficients[..., first : first + i] * pixel[..., :i]).sum(-1)
    return means[..., i] + shift


def _log_mass(level, distance, log_scale):
    """Log-mass of a level whose centre is ``distance`` from the mean, on [-1, 1].

    The mass between a level's edges a > b, in units of the scale, is sigmoid(a) - sigmoid(b). It
    is computed as sigmoid(a) sigmoid(-b) (1 - exp(b - a)), where nothing cancels, in the tails or
    elsewhere.
    """
    inverse = jnp.exp(-log_scale)
    upper = jax.nn.log_sigmoid(inverse * (distance + 1 / 255))
    lower = jax.nn.log_sigmoid(-inverse * (distance - 1 / 255))
    log_width = jnp.log(2 / 255) - log_scale
    width = jnp.exp(log_width)
    narrow = width < 1e-3
    # log(1 - exp(-width)); its series where the width could underflow.
    wide_enough = jnp.where(narrow, 1.0, width)
    between = jnp.where(narrow, log_width - width / 2, jnp.log(-jnp.expm1(-wide_enough)))
    inside = jnp.where(level > 0, lower, 0) + jnp.where(level < 255, upper, 0)
    return inside + jnp.where((level > 0) & (level < 255), between, 0)


def _split(key):
    """Two keys for each key, on a last axis."""
    return jax.random.split(key) if key.ndim == 0 else jax.vmap(jax.random.split)(key)
