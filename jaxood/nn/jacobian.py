"""Jacobians of maps of a whole batch, in which an image also moves its batch companions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxood.density import Array


def own_log_det(f: Callable[[jax.Array], jax.Array], x: Array) -> jax.Array:
    """Compute ``log |det d f_j / d x_j|`` for every image of a batch.

    The derivative contains every path from an image back to itself. Under training-mode BatchNorm
    an image moves the statistics, the statistics move its batch companions, and the companions
    move the statistics of later layers, which move the image. With this log-determinant,
    ``exp(log N(f_j(x)) + own_log_det(f, x)[j])`` is the density of ``x_j`` given its companions
    (the correction to Proposition 1 of the BatchNorm paper), wherever ``f_j`` is one-to-one in
    ``x_j``. Where it is not, the density integrates to more than 1.

    The Jacobian is built by forward-mode differentiation, with d tangents of the whole batch for
    each image, so a batch costs ``n d`` times what ``f`` costs. Images are taken one at a time,
    which bounds the memory to d batches.

    Args:
        f: ``(n, ...) -> (n, ...)``, with d values an image on both sides.
        x: floating ``(n, ...)``.

    Returns:
        ``(n,)`` nats.
    """
    x = jnp.asarray(x)
    d = x[0].size

    def one(j):
        jacobian = jax.jacfwd(lambda image: f(x.at[j].set(image))[j])(x[j])
        return jnp.linalg.slogdet(jacobian.reshape(d, d)).logabsdet

    return lax.map(one, jnp.arange(len(x)))
