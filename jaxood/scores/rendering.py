"""Scores of a neural rendering model: its latents' likelihood, and its reconstructions.

NRM paper, Section 2.2 (Theorem 2), at sigma = 1. All are per-image scores, BatchNorm in
evaluation mode, in nats under the Gaussian model of the scaled image, *up to a constant*: the
normalizer of p(z|y) depends on y and is left out, as in the paper. What it hides can be taken
off again with `class_centred`.

The paper does not say whether its terms are sums or means over features. Here:

- ``"sum"``: sums over all pixels and channels, as the theorem has them;
- ``"mean"``: each layer's sum divided by its own number of features D(l), so that the latent term
  is a *sum over layers of means over features*.

`nrm_latent` alone is cheapest by itself, without rendering. For all scores, `measure` the images
once; the scores are functions of its result.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from jaxood import parallel, progress
from jaxood.models.nrm.explanation import explain
from jaxood.models.nrm.folded import fold
from jaxood.scores.statistics import typicality

Reduction = Literal["sum", "mean"]


class Measurement(NamedTuple):
    """What rendering says of images, one row an image.

    Attributes:
        label: int32 ``(n,)``: the class y rendered from.
        logits: float32 ``(n, classes)``.
        latent: float32 ``(n, L)``: ``<b(l), s(l) h(l)>``, l = 1..L, whose sum is log p(z*|y) up to
            its constant.
        reconstruction: float32 ``(n, L + 1)``: ``|g(l) - h(l)|^2``, l = 0..L.
        energy: float32 ``(n,)``: ``|x|^2`` of the scaled image.
        active: float32 ``(n, L)``: share of switches s(l) that are on.
        negative: float32 ``(n, L)``: share of h(l) below zero, where Theorem 1 wants none.
        sizes: int ``(L + 1,)``: features a layer, D(0), ..., D(L).
    """

    label: Any
    logits: Any
    latent: Any
    reconstruction: Any
    energy: Any
    active: Any
    negative: Any
    sizes: Any


# ------------------------------------------------------------------------ for one batch, traceable


def latent_log_prob(model, variables, x, *, y=None, reduction: Reduction = "sum", above=0):
    """``log p({z*(l)}_{l > above} | y)`` up to its constant, by one forward-mode pass.

    The latents held fixed, it is the derivative of the logit of y along the bias vector
    (`jaxood.models.nrm.model`). Nothing is rendered.

    Args:
        model: an `NRM`.
        variables: variables of the model; BatchNorm at its running statistics.
        x: images ``(n, h, w, c)``.
        y: labels ``(n,)``; by default the likeliest, y*.
        reduction: over features, see the module.
        above: k, for the latents that render g(k) (remark after Theorem 2); 0 for all. The paper
            counts them from k on; h(k) is rendered by those of the layers k + 1, ..., L.

    Returns:
        ``(n,)``, nats.
    """
    folded = fold(variables)
    bias = folded.biases
    weights = _layer_weights(_sizes(model), reduction)
    direction = tuple(
        (b * weight).astype(b.dtype)
        for b, weight in zip(bias[above:], weights[1 + above :], strict=True)
    )

    def logits(upper):
        return model.encode(folded._replace(biases=bias[:above] + upper), x)[0]

    logits, derivative = jax.jvp(logits, (bias[above:],), (direction,))
    y = logits.argmax(1) if y is None else y
    return jnp.take_along_axis(derivative, y[:, None], axis=1)[:, 0]


def measure_batch(model, variables, x, *, y=None):
    """Encode and render one batch; arguments as `latent_log_prob`, result as `measure`."""
    found = explain(model, variables, x, y=y)
    features, latents, rendered = found.features, found.latents, found.rendered

    def total(feature):
        return feature.sum((1, 2, 3))

    latent = [total(path) for path in found.paths]
    errors = [total((g - h) ** 2) for g, h in zip(features, rendered, strict=True)]
    return Measurement(
        found.label.astype(jnp.int32),
        found.logits,
        jnp.stack(latent, axis=1),
        jnp.stack(errors, axis=1),
        total(features[0] ** 2),
        jnp.stack([switch.mean((1, 2, 3)) for switch in latents.switches], axis=1),
        jnp.stack([(h < 0).mean((1, 2, 3)) for h in rendered[1:]], axis=1),
        _sizes(model),
    )


def _sizes(model):
    return np.array([np.prod(shape) for shape in model.shapes])


def _layer_weights(sizes, reduction):
    """What a layer's sum over features is multiplied by."""
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    return 1 / sizes if reduction == "mean" else np.ones(len(sizes))


# ------------------------------------------------------------------------------- for many images


def nrm_latent(
    model,
    variables,
    x,
    *,
    y=None,
    reduction: Reduction = "sum",
    above=0,
    batch_size=64,
    show_progress=False,
):
    """Score ``-log p(z*|y*)`` up to its constant: a per-image score (the NRM paper's own).

    Args:
        model: an `NRM`.
        variables: variables of the model.
        x: uint8 ``(n, h, w, c)``, or floating and scaled.
        y: labels ``(n,)``; by default the likeliest.
        reduction: over features, see the module.
        above: as in `latent_log_prob`.
        batch_size: images at a time and device; the last batch is padded, so the program compiles
            once.
        show_progress: draw a progress bar on stderr.

    Returns:
        float32 ``(n,)``, higher = more OOD. For a two-sided score give minus it, of the images and
        of held-out trusted ones, to `jaxood.scores.typicality`.

    Raises:
        ValueError: if ``reduction`` is another word.
    """
    program = _latent_program(model, reduction, above, parallel.mesh_of(variables))
    batches = _in_batches(program, variables, x, y, batch_size, "latents", show_progress)
    return -np.concatenate(batches)


def measure(model, variables, x, *, y=None, batch_size=64, show_progress=False):
    """Encode and render images: all that the scores below need.

    Args:
        model: an `NRM`.
        variables: variables of the model.
        x: uint8 ``(n, h, w, c)``, or floating and scaled.
        y: labels ``(n,)`` to render from; by default the likeliest.
        batch_size: images at a time and device; the last batch is padded, so the program compiles
            once.
        show_progress: draw a progress bar on stderr.

    Returns:
        A `Measurement`.
    """
    program = _measure_program(model, parallel.mesh_of(variables))
    batches = _in_batches(program, variables, x, y, batch_size, "rendering", show_progress)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)._replace(
        sizes=_sizes(model)
    )


@functools.lru_cache(16)
def _latent_program(model, reduction, above, mesh):
    options = {"reduction": reduction, "above": above}
    return parallel.map_rows(
        lambda v, x, y: latent_log_prob(model, v, x, y=y, **options), mesh, rows=(False, True, True)
    )


@functools.lru_cache(16)
def _measure_program(model, mesh):
    return parallel.map_rows(
        lambda v, x, y: measure_batch(model, v, x, y=y)._replace(sizes=None),
        mesh,
        rows=(False, True, True),
    )


def _in_batches(program, variables, x, y, batch_size, description, show_progress):
    """Results of ``program`` on each batch, those of its padding taken off."""
    results, mesh = [], parallel.mesh_of(variables)
    at_once = batch_size * mesh.size
    with progress.bar(description, -(-len(x) // batch_size), show=show_progress) as advance:
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            count = len(x[rows])
            labels = None if y is None else _padded(np.asarray(y)[rows], at_once)
            images = _padded(x[rows], at_once)
            result = program(variables, *parallel.shard((images, labels), mesh))
            results.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], result))
            advance(-(-count // batch_size))
    return results


def _padded(part, batch_size):
    return np.pad(part, [(0, batch_size - len(part))] + [(0, 0)] * (part.ndim - 1))


# ---------------------------------------------------------------------- scores of a measurement


def latent(measurement, *, reduction: Reduction = "sum", above=0):
    """Score ``-log p({z*(l)}_{l > above} | y*)``, by rendering: `nrm_latent` to rounding.

    Args:
        measurement: measurement of the images.
        reduction: over features, see the module.
        above: as in `latent_log_prob`.

    Returns:
        float32 ``(n,)``, higher = more OOD.
    """
    weights = _layer_weights(measurement.sizes, reduction)[1 + above :]
    return -(measurement.latent[:, above:] * weights).sum(1).astype(np.float32)


def reconstruction(measurement, layer, *, reduction: Reduction = "sum"):
    """Score ``|g(l) - h(l)|^2`` at one layer, 0 for pixels: a per-image score.

    Args:
        measurement: measurement of the images.
        layer: l, 0..L.
        reduction: over features, see the module.

    Returns:
        float32 ``(n,)``, higher = more OOD.
    """
    weight = _layer_weights(measurement.sizes, reduction)[layer]
    return (measurement.reconstruction[:, layer] * weight).astype(np.float32)


def neg_log_prob(measurement, *, layer=0, reduction: Reduction = "sum"):
    """Score ``|g(k) - h(k)|^2 / 2 - log p({z*(l)}_{l > k} | y*)``: a per-image score (Theorem 2).

    Minus the lower bound of log p(x), up to a constant, or with another layer k that of log p of
    the features g(k).

    Args:
        measurement: measurement of the images.
        layer: k, 0..L.
        reduction: over features, see the module.

    Returns:
        float32 ``(n,)``, higher = more OOD.
    """
    error = reconstruction(measurement, layer, reduction=reduction)
    return error / 2 + latent(measurement, reduction=reduction, above=layer)


def per_energy(score, energy):
    """A score divided by the image's energy ``|x|^2``: a per-image score, beyond the paper.

    Where rendering works, h(0) is close to x, and the identities of `jaxood.models.nrm.model` tie
    log p(z*|y*) to the energy: a dull image then scores low whatever it shows.

    Args:
        score: ``(n,)``.
        energy: ``(n,)``, of the same images, as in `Measurement`; positive.

    Returns:
        float32 ``(n,)``, higher = more OOD.
    """
    return (np.asarray(score) / energy).astype(np.float32)


def profile(measurement, trusted):
    """Distance from the terms of trusted images, layer by layer: a per-image score.

    Beyond the paper, whose score adds the layers up and whose reconstruction loss needs to know
    which layer to look at. Here the latent term of every layer and the logarithm of the
    reconstruction loss of every layer are taken together: their Mahalanobis distance from
    held-out trusted images, with the covariance of Ledoit and Wolf (2004). Two-sided, with no
    layer, sign or scale to choose.

    Args:
        measurement: measurement of the images to judge.
        trusted: `Measurement` of held-out trusted images.

    Returns:
        float32 ``(n,)``, squared distances, higher = more OOD.
    """
    return _distance(measurement, trusted, lambda m: np.hstack([m.latent, _log(m.reconstruction)]))


def switches(measurement, trusted):
    """Distance from the switches of trusted images, layer by layer: a per-image score.

    The paper shows that the mean switches of OOD images differ (Appendix E) and makes no score of
    it. Here: the Mahalanobis distance of the logarithm of the share of switches that are on, at
    every layer, from held-out trusted images, as in `profile`.

    Args:
        measurement: measurement of the images to judge.
        trusted: `Measurement` of held-out trusted images.

    Returns:
        float32 ``(n,)``, squared distances, higher = more OOD.
    """
    return _distance(measurement, trusted, lambda m: _log(m.active))


def _log(values):
    return np.log(values + np.finfo(np.float32).tiny)


def _distance(measurement, trusted, terms):
    """Squared Mahalanobis distance of ``terms`` ``(n, k)`` from those of trusted images."""
    reference = StandardScaler().fit(terms(trusted))
    covariance = LedoitWolf().fit(reference.transform(terms(trusted)))
    return covariance.mahalanobis(reference.transform(terms(measurement))).astype(np.float32)


def class_centred(score, label, trusted_score, trusted_label):
    """A score less its mean over trusted images of the same class y*: a per-image score.

    Beyond the paper: a stand-in for the normalizer of p(z|y), which depends on y alone. Its
    absolute value is a two-sided score.

    Args:
        score: ``(n,)``, of the images to judge.
        label: int ``(n,)``, their y*.
        trusted_score: ``(N,)``, of held-out trusted images.
        trusted_label: int ``(N,)``, their y*.

    Returns:
        float32 ``(n,)``, higher = more OOD. A class without trusted images has the mean of all.
    """
    label, trusted_label = np.asarray(label), np.asarray(trusted_label)
    classes = 1 + max(label.max(initial=0), trusted_label.max())
    count = np.bincount(trusted_label, minlength=classes)
    total = np.bincount(trusted_label, trusted_score, minlength=classes)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.mean(trusted_score))
    return (score - mean[label]).astype(np.float32)


def all_scores(measurement):
    """Every score of the paper by its name in a results record, sums and means.

    Args:
        measurement: measurement of the images.

    Returns:
        ``nrm_latent``, ``nrm_neg_log_prob``, ``nrm_reconstruction_<l>`` for l = 0..L and
        ``nrm_latent_per_energy``, and the first three with ``_mean`` for the mean over features,
        each float32 ``(n,)``, higher = more OOD.
    """
    scores = {}
    suffixes: dict[Reduction, str] = {"sum": "", "mean": "_mean"}
    for reduction, suffix in suffixes.items():
        scores[f"nrm_latent{suffix}"] = latent(measurement, reduction=reduction)
        scores[f"nrm_neg_log_prob{suffix}"] = neg_log_prob(measurement, reduction=reduction)
        for layer in range(len(measurement.sizes)):
            name = f"nrm_reconstruction_{layer}{suffix}"
            scores[name] = reconstruction(measurement, layer, reduction=reduction)
    scores["nrm_latent_per_energy"] = per_energy(scores["nrm_latent"], measurement.energy)
    return scores


def calibrated_scores(measurement, trusted):
    """Scores beyond the paper that need held-out trusted images, by name.

    Args:
        measurement: measurement of the images to judge.
        trusted: `Measurement` of held-out trusted images.

    Returns:
        ``nrm_latent_two_sided`` (distance from the trusted mean), ``nrm_latent_class_centred``
        (see `class_centred`), ``nrm_profile`` (see `profile`) and ``nrm_switches`` (see
        `switches`), each float32 ``(n,)``, higher = more OOD.
    """
    own, reference = latent(measurement), latent(trusted)
    return {
        "nrm_latent_two_sided": typicality(-own, -reference),
        "nrm_latent_class_centred": class_centred(own, measurement.label, reference, trusted.label),
        "nrm_profile": profile(measurement, trusted),
        "nrm_switches": switches(measurement, trusted),
    }
