"""The scores of a neural rendering model: of its latents, and of its reconstructions.

All are per-image scores, with BatchNorm in evaluation mode; `jaxood.scores.nrm.statistics`
explains them. `nrm_latent` and the scores derived from it render nothing.
"""

from __future__ import annotations

import numpy as np

from jaxood.density import Array, Variables
from jaxood.models.nrm import NRM
from jaxood.scores.nrm import statistics
from jaxood.scores.nrm.measurement import measure_latents, nrm_measure, sizes
from jaxood.scores.nrm.statistics import Measurement, Normal, Reduction
from jaxood.scores.score import Score, check_set, scored
from jaxood.scores.statistics import class_centred, typicality


def nrm_latent(
    model: NRM,
    variables: Variables,
    *,
    reduction: Reduction = "sum",
    above: int = 0,
    batch_size: int = 64,
) -> Score:
    """Build the score ``-log p(z*|y*)`` up to its constant, in nats: the NRM paper's own.

    Args:
        model: the network and its adjoint.
        variables: variables of the model; each device that they lie on scores batches of its own.
        reduction: over features, ``"sum"`` or ``"mean"``, see `jaxood.scores.nrm.statistics`.
        above: k, for the latents above layer k alone, see `jaxood.scores.nrm.statistics.latent`.
        batch_size: images at a time and device.

    Returns:
        A per-image `Score`.

    Raises:
        ValueError: if ``reduction`` is another word, or there is no layer above ``above``.
    """
    statistics.layer_weights(sizes(model), reduction)
    _check_layer("above", above, len(model.shapes) - 2)
    options = {"reduction": reduction, "above": above, "batch_size": batch_size}
    return Score("nrm_latent", model, variables, options)


@scored("nrm_latent", per_image=True)
def _nrm_latent(score: Score, images: Array) -> np.ndarray:
    return -measure_latents(score.model, score.variables, images, **score.options).log_prob


def nrm_reconstruction(
    model: NRM,
    variables: Variables,
    *,
    layer: int,
    reduction: Reduction = "sum",
    batch_size: int = 64,
) -> Score:
    """Build the score ``|g(l) - h(l)|^2`` at one layer.

    Args:
        model: as in `nrm_latent`.
        variables: as in `nrm_latent`.
        layer: l, 0..L; 0 for pixels.
        reduction: as in `nrm_latent`.
        batch_size: as in `nrm_latent`.

    Returns:
        A per-image `Score`.

    Raises:
        ValueError: if ``reduction`` is another word, or there is no such layer.
    """
    return _at_layer("nrm_reconstruction", model, variables, layer, reduction, batch_size)


@scored("nrm_reconstruction", per_image=True)
def _nrm_reconstruction(score: Score, images: Array) -> np.ndarray:
    layer, reduction = score.options["layer"], score.options["reduction"]
    return statistics.reconstruction(_measure(score, images), layer, reduction=reduction)


def nrm_neg_log_prob(
    model: NRM,
    variables: Variables,
    *,
    layer: int = 0,
    reduction: Reduction = "sum",
    batch_size: int = 64,
) -> Score:
    """Build the score ``-log p(x)`` by the lower bound of Theorem 2, up to a constant, in nats.

    With another layer k than 0 it is the bound of -log p of the features g(k). The arguments and
    errors are those of `nrm_reconstruction`.

    Returns:
        A per-image `Score`.
    """
    return _at_layer("nrm_neg_log_prob", model, variables, layer, reduction, batch_size)


@scored("nrm_neg_log_prob", per_image=True)
def _nrm_neg_log_prob(score: Score, images: Array) -> np.ndarray:
    layer, reduction = score.options["layer"], score.options["reduction"]
    return statistics.neg_log_prob(_measure(score, images), layer=layer, reduction=reduction)


def _at_layer(name, model, variables, layer, reduction, batch_size) -> Score:
    statistics.layer_weights(sizes(model), reduction)
    _check_layer("layer", layer, len(model.shapes) - 1)
    options = {"layer": layer, "reduction": reduction, "batch_size": batch_size}
    return Score(name, model, variables, options)


def _check_layer(name: str, layer: int, last: int) -> None:
    if not 0 <= layer <= last:
        raise ValueError(f"{name} must be from 0 to {last} for this network, got {layer}")


def _measure(score: Score, images: Array) -> Measurement:
    return nrm_measure(score.model, score.variables, images, batch_size=score.options["batch_size"])


# -------------------------------------------------------------------------------- beyond the paper


def nrm_latent_per_energy(model: NRM, variables: Variables, *, batch_size: int = 64) -> Score:
    """Build the score ``-log p(z*|y*) / |x|^2``, see `jaxood.scores.nrm.statistics.per_energy`.

    Args:
        model: as in `nrm_latent`.
        variables: as in `nrm_latent`.
        batch_size: as in `nrm_latent`.

    Returns:
        A per-image `Score`.
    """
    return Score("nrm_latent_per_energy", model, variables, {"batch_size": batch_size})


@scored("nrm_latent_per_energy", per_image=True)
def _nrm_latent_per_energy(score: Score, images: Array) -> np.ndarray:
    found = measure_latents(score.model, score.variables, images, **score.options)
    return statistics.per_energy(-found.log_prob, found.energy)


def nrm_latent_two_sided(
    model: NRM, variables: Variables, trusted: Array, *, batch_size: int = 64
) -> Score:
    """Build the distance of log p(z*|y*) from its mean over trusted images, in nats.

    Args:
        model: as in `nrm_latent`.
        variables: as in `nrm_latent`.
        trusted: uint8 ``(N, h, w, c)``, held-out trusted images, which are measured here. Images
            that a detector is calibrated on have no place here.
        batch_size: as in `nrm_latent`.

    Returns:
        A per-image `Score`.

    Raises:
        TypeError: if the trusted images are not uint8.
        ValueError: if they have another shape.
    """
    check_set(trusted)
    found = measure_latents(model, variables, trusted, batch_size=batch_size)
    arrays = {"mean": np.mean(found.log_prob)}
    return Score("nrm_latent_two_sided", model, variables, {"batch_size": batch_size}, arrays)


@scored("nrm_latent_two_sided", per_image=True)
def _nrm_latent_two_sided(score: Score, images: Array) -> np.ndarray:
    found = measure_latents(score.model, score.variables, images, **score.options)
    return typicality(found.log_prob, np.asarray(score.arrays["mean"]))


def nrm_latent_class_centred(
    model: NRM, variables: Variables, trusted: Array, *, batch_size: int = 64
) -> Score:
    """Build ``-log p(z*|y*)`` less its mean over trusted images of the same class, in nats.

    The mean stands in for the normalizer, see `jaxood.scores.statistics.class_centred`.

    Args:
        model: as in `nrm_latent`.
        variables: as in `nrm_latent`.
        trusted: as in `nrm_latent_two_sided`.
        batch_size: as in `nrm_latent`.

    Returns:
        A per-image `Score`.

    Raises:
        TypeError: as `nrm_latent_two_sided`.
        ValueError: as `nrm_latent_two_sided`.
    """
    check_set(trusted)
    found = measure_latents(model, variables, trusted, batch_size=batch_size)
    arrays = {"null": -found.log_prob, "null_label": found.label}
    return Score("nrm_latent_class_centred", model, variables, {"batch_size": batch_size}, arrays)


@scored("nrm_latent_class_centred", per_image=True)
def _nrm_latent_class_centred(score: Score, images: Array) -> np.ndarray:
    found = measure_latents(score.model, score.variables, images, **score.options)
    null, null_label = score.arrays["null"], score.arrays["null_label"]
    return class_centred(-found.log_prob, found.label, null, null_label)


def nrm_profile(model: NRM, variables: Variables, trusted: Array, *, batch_size: int = 64) -> Score:
    """Build the distance from the latent and reconstruction terms of trusted images.

    All layers count, see `jaxood.scores.nrm.statistics.profile`.

    Args:
        model: as in `nrm_latent`.
        variables: as in `nrm_latent`.
        trusted: as in `nrm_latent_two_sided`.
        batch_size: as in `nrm_latent`.

    Returns:
        A per-image `Score`, a squared distance.

    Raises:
        TypeError: as `nrm_latent_two_sided`.
        ValueError: as `nrm_latent_two_sided`.
    """
    terms = statistics.profile_terms
    return _distance_from("nrm_profile", terms, model, variables, trusted, batch_size)


@scored("nrm_profile", per_image=True)
def _nrm_profile(score: Score, images: Array) -> np.ndarray:
    return _distance(score, statistics.profile_terms(_measure(score, images)))


def nrm_switches(
    model: NRM, variables: Variables, trusted: Array, *, batch_size: int = 64
) -> Score:
    """Build the distance from the switches of trusted images.

    All layers count, see `jaxood.scores.nrm.statistics.switches`. The arguments, the result and the
    errors are those of `nrm_profile`.
    """
    terms = statistics.switch_terms
    return _distance_from("nrm_switches", terms, model, variables, trusted, batch_size)


@scored("nrm_switches", per_image=True)
def _nrm_switches(score: Score, images: Array) -> np.ndarray:
    return _distance(score, statistics.switch_terms(_measure(score, images)))


def _distance_from(name, terms, model, variables, trusted, batch_size) -> Score:
    check_set(trusted)
    measured = nrm_measure(model, variables, trusted, batch_size=batch_size)
    normal = statistics.fit_normal(terms(measured))
    return Score(name, model, variables, {"batch_size": batch_size}, normal._asdict())


def _distance(score: Score, terms: np.ndarray) -> np.ndarray:
    normal = Normal(**{name: np.asarray(array) for name, array in score.arrays.items()})
    return statistics.distance(normal, terms)
