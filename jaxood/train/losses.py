"""The losses of density models: maximum likelihood, for one model or for an ensemble."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxood.density import DensityModel, HasLogProb, Variables

Loss = Callable[[Variables, Any, jax.Array], tuple[jax.Array, Any]]
"""``(variables, batch, key) -> (loss, batch_stats)``, the form that `fit` takes: a float32 scalar,
and the running statistics after the batch, ``{}`` for a model without BatchNorm."""


def neg_log_prob_loss(model: HasLogProb) -> Loss:
    """Make the loss of maximum likelihood: minus the batch mean of ``log_prob``.

    Args:
        model: a `DensityModel`, evaluated in training mode, with dropout.

    Returns:
        A `Loss` in nats an image; ``batch`` is uint8 images ``(b, h, w, c)``.
    """

    def loss(variables: Variables, batch: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        noise_key, dropout_key = jax.random.split(key)
        log_prob, batch_stats = model.log_prob(
            variables,
            batch,
            train=True,
            key=noise_key,
            dropout_key=dropout_key,
            mutable=["batch_stats"],
        )
        return -log_prob.mean(), batch_stats

    return loss


def ensemble_loss(model: DensityModel) -> Loss:
    """Make the loss of an ensemble: each member is trained by maximum likelihood as if alone.

    Args:
        model: the `DensityModel` of one member.

    Returns:
        A `Loss` of the variables of `jaxood.ensemble`; ``batch`` is uint8 images
        ``(M b, h, w, c)``, which are dealt in turn to the M members, b to each. Every member has
        its own noise. The loss is the members' mean in nats an image; its gradient is that of
        their sum.
    """
    member_loss = neg_log_prob_loss(model)

    def loss(variables: Variables, batch: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        members = len(jax.tree.leaves(variables)[0])
        # In turn: devices that share the batch then share the images of every member.
        batches = batch.reshape(-1, members, *batch.shape[1:]).swapaxes(0, 1)
        losses, batch_stats = jax.vmap(member_loss)(
            variables, batches, jax.random.split(key, members)
        )
        total = losses.sum()
        return total - lax.stop_gradient(total - losses.mean()), batch_stats

    return loss
