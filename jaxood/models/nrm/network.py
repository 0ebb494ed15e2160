"""The ConvNet whose forward pass is inference in the neural rendering model (NRM paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxood.models.nrm.max_pool import pick, winners
from jaxood.nn.batch_norm import BatchNorm
from jaxood.nn.convolution import Conv


class Latents(NamedTuple):
    """The choices of the forward pass: z*(l), l = 1..L (NRM paper, Theorem 1).

    Attributes:
        switches: s(l), one bool ``(n, h, w, c)`` a layer: pixels that the ReLU lets through.
        translations: t(l), one a layer: for each pixel of g(l) the place of the winner in its
            window, row by row from 0, uint8 ``(n, h, w, c)``; ``None`` where nothing is pooled.
    """

    switches: tuple[jax.Array, ...]
    translations: tuple[jax.Array | None, ...]


class Layer(NamedTuple):
    """Convolution, BatchNorm, skip connection, max-pool and ReLU, in this order.

    Attributes:
        features: channels of the result.
        kernel: height and width.
        stride: stride of the convolution.
        padding: ``"SAME"`` or ``"VALID"``.
        pool: size and stride of the max-pool's windows, padded as ``"SAME"``; None for no pool.
        skip: stride of a skip connection, which adds g(l-2) to the convolution of g(l-1), by way
            of a 1x1 convolution where shapes differ; 0 for none.
        batch_norm: whether BatchNorm follows, in a network that has BatchNorm.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: str = "SAME"
    pool: tuple[int, int] | None = None
    skip: int = 0
    batch_norm: bool = True

    @property
    def shortcut(self) -> Layer:
        """The 1x1 convolution of the skip connection, as a layer."""
        return self._replace(kernel=1, stride=self.skip, padding="SAME")


Encoding = tuple[jax.Array, tuple[jax.Array, ...], Latents]
"""Logits ``(n, classes)``, features ``(g(0), ..., g(L))`` and `Latents`."""


def infer(
    layers: Sequence[Layer],
    x: jax.Array,
    *,
    convolve: Callable[[int, jax.Array], jax.Array],
    shortcut: Callable[[int, jax.Array], jax.Array],
    classify: Callable[[jax.Array], jax.Array],
) -> Encoding:
    """Run the layers on images, whoever holds the weights, and keep what each layer chose.

    Args:
        layers: l = 1..L.
        x: floating ``(n, h, w, c)``.
        convolve: maps l and g(l-1) to ``W(l) g(l-1) + b(l)``.
        shortcut: maps l and g(l-2) to the 1x1 convolution of a skip connection.
        classify: maps the averages of g(L) over space, ``(n, c)``, to logits.

    Returns:
        An `Encoding`.
    """
    features, switches, translations = [x], [], []
    for number, layer in enumerate(layers, 1):
        y = convolve(number, features[-1])
        if layer.skip:
            source = features[-2]
            y += source if source.shape == y.shape else shortcut(number, source)
        winner = None
        if layer.pool:
            winner = winners(y, layer.pool)
            y = pick(y, winner, layer.pool)
        features.append(nn.relu(y))
        switches.append(y > 0)
        translations.append(winner)
    logits = classify(features[-1].mean((1, 2)))
    return logits, tuple(features), Latents(tuple(switches), tuple(translations))


class ConvNet(nn.Module):
    """The network of an NRM, with its initial weights and with BatchNorm as Flax has it.

    Attributes:
        layers: l = 1..L.
        classes: number of logits, by a dense layer W_fc, b_fc after the global average pooling;
            None where the averages are the logits.
        batch_norm: whether it has BatchNorm.
        template: added to every initial weight of the last linear layer.
    """

    layers: tuple[Layer, ...]
    classes: int | None
    batch_norm: bool = False
    template: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> Encoding:
        """Map floating ``(n, h, w, c)`` to an `Encoding`."""

        def convolve(number, x):
            layer = self.layers[number - 1]
            last = self.classes is None and number == len(self.layers)
            common = self.template if last else 0.0
            return self._convolve(f"layer_{number}", x, layer, train, common=common)

        def shortcut(number, x):
            # The layer's own bias is enough.
            layer = self.layers[number - 1].shortcut
            return self._convolve(f"skip_{number}", x, layer, train, use_bias=False)

        def classify(means):
            if self.classes is None:
                return means
            init = _plus(nn.initializers.lecun_normal(), self.template)
            return nn.Dense(self.classes, kernel_init=init, name="dense")(means)

        return infer(self.layers, x, convolve=convolve, shortcut=shortcut, classify=classify)

    def _convolve(self, name, x, layer, train, *, common=0.0, use_bias=True):
        normalized = self.batch_norm and layer.batch_norm
        conv: Any = Conv(
            layer.features,
            (layer.kernel, layer.kernel),
            layer.stride,
            layer.padding,
            use_bias=use_bias and not normalized,
            kernel_init=_plus(nn.initializers.he_normal(), common),
            name=name,
        )
        y = conv(x)
        if normalized:
            norm = BatchNorm(use_running_average=not train, name=f"{name}_norm")
            y = norm(y)
        return y


def _plus(init, constant):
    return lambda key, shape, dtype=jnp.float32: init(key, shape, dtype) + constant
