"""BatchNorm statistics of one batch, as values."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxood.density import Array, HasLogProb, Variables
from jaxood.nn.batch_norm import BATCH_NORM_MOMENTUM

Result = TypeVar("Result")


def with_moments(
    apply: Callable[[dict[str, Any]], tuple[Result, Any]], variables: Variables
) -> tuple[Result, Any]:
    """Apply a network to a batch in training mode, and return the batch's moments as well.

    Args:
        apply: ``variables -> (result, batch_stats)`` in training mode, where ``batch_stats`` are
            the running statistics after this batch.
        variables: variables of the network; their own ``batch_stats`` give the shapes only.

    Returns:
        The result, and the means and variances of the batch at every BatchNorm layer, a tree like
        ``variables["batch_stats"]``.
    """
    # From running statistics of zero, one update leaves (1 - momentum) times the moments.
    blank = {**variables, "batch_stats": jax.tree.map(jnp.zeros_like, variables["batch_stats"])}
    result, updates = apply(blank)
    return result, jax.tree.map(lambda leaf: leaf / (1 - BATCH_NORM_MOMENTUM), updates)


def batch_moments(
    model: HasLogProb, variables: Variables, x: Array, *, key: jax.Array | None = None
) -> Any:
    """Compute the means and variances of a batch at every BatchNorm layer, in training mode.

    With these moments as ``batch_stats``, evaluation mode of the same batch equals training mode.

    Args:
        model: a `DensityModel` or another model with its ``log_prob``.
        variables: variables of the model; their own ``batch_stats`` give the shapes only.
        x: images ``(n, h, w, c)``.
        key: as for `jaxood.density.LogProb`.

    Returns:
        A tree like ``variables["batch_stats"]``.
    """
    return with_moments(
        lambda blank: model.log_prob(blank, x, train=True, key=key, mutable=["batch_stats"]),
        variables,
    )[1]


def move(running: Any, moments: Any) -> Any:
    """Return the running statistics after a batch with these moments, a tree of the same form."""
    return jax.tree.map(
        lambda old, new: BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new,
        running,
        moments,
    )
