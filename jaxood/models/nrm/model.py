"""The neural rendering model: a ConvNet, read backwards (Ho et al. 2018; NRM paper, Section 2).

Layer l of the network is ``g(l) = relu(pool(W(l) g(l-1) + b(l)))``. What it chose on an image are
the latents: which pixels are on, s(l), and which pixel of each window won, t(l). With those held
fixed the network is affine, and rendering is the adjoint of its linear part: from the template of
a class, ``h(l-1) = W(l)' unpool_t(l)(s(l) h(l))`` down to the image h(0). (Pooling before the ReLU
is pooling after it, and gives s(l) and t(l) the size of the layer's result.)

Three identities follow, for any network here, BatchNorm folded into its weights and biases:

- ``h(0)`` is the gradient of the logit of y by the image;
- ``sum_l <b(l), s(l) h(l)>``, which is log p(z*|y) up to its normalizer, is the derivative of that
  logit along the bias vector;
- the logit less its own bias is ``<x, h(0)> + sum_l <b(l), s(l) h(l)>``.

So where rendering is perfect, h(0) = x, the logit is ``|x|^2 / 2`` and a constant, its gradient
being x, and log p(z*|y) is a constant less ``|x|^2 / 2``: the better a network renders, the more
its latents' likelihood follows the energy of the image, whatever it shows.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxood.models.nrm.network import ConvNet, pick, shortcut
from jaxood.nn.batch_stats import move, with_moments
from jaxood.nn.convolution import conv_general_dilated
from jaxood.nn.layers import BATCH_NORM_EPSILON
from jaxood.nn.likelihoods import to_unit


class NRM(NamedTuple):
    """A neural rendering model as pure functions.

    Images are uint8 ``(n, h, w, c)``, scaled to [-1, 1], or floating and taken as they are.
    ``variables`` with ``"batch_stats"`` are a network with BatchNorm, those without (see `fold`)
    one without.

    Attributes:
        init: ``(key, x) -> variables``: ``"params"`` and, with BatchNorm, ``"batch_stats"``. Only
            the shape of ``x`` matters.
        encode: ``(variables, x, *, train=False, mutable=False)`` to logits ``(n, classes)``,
            features ``(g(0), ..., g(L))`` and `Latents`; ``train`` is the BatchNorm mode. With
            ``mutable=["batch_stats"]`` the result is a pair of that and the running statistics
            after this batch.
        render: ``(variables, y, latents, *, from_layer=L, h=None)`` to ``(h(0), ..., h(L))``, for
            class labels ``(n,)``, BatchNorm folded at its running statistics. With ``h``, which
            has the shape of ``g(from_layer)``, rendering starts there instead, ``y`` is not
            looked at, and the result ends with ``h``.
        log_prob: ``(variables, x, *, train=False, key=None, dropout_key=None, mutable=False)``,
            as of a `DensityModel`: the lower bound of Theorem 2 at sigma = 1, up to a constant,
            ``-|x - h(0)|^2 / 2 + log p(z*|y*)``, ``(n,)`` nats, on scaled images; its normalizer
            depends on y* and is left out. There is no noise.
        shapes: ``(h, w, c)`` of g(0), ..., g(L).
    """

    init: Callable
    encode: Callable
    render: Callable
    log_prob: Callable
    shapes: tuple


def nrm(image_shape, layers, *, classes: int | None = 10, batch_norm=False, template=0.0):
    """A neural rendering model of any chain of layers.

    Args:
        image_shape: ``(h, w, c)``.
        layers: `Layer`s.
        classes: number of classes, by a dense layer; None where the last layer has a channel a
            class, whose averages are the logits.
        batch_norm: with BatchNorm.
        template: added to every weight of the last linear layer by ``init``: what the templates of
            all classes have in common. It drops out of the softmax, so an image can be rendered
            well from any class without its logits drifting apart.

    Returns:
        An `NRM`.

    Raises:
        ValueError: if the images are too small for the network; from ``encode``, if images have
            another shape; from ``render``, if it cannot start at that layer.
    """
    layers = tuple(layers)
    plain, normalized = ConvNet(layers, classes), ConvNet(layers, classes, batch_norm=True)
    shapes = _shapes(plain, image_shape)
    smallest = min(min(shape) for shape in shapes)
    if smallest < 1:
        h, w, _ = image_shape
        raise ValueError(f"{h}x{w} images are too small for this network: nothing is left of them")
    # The layer above l jumps over l: below it, h(l) is not all there is.
    inside = {number - 1 for number, layer in enumerate(layers, 1) if layer.skip}

    @jax.jit
    def init(key, x):
        net: Any = normalized if batch_norm else plain
        variables = net.init(key, jnp.zeros((1, *x.shape[1:])))
        last = variables["params"]["dense" if classes else f"layer_{len(layers)}"]
        last["kernel"] += template
        return variables

    def encode(variables, x, *, train=False, mutable=False):
        if x.shape[1:] != shapes[0]:
            raise ValueError(f"the model is for images {shapes[0]}, not {x.shape[1:]}")
        net: Any = normalized if variables.get("batch_stats") else plain
        result, updates = net.apply(variables, scale(x), train=train, mutable=["batch_stats"])
        return (result, updates.get("batch_stats", {})) if mutable else result

    def render(variables, y, latents, *, from_layer=None, h=None):
        params = fold(variables)["params"]
        top = len(layers) if from_layer is None else from_layer
        if h is None:
            if top != len(layers):
                raise ValueError(f"rendering from layer {top} starts from h: give it")
            h = _template(params, y, shapes[-1])
        elif top in inside:
            raise ValueError(f"a skip connection jumps over layer {top}: start at its block's end")
        rendered = {top: h}
        for number in range(top, 0, -1):
            switch, winner = (latent[number - 1] for latent in latents)
            h = jnp.where(switch, rendered[number], 0)
            layer = layers[number - 1]
            linear = functools.partial(_linear, layer, params, number, winner)
            sources = (number - 1, number - 2) if layer.skip else (number - 1,)
            below = [jax.ShapeDtypeStruct((len(h), *shapes[i]), h.dtype) for i in sources]
            for i, part in zip(sources, jax.linear_transpose(linear, *below)(h), strict=True):
                rendered[i] = rendered[i] + part if i in rendered else part
        return tuple(rendered[number] for number in range(top + 1))

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key  # no noise, no dropout in this model
        (logits, features, latents), folded, batch_stats = forward(model, variables, x, train=train)
        h = render(folded, logits.argmax(1), latents)
        error = ((features[0] - h[0]) ** 2).sum((1, 2, 3))
        latent = sum(path.sum((1, 2, 3)) for path in paths(folded, latents, h))
        result = latent - error / 2
        return (result, batch_stats) if mutable else result

    model = NRM(init, encode, render, log_prob, shapes)
    return model


def _linear(layer, params, number, winner, below, source=None):
    """The linear part of a layer, its max-pool decided: what rendering is the adjoint of."""

    def convolve(name, x, layer):
        kernel = params[name]["kernel"]
        return conv_general_dilated(x, kernel, (layer.stride, layer.stride), layer.padding)

    y = convolve(f"layer_{number}", below, layer)
    if source is not None:
        skip = f"skip_{number}"
        y += convolve(skip, source, shortcut(layer)) if skip in params else source
    return y if winner is None else pick(y, winner, layer.pool)


def _template(params, y, shape):
    """h(L): the weights of a class, spread over space by the adjoint of the average."""
    h, w, c = shape
    weights = params["dense"]["kernel"].T if "dense" in params else jnp.eye(c)
    weights = weights.astype(params["layer_1"]["kernel"].dtype)
    return jnp.broadcast_to(weights[y][:, None, None] / (h * w), (len(y), h, w, c))


def _shapes(net, image_shape):
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    _, features, _ = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], x)
    return tuple(g.shape[1:] for g in features)


def scale(x):
    """Scale uint8 levels to [-1, 1] (NRM paper, Section 3.1); leave floating images as they are.

    Raises:
        TypeError: for any other type.
    """
    if x.dtype == jnp.uint8:
        return to_unit(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"images must be uint8, or floating and scaled, got {x.dtype}")
    return x


def forward(model, variables, x, *, train=False):
    """Encode, and say by which network without BatchNorm: the one that renders what was encoded.

    Args:
        model: an `NRM`.
        variables: of the model.
        x: images.
        train: BatchNorm mode. In training mode the folded network has the batch's own statistics,
            and is differentiable through them.

    Returns:
        What ``model.encode`` returns, folded variables, and the running statistics after this
        batch (``{}`` without BatchNorm).
    """
    running = variables.get("batch_stats", {})
    if not (train and running):
        return model.encode(variables, x), fold(variables), running
    result, moments = with_moments(
        lambda blank: model.encode(blank, x, train=True, mutable=["batch_stats"]), variables
    )
    return result, fold({**variables, "batch_stats": moments}), move(running, moments)


# ------------------------------------------------------------------------- weights and biases


def fold(variables):
    """Fold BatchNorm into the weights and biases that it follows, at its running statistics.

    Args:
        variables: of an `NRM`, with BatchNorm or without.

    Returns:
        Variables of the same network without BatchNorm, which maps images to the same features.
    """
    params, statistics = variables["params"], variables.get("batch_stats", {})
    folded = {name: dict(values) for name, values in params.items() if not name.endswith("_norm")}
    for norm, moments in statistics.items():
        name = norm.removesuffix("_norm")
        gain = params[norm]["scale"] / jnp.sqrt(moments["var"] + BATCH_NORM_EPSILON)
        folded[name]["kernel"] = folded[name]["kernel"] * gain
        folded[name]["bias"] = params[norm]["bias"] - moments["mean"] * gain
    for name in folded:
        # A layer has one bias, b(l): that of its skip connection goes into it.
        if name.startswith("skip_") and "bias" in folded[name]:
            layer = folded[name.replace("skip", "layer")]
            layer["bias"] = layer["bias"] + folded[name].pop("bias")
    return {"params": folded}


def biases(folded):
    """``(b(1), ..., b(L))`` of folded variables, each ``(c,)``; the logits' own is not one."""
    params = folded["params"]
    count = sum(name.startswith("layer_") for name in params)
    return tuple(params[f"layer_{number}"]["bias"] for number in range(1, count + 1))


def replace_biases(folded, new):
    """Folded variables with other b(1), ..., b(L)."""
    params = dict(folded["params"])
    for number, bias in enumerate(new, 1):
        params[f"layer_{number}"] = {**params[f"layer_{number}"], "bias": bias}
    return {"params": params}


def paths(folded, latents, h):
    """The rendering path ``b(l) s(l) h(l)``, l = 1..k: its sum is log p(z|y) up to a constant.

    Args:
        folded: variables without BatchNorm.
        latents: `Latents`.
        h: ``(h(0), ..., h(k))``, as rendered.

    Returns:
        k arrays ``(n, h, w, c)``.
    """
    return tuple(
        jnp.where(switch, bias * rendered, 0)
        for bias, switch, rendered in zip(biases(folded), latents.switches, h[1:], strict=False)
    )
