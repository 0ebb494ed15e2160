"""WAIC: where independently trained models disagree (BatchNorm paper, eq. 1)."""

import jax
import numpy as np
from jax import lax

from jaxood.density import DensityModel
from jaxood.train import neg_log_prob_loss


def ensemble(model, members):
    """Independently seeded copies of a model as one ``vmap``-ped program.

    Args:
        model: a `DensityModel`.
        members: their number M.

    Returns:
        A `DensityModel` whose variables carry a leading axis M. Its ``log_prob`` is ``(M, n)``:
        all members see the same images and the same noise. Its ``sample`` is ``(M, n, h, w, c)``.
    """

    def init(key, x):
        return jax.vmap(model.init, (0, None))(jax.random.split(key, members), x)

    def log_prob(variables, x, **options):
        return jax.vmap(lambda member: model.log_prob(member, x, **options))(variables)

    def sample(variables, key, n, *, temperature=1.0):
        def draw(member, key):
            return model.sample(member, key, n, temperature=temperature)

        return jax.vmap(draw)(variables, jax.random.split(key, members))

    return DensityModel(init, log_prob, sample)


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


def waic(log_prob):
    """Score ``-WAIC(x) = -E[log p(x)] + Var[log p(x)]`` over an ensemble: a per-image score.

    Choi et al. 2018; BatchNorm paper, eq. 1. The variance is in nats squared, so the score, unlike
    a likelihood, depends on the unit: it is defined in nats.

    Args:
        log_prob: ``(members, n)`` nats, of two members or more.

    Returns:
        float32 ``(n,)``, higher = more OOD. The variance is that of these members (divided by M).

    Raises:
        ValueError: of fewer than two members.
    """
    log_prob = np.asarray(log_prob, np.float64)
    if len(log_prob) < 2:
        raise ValueError(f"WAIC needs an ensemble, got {len(log_prob)} member: train two or more")
    return (log_prob.var(0) - log_prob.mean(0)).astype(np.float32)
