"""BatchNorm statistics of one batch, as values that one can hold, merge and put back."""

import jax
import jax.numpy as jnp

from jaxood.nn.layers import BATCH_NORM_MOMENTUM


def with_moments(apply, variables):
    """What a network makes of a batch in training mode, and what its BatchNorm layers saw there.

    Args:
        apply: ``variables -> (result, batch_stats)``, in training mode, the second the running
            statistics after this batch.
        variables: of the network; their own ``batch_stats`` give the shapes only.

    Returns:
        The result, and the batch's means and variances in a tree like
        ``variables["batch_stats"]``.
    """
    # From running statistics of zero, one update leaves (1 - momentum) times the moments.
    blank = {**variables, "batch_stats": jax.tree.map(jnp.zeros_like, variables["batch_stats"])}
    result, updates = apply(blank)
    return result, jax.tree.map(lambda leaf: leaf / (1 - BATCH_NORM_MOMENTUM), updates)


def batch_moments(model, variables, x, *, key=None):
    """What every BatchNorm layer sees of a batch in training mode: its means and variances.

    With them as ``batch_stats``, evaluation mode of the same batch is its training mode.

    Args:
        model: a `DensityModel`.
        variables: of the model; their own ``batch_stats`` give the shapes only.
        x: images ``(n, h, w, c)``.
        key: of the model's noise, as in `DensityModel.log_prob`.

    Returns:
        A tree like ``variables["batch_stats"]``.
    """
    return with_moments(
        lambda blank: model.log_prob(blank, x, train=True, key=key, mutable=["batch_stats"]),
        variables,
    )[1]


def move(running, moments):
    """Running statistics after a batch with these moments."""
    return jax.tree.map(
        lambda old, new: BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new,
        running,
        moments,
    )
