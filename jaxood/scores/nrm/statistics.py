"""The scores of a neural rendering model as functions of a `Measurement`.

Images are measured once (`jaxood.scores.nrm_measure`), and scored in many ways. Higher = more OOD,
in float32, as everywhere.

NRM paper, Section 2.2 (Theorem 2), at sigma = 1, in nats under the Gaussian model of the scaled
image, *up to a constant*: the normalizer of p(z|y) depends on y and is left out, as in the paper.

The paper does not say whether its terms are sums or means over features. Here the reduction is

- ``"sum"``: sums over all pixels and channels, as the theorem has them;
- ``"mean"``: the sum of each layer divided by its own number of features D(l), so that the latent
  term is a *sum over layers of means over features*.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Reduction = Literal["sum", "mean"]


class Measurement(NamedTuple):
    """The terms of all scores, one row an image.

    Attributes:
        label: int32 ``(n,)``: the class y rendered from.
        logits: float32 ``(n, classes)``.
        latent: float32 ``(n, L)``: ``<b(l), s(l) h(l)>``, l = 1..L, in nats. Their sum is
            log p(z*|y) up to its constant.
        reconstruction: float32 ``(n, L + 1)``: ``|g(l) - h(l)|^2``, l = 0..L.
        energy: float32 ``(n,)``: ``|x|^2`` of the scaled image.
        active: float32 ``(n, L)``: share of switches s(l) that are on.
        negative: float32 ``(n, L)``: share of h(l) below zero, where Theorem 1 wants none.
        sizes: int ``(L + 1,)``: features of each layer, D(0), ..., D(L).
    """

    label: Any
    logits: Any
    latent: Any
    reconstruction: Any
    energy: Any
    active: Any
    negative: Any
    sizes: Any


def latent(measurement: Measurement, *, reduction: Reduction = "sum", above: int = 0) -> np.ndarray:
    """Score ``-log p({z*(l)}_{l > above} | y*)``, the paper's own score.

    Args:
        measurement: measurement of the images.
        reduction: over features, see the module.
        above: k, for the latents that render g(k) (remark after Theorem 2); 0 for all. The paper
            counts them from k on; h(k) is rendered by those of the layers k + 1, ..., L.

    Returns:
        float32 ``(n,)``, nats.
    """
    weights = layer_weights(measurement.sizes, reduction)[1 + above :]
    return -(measurement.latent[:, above:] * weights).sum(1).astype(np.float32)


def reconstruction(
    measurement: Measurement, layer: int, *, reduction: Reduction = "sum"
) -> np.ndarray:
    """Score ``|g(l) - h(l)|^2`` at one layer.

    Args:
        measurement: measurement of the images.
        layer: l, 0..L; 0 for pixels.
        reduction: over features, see the module.

    Returns:
        float32 ``(n,)``.
    """
    weight = layer_weights(measurement.sizes, reduction)[layer]
    return (measurement.reconstruction[:, layer] * weight).astype(np.float32)


def neg_log_prob(
    measurement: Measurement, *, layer: int = 0, reduction: Reduction = "sum"
) -> np.ndarray:
    """Score ``|g(k) - h(k)|^2 / 2 - log p({z*(l)}_{l > k} | y*)`` (Theorem 2).

    It is minus the lower bound of log p(x), up to a constant, or for another layer k minus that of
    log p of the features g(k).

    Args:
        measurement: measurement of the images.
        layer: k, 0..L.
        reduction: over features, see the module.

    Returns:
        float32 ``(n,)``, nats.
    """
    error = reconstruction(measurement, layer, reduction=reduction)
    return error / 2 + latent(measurement, reduction=reduction, above=layer)


def per_energy(score: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Divide a score by the energy of the image, ``|x|^2``; this goes beyond the paper.

    Where rendering works, h(0) is close to x, and the identities of `jaxood.models.nrm.model` tie
    log p(z*|y*) to the energy: a dull image then scores low whatever it shows.

    Args:
        score: ``(n,)``.
        energy: ``(n,)``, of the same images, as in `Measurement`; positive.

    Returns:
        float32 ``(n,)``.
    """
    return (np.asarray(score) / energy).astype(np.float32)


def profile(measurement: Measurement, trusted: Measurement) -> np.ndarray:
    """Measure the distance from the terms of trusted images, layer by layer.

    This goes beyond the paper, whose score adds the layers up and whose reconstruction loss needs
    to know which layer to look at. Here the latent term of every layer and the logarithm of the
    reconstruction loss of every layer are taken together: their Mahalanobis distance from
    held-out trusted images, with the covariance of Ledoit and Wolf (2004). It is two-sided, with
    no layer, sign or scale to choose.

    Args:
        measurement: measurement of the images to judge.
        trusted: measurement of held-out trusted images.

    Returns:
        float32 ``(n,)``, squared distances.
    """
    return distance(fit_normal(profile_terms(trusted)), profile_terms(measurement))


def switches(measurement: Measurement, trusted: Measurement) -> np.ndarray:
    """Measure the distance from the switches of trusted images, layer by layer.

    The paper shows that the mean switches of OOD images differ (Appendix E) and makes no score of
    it. Here it is the Mahalanobis distance of the logarithm of the share of switches that are on,
    at every layer, from held-out trusted images, as in `profile`.

    Args:
        measurement: measurement of the images to judge.
        trusted: measurement of held-out trusted images.

    Returns:
        float32 ``(n,)``, squared distances.
    """
    return distance(fit_normal(switch_terms(trusted)), switch_terms(measurement))


def layer_weights(sizes: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Return the factors by which a reduction multiplies the sums of layers, ``(L + 1,)``.

    Raises:
        ValueError: if the reduction is another word.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    return 1 / sizes if reduction == "mean" else np.ones(len(sizes))


# --------------------------------------------------------------------------- Mahalanobis distance


class Normal(NamedTuple):
    """A normal law of terms, fitted to trusted images.

    Attributes:
        mean: ``(k,)``, of each term.
        scale: ``(k,)``, standard deviation of each term.
        location: ``(k,)``, mean of the standardized terms, zero to rounding.
        precision: ``(k, k)``, inverse covariance of the standardized terms, shrunk.
    """

    mean: np.ndarray
    scale: np.ndarray
    location: np.ndarray
    precision: np.ndarray


def profile_terms(measurement: Measurement) -> np.ndarray:
    """Return the terms of `profile`, ``(n, 2 L + 1)``."""
    return np.hstack([measurement.latent, _log(measurement.reconstruction)])


def switch_terms(measurement: Measurement) -> np.ndarray:
    """Return the terms of `switches`, ``(n, L)``."""
    return _log(measurement.active)


def fit_normal(terms: np.ndarray) -> Normal:
    """Fit a normal law, its covariance shrunk as by Ledoit and Wolf (2004).

    Args:
        terms: ``(N, k)``, of held-out trusted images.
    """
    from sklearn.covariance import LedoitWolf  # scikit-learn takes half a second to import
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(terms)
    covariance = LedoitWolf().fit(scaler.transform(terms))
    fitted = (scaler.mean_, scaler.scale_, covariance.location_, covariance.get_precision())
    return Normal(*map(np.asarray, fitted))


def distance(normal: Normal, terms: np.ndarray) -> np.ndarray:
    """Compute squared Mahalanobis distances.

    Args:
        normal: from `fit_normal`.
        terms: ``(n, k)``.

    Returns:
        float32 ``(n,)``.
    """
    from scipy.spatial.distance import cdist

    mean, scale = (part.astype(terms.dtype) for part in (normal.mean, normal.scale))
    standard = (terms - mean) / scale
    found = cdist(standard, normal.location[None], "mahalanobis", VI=normal.precision)
    return (found[:, 0] ** 2).astype(np.float32)


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(values + np.finfo(np.float32).tiny)
