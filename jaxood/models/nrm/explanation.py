"""One pass up and one down through a network: its classes, its choices, and what it renders."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxood.density import Array, Variables
from jaxood.models.nrm.folded import Folded, fold, paths
from jaxood.models.nrm.model import NRM
from jaxood.models.nrm.network import Latents
from jaxood.nn.batch_stats import move, with_moments


class Explanation(NamedTuple):
    """Images, explained by a network and by what it renders of them.

    Attributes:
        logits: ``(n, classes)``.
        label: int ``(n,)``, the class y that was rendered from.
        features: ``(g(0), ..., g(L))``, each ``(n, h, w, c)``; g(0) is the scaled image.
        latents: the `Latents`, z*.
        rendered: ``(h(0), ..., h(L))``, of the same shapes.
        paths: ``b(l) s(l) h(l)``, l = 1..L; their sum over layers and features is log p(z*|y) up
            to a constant, in nats.
        folded: the network without BatchNorm that rendered. In training mode it has the
            statistics of this batch.
        batch_stats: the running statistics after this batch in training mode, else those of the
            variables; ``{}`` without BatchNorm.
    """

    logits: jax.Array
    label: jax.Array
    features: tuple[jax.Array, ...]
    latents: Latents
    rendered: tuple[jax.Array, ...]
    paths: tuple[jax.Array, ...]
    folded: Folded
    batch_stats: Any


def explain(
    model: NRM,
    variables: Variables | Folded,
    x: Array,
    *,
    y: Array | None = None,
    train: bool = False,
) -> Explanation:
    """Encode images, and render them with the latents that were found.

    What is encoded and what renders is one network without BatchNorm, so that the identities of
    `jaxood.models.nrm.model` hold. In training mode, BatchNorm is folded at the statistics of the
    batch, and the result is differentiable through them.

    Args:
        model: the network and its adjoint.
        variables: variables of the model, or folded.
        x: uint8 ``(n, h, w, c)``, or floating and scaled.
        y: int ``(n,)``, classes to render from. An image with -1, and every image without ``y``,
            is rendered from its likeliest class, y*.
        train: BatchNorm mode.

    Returns:
        An `Explanation`.
    """
    if train and not isinstance(variables, Folded) and variables.get("batch_stats"):
        encoding, moments = with_moments(
            lambda blank: model.encode(blank, x, train=True, mutable=["batch_stats"]), variables
        )
        folded = fold({**variables, "batch_stats": moments})
        batch_stats = move(variables["batch_stats"], moments)
    else:
        folded = fold(variables)
        encoding = model.encode(folded, x)
        batch_stats = {} if isinstance(variables, Folded) else variables.get("batch_stats", {})
    logits, features, latents = encoding
    label = logits.argmax(1)
    if y is not None:
        label = jnp.where(y >= 0, y, label)
    rendered = model.render(folded, label, latents)
    path = paths(folded, latents, rendered)
    return Explanation(logits, label, features, latents, rendered, path, folded, batch_stats)
