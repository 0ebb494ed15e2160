"""What density models are trained on: maximum likelihood, of one model or of an ensemble."""

import jax
from jax import lax


def neg_log_prob_loss(model):
    """Maximum likelihood for a `DensityModel`: minus the batch mean of ``log_prob``, in nats.

    Returns:
        ``(variables, batch, key) -> (loss, batch_stats)``, the form that `fit` takes, in training
        mode; ``batch`` is uint8 images.
    """

    def loss(variables, batch, key):
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


def ensemble_loss(model):
    """Maximum likelihood for each member of an ensemble on its own images and noise.

    Args:
        model: the `DensityModel` of one member.

    Returns:
        ``(variables, batch, key) -> (loss, batch_stats)``, the form that `train.fit` takes;
        ``variables`` as of `ensemble`, ``batch`` uint8 ``(M b, h, w, c)``, dealt out in turn, b
        images to each member. The loss is the members' mean in nats, its gradient that of their
        sum: each member trains as it would alone.
    """
    member_loss = neg_log_prob_loss(model)

    def loss(variables, batch, key):
        members = len(jax.tree.leaves(variables)[0])
        # In turn, so that where devices share a batch, they share that of every member.
        batches = batch.reshape(-1, members, *batch.shape[1:]).swapaxes(0, 1)
        losses, batch_stats = jax.vmap(member_loss)(
            variables, batches, jax.random.split(key, members)
        )
        total = losses.sum()
        return total - lax.stop_gradient(total - losses.mean()), batch_stats

    return loss
