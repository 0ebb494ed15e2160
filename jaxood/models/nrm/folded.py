"""The weights and biases of a network, BatchNorm folded into them, as plain arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxood.density import Variables
from jaxood.models.nrm.network import Latents
from jaxood.nn.batch_norm import BATCH_NORM_EPSILON


class Dense(NamedTuple):
    """The dense layer that maps averages over space to logits.

    Attributes:
        kernel: W_fc, ``(c, classes)``.
        bias: b_fc, ``(classes,)``.
    """

    kernel: Any
    bias: Any


class Folded(NamedTuple):
    """A network without BatchNorm: its weights and biases, layer by layer.

    Attributes:
        kernels: W(1), ..., W(L), each ``(kh, kw, c_in, c_out)``.
        biases: b(1), ..., b(L), each ``(c_out,)``. A layer has one bias: that of its skip
            connection is part of it, and the logits' own bias is not among them.
        skips: kernels of the 1x1 convolutions of skip connections, one a layer; None where there
            is no such convolution.
        dense: the `Dense` layer; None where the averages over space are the logits.
    """

    kernels: tuple[Any, ...]
    biases: tuple[Any, ...]
    skips: tuple[Any, ...]
    dense: Dense | None


def fold(variables: Variables | Folded) -> Folded:
    """Fold BatchNorm into the weights and biases that it follows, at its running statistics.

    Args:
        variables: variables of an `NRM`, with BatchNorm or without; a folded network is returned as
            it is.

    Returns:
        The same network without BatchNorm, which maps images to the same features.
    """
    if isinstance(variables, Folded):
        return variables
    params, statistics = variables["params"], variables.get("batch_stats", {})

    def convolution(name):
        kernel, bias = params[name]["kernel"], params[name].get("bias", 0.0)
        if (norm := f"{name}_norm") in statistics:
            gain = params[norm]["scale"] / jnp.sqrt(statistics[norm]["var"] + BATCH_NORM_EPSILON)
            kernel = kernel * gain
            bias = params[norm]["bias"] - statistics[norm]["mean"] * gain
        return kernel, bias

    kernels, biases, skips = [], [], []
    for number in itertools.count(1):
        if f"layer_{number}" not in params:
            break
        kernel, bias = convolution(f"layer_{number}")
        skip = None
        if f"skip_{number}" in params:
            skip, skip_bias = convolution(f"skip_{number}")
            bias = bias + skip_bias
        kernels.append(kernel)
        biases.append(bias)
        skips.append(skip)
    dense = Dense(**params["dense"]) if "dense" in params else None
    return Folded(tuple(kernels), tuple(biases), tuple(skips), dense)


def paths(folded: Folded, latents: Latents, h: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Compute the rendering path ``b(l) s(l) h(l)``, l = 1..k.

    Args:
        folded: the network that rendered.
        latents: the `Latents` that it rendered from.
        h: ``(h(0), ..., h(k))``, as rendered.

    Returns:
        k arrays ``(n, h, w, c)``. Their sum over layers and features is log p(z|y) up to a
        constant, in nats.
    """
    return tuple(
        jnp.where(switch, bias * rendered, 0)
        for bias, switch, rendered in zip(folded.biases, latents.switches, h[1:], strict=False)
    )
