"""Jacobians of batch maps: maps under which an image also moves its batch mates."""

import jax
import jax.numpy as jnp
from jax import lax


def own_log_det(f, x):
    """``log |det d f_j / d x_j|`` for every image of a batch, all ways round the batch included.

    Under training-mode BatchNorm an image moves the statistics, these move its mates, and they
    move the statistics of later layers: its own derivative holds all of that. With it,
    ``exp(log N(f_j(x)) + own_log_det(f, x)[j])`` is the density of ``x_j`` given its mates (the
    correction to Proposition 1 of the BatchNorm paper), wherever ``f_j`` is one-to-one in
    ``x_j``; where it folds, the density integrates to more than 1.

    The Jacobian is built by forward-mode differentiation, d tangents of the whole batch an image:
    a batch costs ``n d`` times what ``f`` does. One image at a time bounds the memory to d batches.

    Args:
        f: ``(n, ...) -> (n, ...)``, of one size d an image.
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
