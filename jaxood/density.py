"""What every density model is, and the step from images to real numbers and back to bits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class DensityModel(NamedTuple):
    """A density over uint8 images, as three pure functions (the shape of an optax optimizer).

    The BatchNorm modes are arguments of one function, never a flag of the model:

    ==================  =====================================================================
    evaluation          ``log_prob(v, x)``
    training            ``log_prob(v, x, train=True)``
    mixed, ratio r      ``log_prob(v, concatenate([x_test, x_ref]), train=True)[:len(x_test)]``
    ==================  =====================================================================

    Attributes:
        init: ``(key, x) -> variables``: a dict with ``"params"`` and, where the model has
            BatchNorm, ``"batch_stats"``. ``x`` is uint8 ``(n, h, w, c)``; only its shape matters.
        log_prob: ``(variables, x, *, train=False, key=None, dropout_key=None, mutable=False)`` to
            float32 ``(n,)`` in nats per image under the 256-level discrete measure; the model's
            docstring says whether it is exact or a bound. With ``mutable=["batch_stats"]`` the
            result is ``((n,), batch_stats)``, the running statistics after this batch. ``key`` is
            one key for the batch, or ``(n,)`` keys, one an image; without one the model is
            evaluated at its noise's centre. Dropout acts only where ``dropout_key`` is given: in
            the training of a model that has it, and in no score, training-mode BatchNorm included.
        sample: ``(variables, key, n, *, temperature=1.0)`` to uint8 ``(n, h, w, c)``.
    """

    init: Callable
    log_prob: Callable
    sample: Callable


def bits_per_dim(log_prob, image_shape):
    """Convert log-likelihoods from nats per image to bits per dimension (lower = likelier).

    Args:
        log_prob: any shape, nats per image.
        image_shape: ``(h, w, c)``.

    Returns:
        ``-log_prob / (h w c ln 2)``, the same shape as ``log_prob``.
    """
    return -log_prob / (np.prod(image_shape) * np.log(2.0))


def dequantize(key, x, dtype=jnp.float32):
    """Spread each of 256 levels over its own unit interval (Theis et al. 2016).

    Args:
        key: ``None`` for the centre of each interval, one key for the whole batch, or ``(n,)``
            keys, one an image, which make an image's noise independent of its batch mates.
        x: uint8 ``(n, h, w, c)``.
        dtype: of the result.

    Returns:
        ``(n, h, w, c)`` in ``[0, 256]``: ``x + u`` with ``u`` uniform on ``[0, 1)``.

    Raises:
        TypeError: if ``x`` is not uint8.
    """
    if x.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8 with levels 0 to 255, got {x.dtype}")
    noise = 0.5 if key is None else draw(jax.random.uniform, key, x.shape, dtype)
    return x.astype(dtype) + noise


def draw(sampler, key, shape, dtype=jnp.float32):
    """Noise for a batch from one key, or from ``(n,)`` keys, one an image.

    Args:
        sampler: ``(key, shape, dtype) -> array``, as `jax.random.normal`.
        key: one key for the whole batch, or ``(n,)`` keys, which make an image's noise independent
            of its batch mates.
        shape: of the result, ``(n, ...)``.
        dtype: of the result.

    Returns:
        An array of that shape.
    """
    if jnp.ndim(key) == 0:
        return sampler(key, shape, dtype)
    return jax.vmap(lambda k: sampler(k, shape[1:], dtype))(key)


def image_keys(key, x):
    """One key for each image, a function of ``key`` and of that image's pixels alone.

    Noise drawn from them follows an image wherever it goes: its score does not depend on its
    position, its batch mates, the chunk size or the number of devices.

    Args:
        key: a typed key.
        x: uint8 ``(n, h, w, c)``.

    Returns:
        ``(n,)`` typed keys.
    """
    flat = x.reshape(len(x), -1).astype(jnp.uint32)
    # A multiply-add hash modulo 2^32; odd multipliers make every single-pixel change visible.
    weights = jax.random.bits(jax.random.key(0), (flat.shape[1],), jnp.uint32) | 1
    return jax.vmap(lambda h: jax.random.fold_in(key, h))(jnp.sum(flat * weights, 1, jnp.uint32))
