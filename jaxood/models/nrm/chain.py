"""Neural rendering models of any chain of layers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from jaxood import compilation
from jaxood.density import builder, check_shape
from jaxood.models.nrm.explanation import explain
from jaxood.models.nrm.folded import Folded, fold
from jaxood.models.nrm.max_pool import pick
from jaxood.models.nrm.model import NRM
from jaxood.models.nrm.network import ConvNet, Encoding, Latents, Layer, infer
from jaxood.nn.convolution import conv_general_dilated
from jaxood.nn.likelihoods import to_unit


@builder
def nrm(
    image_shape: Sequence[int],
    layers: Iterable[Layer],
    *,
    classes: int | None = 10,
    batch_norm: bool = False,
    template: float = 0.0,
) -> NRM:
    """Build a neural rendering model of any chain of layers.

    Args:
        image_shape: ``(h, w, c)``.
        layers: from the image up.
        classes: number of classes, by a dense layer; None where the last layer has a channel a
            class, whose averages are the logits.
        batch_norm: whether the network has BatchNorm.
        template: added to every initial weight of the last linear layer: the part that the
            templates of all classes have in common. It drops out of the softmax, so an image can
            be rendered well from any class without its logits drifting apart.

    Returns:
        An `NRM`.

    Raises:
        ValueError: if the images are too small for the network.
    """
    layers = tuple(Layer(*layer) for layer in layers)
    plain, normalized = (ConvNet(layers, classes, norm, template) for norm in (False, True))
    shapes = _shapes(plain, image_shape)
    if min(min(shape) for shape in shapes) < 1:
        h, w, _ = image_shape
        raise ValueError(f"{h}x{w} images are too small for this network: nothing is left of them")

    @compilation.jit
    def init(key, x):
        return (normalized if batch_norm else plain).init(key, jnp.zeros((1, *x.shape[1:])))

    def encode(variables, x, *, train=False, mutable=False):
        check_shape(x, shapes[0])
        batch_stats: Any = {}
        if not isinstance(variables, Folded) and variables.get("batch_stats"):
            net: Any = normalized
            result, updates = net.apply(variables, scale(x), train=train, mutable=["batch_stats"])
            batch_stats = updates["batch_stats"]
        else:
            result = _encode(layers, fold(variables), scale(x))
        return (result, batch_stats) if mutable else result

    def render(variables, y, latents, *, from_layer=None, h=None):
        folded, top = fold(variables), len(layers) if from_layer is None else from_layer
        if h is not None and top < len(layers) and layers[top].skip:
            # Below a skip connection, h(top) is only one part of what is rendered.
            raise ValueError(f"a skip connection jumps over layer {top}: start at its block's end")
        if h is None:
            if top != len(layers):
                raise ValueError(f"rendering from layer {top} starts from h: give it")
            h = _template(folded, y, shapes[-1])
        return _render(layers, folded, latents, h, shapes[: top + 1])

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key  # no noise, no dropout in this model
        found = explain(model, variables, x, train=train)
        error = ((found.features[0] - found.rendered[0]) ** 2).sum((1, 2, 3))
        latent = sum(path.sum((1, 2, 3)) for path in found.paths)
        result = latent - error / 2
        return (result, found.batch_stats) if mutable else result

    model = NRM(init, encode, render, log_prob, shapes)
    return model


def scale(x: Any) -> jax.Array:
    """Scale uint8 levels to [-1, 1] (NRM paper, Section 3.1).

    Args:
        x: images, uint8 or floating.

    Returns:
        Floating images of the same shape; those that were floating are returned as they are.

    Raises:
        TypeError: if the images have another type.
    """
    if x.dtype == jnp.uint8:
        return to_unit(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"images must be uint8, or floating and scaled, got {x.dtype}")
    return x


def _shapes(net: ConvNet, image_shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The ``(h, w, c)`` of g(0), ..., g(L)."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    _, features, _ = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], x)
    return tuple(g.shape[1:] for g in features)


# ------------------------------------------------------------------------------- up, without Flax


def _encode(layers: Sequence[Layer], folded: Folded, x: jax.Array) -> Encoding:
    def convolve(number, x):
        kernel, bias = folded.kernels[number - 1], folded.biases[number - 1]
        return _convolve(x, kernel, layers[number - 1]) + bias

    def shortcut(number, x):
        return _convolve(x, folded.skips[number - 1], layers[number - 1].shortcut)

    def classify(means):
        if folded.dense is None:
            return means
        return means @ folded.dense.kernel + folded.dense.bias

    return infer(layers, x, convolve=convolve, shortcut=shortcut, classify=classify)


def _convolve(x, kernel, layer: Layer) -> jax.Array:
    x, kernel = promote_dtype(x, kernel)
    return conv_general_dilated(x, kernel, (layer.stride, layer.stride), layer.padding)


# ------------------------------------------------------------------------------------------- down


def _template(folded: Folded, y, shape: tuple[int, ...]) -> jax.Array:
    """Make h(L): the weights of a class, spread over space by the adjoint of the average."""
    h, w, c = shape
    weights = jnp.eye(c) if folded.dense is None else folded.dense.kernel.T
    weights = weights.astype(folded.kernels[0].dtype)
    return jnp.broadcast_to(weights[y][:, None, None] / (h * w), (len(y), h, w, c))


def _render(
    layers: Sequence[Layer],
    folded: Folded,
    latents: Latents,
    h: Any,
    shapes: Sequence[tuple[int, ...]],
) -> tuple[jax.Array, ...]:
    """``(h(0), ..., h(k))`` from h(k), by the adjoint of one layer after another."""
    top = len(shapes) - 1
    rendered = {top: h}
    for number in range(top, 0, -1):
        layer, switch = layers[number - 1], latents.switches[number - 1]
        linear = functools.partial(
            _linear,
            layer,
            folded.kernels[number - 1],
            folded.skips[number - 1],
            latents.translations[number - 1],
        )
        sources = (number - 1, number - 2) if layer.skip else (number - 1,)
        below = [jax.ShapeDtypeStruct((len(h), *shapes[i]), h.dtype) for i in sources]
        adjoint = jax.linear_transpose(linear, *below)
        for i, part in zip(sources, adjoint(jnp.where(switch, rendered[number], 0)), strict=True):
            rendered[i] = rendered[i] + part if i in rendered else part
    return tuple(rendered[number] for number in range(top + 1))


def _linear(layer: Layer, kernel, skip, winner, below, source=None) -> jax.Array:
    """The linear part of a layer, its max-pool decided: rendering is the adjoint of it."""
    y = _convolve(below, kernel, layer)
    if source is not None:
        y += source if skip is None else _convolve(source, skip, layer.shortcut)
    return pick(y, winner, layer.pool) if layer.pool else y
