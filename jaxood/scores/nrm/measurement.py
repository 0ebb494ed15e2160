"""The terms of images by a neural rendering model, which its scores are made of.

`measure_latents` takes one forward-mode pass and renders nothing; `nrm_measure` encodes and
renders. BatchNorm is in evaluation mode.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxood import parallel, progress
from jaxood.density import Array, Variables
from jaxood.models.nrm import NRM, Folded, explain, fold
from jaxood.parallel.batches import in_batches
from jaxood.scores.nrm.statistics import Measurement, Reduction, layer_weights

# ------------------------------------------------------------------------ for one batch, traceable


class Latent(NamedTuple):
    """The likelihood of the latents of images.

    Attributes:
        log_prob: floating ``(n,)``: log p(z*|y) up to its constant, in nats.
        label: int ``(n,)``: the class y.
        energy: floating ``(n,)``: ``|x|^2`` of the scaled image.
    """

    log_prob: Any
    label: Any
    energy: Any


def latent_log_prob(
    model: NRM,
    variables: Variables | Folded,
    x: Array,
    *,
    y: Array | None = None,
    reduction: Reduction = "sum",
    above: int = 0,
) -> Latent:
    """Compute ``log p({z*(l)}_{l > above} | y)`` up to its constant, by one forward-mode pass.

    The latents held fixed, it is the derivative of the logit of y along the bias vector
    (`jaxood.models.nrm.model`). Nothing is rendered.

    Args:
        model: the network and its adjoint.
        variables: variables of the model; BatchNorm at its running statistics.
        x: images ``(n, h, w, c)``.
        y: int ``(n,)``, classes; by default the likeliest, y*.
        reduction: over features, see `jaxood.scores.nrm.statistics`.
        above: k, as in `jaxood.scores.nrm.statistics.latent`.

    Returns:
        A `Latent`.
    """
    folded = fold(variables)
    weights = layer_weights(sizes(model), reduction)[1 + above :]
    fixed, moving = folded.biases[:above], folded.biases[above:]
    direction = tuple((b * w).astype(b.dtype) for b, w in zip(moving, weights, strict=True))

    def encode(moving):
        logits, features, _ = model.encode(folded._replace(biases=fixed + moving), x)
        return logits, (features[0] ** 2).sum((1, 2, 3))

    result: Any = jax.jvp(encode, (moving,), (direction,), has_aux=True)
    logits, derivative, energy = result
    label = logits.argmax(1) if y is None else jnp.asarray(y)
    log_prob = jnp.take_along_axis(derivative, label[:, None], axis=1)[:, 0]
    return Latent(log_prob, label, energy)


def measure_batch(
    model: NRM, variables: Variables | Folded, x: Array, *, y: Array | None = None
) -> Measurement:
    """Encode and render one batch; the arguments are those of `nrm_measure`."""
    found = explain(model, variables, x, y=y)

    def total(feature):
        return feature.sum((1, 2, 3))

    pairs = zip(found.features, found.rendered, strict=True)
    return Measurement(
        label=found.label.astype(jnp.int32),
        logits=found.logits,
        latent=jnp.stack([total(path) for path in found.paths], axis=1),
        reconstruction=jnp.stack([total((g - h) ** 2) for g, h in pairs], axis=1),
        energy=total(found.features[0] ** 2),
        active=jnp.stack([switch.mean((1, 2, 3)) for switch in found.latents.switches], axis=1),
        negative=jnp.stack([(h < 0).mean((1, 2, 3)) for h in found.rendered[1:]], axis=1),
        sizes=sizes(model),
    )


def sizes(model: NRM) -> np.ndarray:
    """Return the number of features of each layer, D(0), ..., D(L)."""
    return np.array([np.prod(shape) for shape in model.shapes])


# -------------------------------------------------------------------------------- for many images


def nrm_measure(
    model: NRM,
    variables: Variables,
    x: Array,
    *,
    y: Array | None = None,
    batch_size: int = 64,
    show_progress: bool = False,
) -> Measurement:
    """Encode and render images, and keep all that scores need.

    Args:
        model: the network and its adjoint.
        variables: variables of the model; each device that they lie on measures batches of its own.
        x: uint8 ``(n, h, w, c)``, or floating and scaled, n > 0.
        y: int ``(n,)``, classes to render from; by default, and for -1, the likeliest.
        batch_size: images at a time and device; the last batch is padded, so the program compiles
            once.
        show_progress: draw a progress bar on stderr.

    Returns:
        A `Measurement`, on the host.
    """
    mesh = parallel.mesh_of(variables)
    program = _measure_program(model, mesh)
    with progress.bar("rendering", -(-len(x) // batch_size), show=show_progress) as advance:
        measured = in_batches(
            lambda rows: program(variables, *rows),
            (x, None if y is None else np.asarray(y)),
            mesh,
            batch_size=batch_size,
            advance=advance,
        )
    return measured._replace(sizes=sizes(model))


@functools.lru_cache(16)
def _measure_program(model, mesh):
    def measure(variables, x, y):
        return measure_batch(model, variables, x, y=y)._replace(sizes=None)

    return parallel.map_rows(measure, mesh, rows=(False, True, True))


@functools.lru_cache(16)
def _latent_program(model, mesh, reduction, above):
    def latent(variables, x):
        return latent_log_prob(model, variables, x, reduction=reduction, above=above)

    return parallel.map_rows(latent, mesh, rows=(False, True))


def measure_latents(
    model: NRM,
    variables: Variables,
    x: Array,
    *,
    reduction: Reduction = "sum",
    above: int = 0,
    batch_size: int = 64,
) -> Latent:
    """Compute the likelihood of the latents of images, without rendering.

    Args:
        model: as in `nrm_measure`.
        variables: as in `nrm_measure`.
        x: as in `nrm_measure`.
        reduction: as in `latent_log_prob`.
        above: as in `latent_log_prob`.
        batch_size: as in `nrm_measure`.

    Returns:
        A `Latent`, on the host.
    """
    mesh = parallel.mesh_of(variables)
    program = _latent_program(model, mesh, reduction, above)
    return in_batches(lambda x: program(variables, x), x, mesh, batch_size=batch_size)
