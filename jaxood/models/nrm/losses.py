"""The training loss of a neural rendering model (NRM paper, Appendix B; Ho et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxood.density import Array, Variables
from jaxood.models.nrm.explanation import explain
from jaxood.models.nrm.folded import Folded, paths
from jaxood.models.nrm.model import NRM


class LossWeights(NamedTuple):
    """The weights of the terms of the loss.

    The defaults are those of the NRM group's own code; the paper gives none. A term whose weight
    is 0 is not computed.

    Attributes:
        cross_entropy: cross-entropy of the labelled images.
        reconstruction: ``|x - h(0)|^2``.
        negativity: ``|min(h(l), 0)|^2``, which Theorem 1 wants to be zero.
        path: distance of the rendering path from a reference path.
        latent: ``-log p(z*|y)`` up to its constant (the paper's "future directions").
    """

    cross_entropy: float = 1.0
    reconstruction: float = 0.5
    negativity: float = 0.5
    path: float = 1.0
    latent: float = 0.0


def terms(
    model: NRM,
    variables: Variables,
    x: Array,
    labels: Array,
    *,
    temperature: float = 1.0,
    train: bool = True,
) -> tuple[dict[str, Any], Any]:
    """Compute the terms of the loss, one value an image.

    All but the cross-entropy are means over the features of a layer, summed over layers.

    Args:
        model: the network and its adjoint.
        variables: variables of the model.
        x: images ``(n, h, w, c)``.
        labels: int ``(n,)``; -1 for an image without a label, which is rendered from the likeliest
            class.
        temperature: sigma^2 of the softmax. A logit holds ``<x, h(0)>``, about ``|x|^2`` where
            rendering works: at a temperature of 1 classes would be told apart too surely.
        train: BatchNorm mode. In training mode the network renders with the statistics of the
            batch, and the terms are differentiable through them.

    Returns:
        A dict with the fields of `LossWeights`, each ``(n,)``, and the running statistics after
        this batch (``{}`` without BatchNorm). The cross-entropy is 0 where there is no label.
    """
    found = explain(model, variables, x, y=labels, train=train)
    h = found.rendered
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(
        found.logits / temperature, found.label
    )

    def mean(feature):
        return feature.mean((1, 2, 3))

    pairs = zip(found.paths, reference_path(model, found.folded), strict=True)
    return {
        "cross_entropy": jnp.where(labels >= 0, cross_entropy, 0),
        "reconstruction": mean((found.features[0] - h[0]) ** 2),
        # Before the switches act, and without the image, which may well be negative.
        "negativity": sum(mean(jnp.minimum(rendered, 0) ** 2) for rendered in h[1:]),
        "path": sum(mean(jnp.abs(own - reference)) for own, reference in pairs),
        "latent": -sum(map(mean, found.paths)),
    }, found.batch_stats


def reference_path(model: NRM, folded: Folded) -> tuple[jax.Array, ...]:
    """Render the path from all-ones with the latents of the zero image (mid-grey).

    The group's code pulls the paths of trusted images toward it, in the L1 norm ("rendering path
    normalization"). The normalizer of p(z|y) is at least the value of the best path; the value of
    one fixed path stands in for it, so that the latents' likelihood can be maximized.

    Args:
        model: the network and its adjoint.
        folded: its weights and biases.

    Returns:
        One array ``(1, h, w, c)`` a layer.
    """
    zero = jnp.zeros((1, *model.shapes[0]), folded.kernels[0].dtype)
    _, features, latents = model.encode(folded, zero)
    h = model.render(folded, None, latents, h=jnp.ones_like(features[-1]))
    return paths(folded, latents, h)


def loss(
    model: NRM,
    weights: LossWeights,
    *,
    temperature: float = 1.0,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]:
    """Make the training loss: a weighted sum of batch means of `terms`.

    The cross-entropy is averaged over the labelled images of the batch.

    Args:
        model: the network and its adjoint.
        weights: weights of the terms.
        temperature: as in `terms`.
        augment: ``(key, x) -> x``, applied to the batch; None for no augmentation.

    Returns:
        ``(variables, (images, labels), key) -> (loss, batch_stats)``, the form that
        `jaxood.train.fit` takes.
    """

    def weighted(variables, batch, key):
        x, labels = batch
        if augment is not None:
            x = augment(key, x)
        values, batch_stats = terms(model, variables, x, labels, temperature=temperature)
        means = {name: value.mean() for name, value in values.items()}
        labelled = jnp.maximum((labels >= 0).sum(), 1)
        means["cross_entropy"] = values["cross_entropy"].sum() / labelled
        on = {name: weight for name, weight in weights._asdict().items() if weight}
        total: Any = sum(weight * means[name] for name, weight in on.items())
        return total, batch_stats

    return weighted
