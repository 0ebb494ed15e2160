"""What a neural rendering model is trained on (NRM paper, Appendix B; Ho et al. 2018)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxood.models.nrm.model import fold, forward, paths


class LossWeights(NamedTuple):
    """Of the terms of the loss; the defaults are those of the NRM group's own code.

    The paper gives none. A term whose weight is 0 is not computed.

    Attributes:
        cross_entropy: of the labelled images.
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


def terms(model, variables, x, labels, *, temperature=1.0, train=True, batch_statistics=True):
    """The terms of the loss, one value an image.

    All but the cross-entropy are means over the features of a layer, summed over layers.

    Args:
        model: an `NRM`.
        variables: of the model.
        x: images ``(n, h, w, c)``.
        labels: int ``(n,)``; -1 for an image without one, which is rendered from the likeliest.
        temperature: sigma^2 of the softmax. A logit holds ``<x, h(0)>``, about ``|x|^2`` where
            rendering works: at a temperature of 1 classes would be told apart too surely.
        train: BatchNorm mode.
        batch_statistics: in training mode, render with the batch's statistics (and differentiate
            through them), for which the identities of the model hold; else with the running ones.

    Returns:
        A dict with the fields of `LossWeights`, each ``(n,)``, and the running statistics after
        this batch (``{}`` without BatchNorm). The cross-entropy is 0 where there is no label.
    """
    (logits, features, latents), folded, batch_stats = forward(model, variables, x, train=train)
    if not batch_statistics:
        folded = fold(variables)
    known = labels >= 0
    y = jnp.where(known, labels, logits.argmax(1))
    h = model.render(folded, y, latents)
    path = paths(folded, latents, h)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits / temperature, y)

    def mean(feature):
        return feature.mean((1, 2, 3))

    pairs = zip(path, reference_path(model, folded), strict=True)
    return {
        "cross_entropy": jnp.where(known, cross_entropy, 0),
        "reconstruction": mean((features[0] - h[0]) ** 2),
        # Before the switches act, and without the image, which may well be negative.
        "negativity": sum(mean(jnp.minimum(rendered, 0) ** 2) for rendered in h[1:]),
        "path": sum(mean(jnp.abs(own - reference)) for own, reference in pairs),
        "latent": -sum(map(mean, path)),
    }, batch_stats


def reference_path(model, folded):
    """The rendering path from all-ones with the latents of the zero image (mid-grey).

    The group's code pulls the paths of trusted images toward it, in the L1 norm ("rendering path
    normalization"). The normalizer of p(z|y) is at least the value of the best path; that of one
    fixed path stands in for it, so that the latents' likelihood can be maximized.

    Args:
        model: an `NRM`.
        folded: its variables without BatchNorm.

    Returns:
        One array ``(1, h, w, c)`` a layer.
    """
    dtype = jax.tree.leaves(folded)[0].dtype
    _, features, latents = model.encode(folded, jnp.zeros((1, *model.shapes[0]), dtype))
    h = model.render(folded, None, latents, h=jnp.ones_like(features[-1]))
    return paths(folded, latents, h)


def nrm_loss(model, weights, *, temperature=1.0, batch_statistics=True, augment=None):
    """The training loss: a weighted sum of batch means of `terms`.

    The cross-entropy is averaged over the labelled images of the batch.

    Args:
        model: an `NRM`.
        weights: `LossWeights`.
        temperature: as in `terms`.
        batch_statistics: as in `terms`.
        augment: ``(key, x) -> x``, applied to the batch; None for nothing.

    Returns:
        ``(variables, (images, labels), key) -> (loss, batch_stats)``, the form that `train.fit`
        takes.
    """

    def loss(variables, batch, key):
        x, labels = batch
        if augment is not None:
            x = augment(key, x)
        values, batch_stats = terms(
            model,
            variables,
            x,
            labels,
            temperature=temperature,
            batch_statistics=batch_statistics,
        )
        means = {name: value.mean() for name, value in values.items()}
        labelled = jnp.maximum((labels >= 0).sum(), 1)
        means["cross_entropy"] = values["cross_entropy"].sum() / labelled
        on = {name: weight for name, weight in weights._asdict().items() if weight}
        return sum(weight * means[name] for name, weight in on.items()), batch_stats

    return loss
