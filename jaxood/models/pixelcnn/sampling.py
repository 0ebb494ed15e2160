"""Sampling from PixelCNN++: each layer computes its newest row or pixel from cached activations.

The vertical stream sees whole rows above a pixel, so it is run once a row. The horizontal stream is
run once a pixel. A coarser level is run only when one of its own rows or pixels begins
(Ramachandran et al. 2017, "Fast Generation for Convolutional Autoregressive Models").
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxood.density import Variables
from jaxood.nn.batch_norm import BATCH_NORM_EPSILON
from jaxood.nn.likelihoods import logistic_mixture_sample, to_unit

WEIGHT_NORM_EPSILON = 1e-12
"""The default of `flax.linen.WeightNorm`."""


def sample_naive(
    network: Any,
    variables: Variables,
    key: jax.Array,
    n: int,
    image_shape: Sequence[int],
    temperature: float | jax.Array,
) -> jax.Array:
    """Draw images with a whole forward pass for each pixel, the reference for `sample_incremental`.

    Args:
        network: a `jaxood.models.pixelcnn.network.PixelCNN`.
        variables: variables of the network.
        key: a typed key.
        n: number of images.
        image_shape: ``(h, w, c)``.
        temperature: number >= 0, see `jaxood.nn.likelihoods.logistic_mixture_sample`.

    Returns:
        uint8 ``(n, h, w, c)``.
    """
    h, w, c = image_shape
    keys = jax.random.split(key, n)

    def draw(position, x):
        parameters = network.apply(variables, to_unit(x, _dtype(variables)))
        row, column = position // w, position % w
        pixel = _draw(keys, position, parameters[:, row, column], c, temperature)
        return x.at[:, row, column].set(pixel)

    return lax.fori_loop(0, h * w, draw, jnp.zeros((n, h, w, c), jnp.uint8))


def sample_incremental(
    network: Any,
    variables: Variables,
    key: jax.Array,
    n: int,
    image_shape: Sequence[int],
    temperature: float | jax.Array,
) -> jax.Array:
    """Draw images pixel by pixel from cached activations, with the noise of `sample_naive`.

    The arguments are those of `sample_naive`.

    Returns:
        uint8 ``(n, h, w, c)``. These are the images of `sample_naive`, up to rounding errors in
        the parameters, which rarely carry a pixel to the next level.
    """
    h, w, c = image_shape
    keys = jax.random.split(key, n)
    network = network.clone(settings=network.settings._replace(normalization="none"))
    params = fold_normalization(variables)
    dtype = _dtype(variables)

    def apply(method, cache, *args):
        result, updates = network.apply(
            {"params": params, "cache": cache}, *args, method=method, mutable=["cache"]
        )
        return result, updates.get("cache", {})

    def advance(stream, x, context, parts, position, level=0):
        """Run a row of the vertical stream, or a pixel of the horizontal one, from ``level`` on.

        Each level has an entry in ``parts``. It holds the windows of the level's convolutions, by
        method, and ``grown``, the result of the next level: two rows or 2x2 pixels, of which this
        level takes one at a time. Where an entry is empty, it is filled.
        """
        part, *coarser = parts
        new = {}

        def run(method, *args):
            def call(network):
                return getattr(getattr(network, stream), method)(*args, level)

            result, windows = apply(call, part.get(method, {}))
            if windows:
                new[method] = windows
            return result

        x, states = run("descend", x, context)
        if coarser:
            row, column = (p >> level for p in position)
            small = run("shrink", x)

            def begin():
                y, updated = advance(stream, small, context, coarser, position, level + 1)
                return run("grow", y), updated

            if "grown" in part:
                begins = (row % 2 == 0) & (column % 2 == 0)
                unchanged = part["grown"], coarser
                new["grown"], coarser = lax.cond(begins, begin, lambda: unchanged)
            else:
                new["grown"], coarser = begin()
            x = lax.dynamic_slice(new["grown"], (0, row % 2, column % 2, 0), x.shape)
        x, outputs = run("ascend", x, states, context)
        if context is None:
            new["context"] = states[1:], outputs
        return x, [new, *coarser]

    def vertical_row(above, parts, row):
        """Advance the vertical stream by a row; the row above has pixels ``(n, 1, w, c + 1)``."""
        x, windows = apply(lambda network: network.enter_vertical(above), parts[0].get("enter", {}))
        _, parts = advance("vertical", x, None, parts, (row, 0))
        parts[0]["enter"] = windows
        return parts

    def horizontal_pixel(left, entered, context, parts, position):
        """Compute a pixel's parameters from the pixel ``(n, 1, 1, c + 1)`` to the left."""
        x, windows = apply(lambda network: network.enter_left(left), parts[0].get("enter", {}))
        x, parts = advance("horizontal", entered + x, context, parts, position)
        parts[0]["enter"] = windows
        return apply(lambda network: network.read_out(x), {})[0][:, 0, 0], parts

    def draw_row(carry, row):
        above, vertical, horizontal = carry
        vertical = vertical_row(above, _next_row(vertical, row), row)
        entered, _ = apply(lambda network: network.enter_above(above), {})

        def draw_pixel(carry, column):
            left, horizontal = carry
            place = _place(windows, column)
            context = _context_at(vertical, column)
            here = lax.dynamic_slice_in_dim(entered, column, 1, axis=2)
            parameters, parts = horizontal_pixel(
                left, here, context, _read(horizontal, windows, place), (row, column)
            )
            pixel = _draw(keys, row * w + column, parameters, c, temperature)
            left = with_ones(pixel[:, None, None])
            return (left, _write(horizontal, parts, place)), pixel

        start = jnp.zeros((n, 1, 1, c + 1), dtype), _next_row(horizontal, row)
        (_, horizontal), pixels = lax.scan(draw_pixel, start, jnp.arange(w))
        return (with_ones(pixels.swapaxes(0, 1)[:, None]), vertical, horizontal), pixels

    def with_ones(pixels):
        x = to_unit(pixels, dtype)
        return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)

    above = jnp.zeros((n, 1, w, c + 1), dtype)
    unmade = [{}] * network.levels
    vertical = _zeros(jax.eval_shape(lambda: vertical_row(above, unmade, 0)))
    left, entered = above[:, :, :1], jnp.zeros((n, 1, 1, network.settings.width), dtype)
    windows = jax.eval_shape(
        lambda: horizontal_pixel(left, entered, _context_at(vertical, 0), unmade, (0, 0))[1]
    )
    start = above, vertical, _row_buffers(windows, w)
    _, pixels = lax.scan(draw_row, start, jnp.arange(h))
    return pixels.transpose(2, 0, 1, 3)


# A step needs activations: for each level a dictionary, by method, of the windows
# (..., height, width, channels) that its convolutions see. Windows of the horizontal stream are cut
# from buffers of whole rows, which begin with the columns of the padding.


def _zeros(shapes):
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _row_buffers(parts, width):
    def buffer(name, window, level):
        padding = 0 if name == "grown" else window.shape[-2] - 1
        shape = (*window.shape[:-2], (width >> level) + padding, window.shape[-1])
        return jnp.zeros(shape, window.dtype)

    return _map_with_level(buffer, parts)


def _place(parts, column):
    """The column of its row's buffer where each window begins, for a column of the image."""

    def start(name, _, level):
        return column >> (level + 1) << 1 if name == "grown" else column >> level

    return _map_with_level(start, parts)


def _read(buffers, windows, place):
    def read(buffer, window, start):
        return lax.dynamic_slice_in_dim(buffer, start, window.shape[-2], buffer.ndim - 2)

    return jax.tree.map(read, buffers, windows, place)


def _write(buffers, windows, place):
    def write(buffer, window, start):
        return lax.dynamic_update_slice_in_dim(buffer, window, start, buffer.ndim - 2)

    return jax.tree.map(write, buffers, windows, place)


def _next_row(parts, row):
    """Move the windows of each level at which a row begins up by one row."""

    def move_up(name, window, level):
        if name in ("grown", "context"):
            return window
        moved = jnp.roll(window, -1, axis=-3).at[..., -1, :, :].set(0)
        return jnp.where(row % 2**level == 0, moved, window)

    return _map_with_level(move_up, parts)


def _map_with_level(f, parts):
    def of(name, tree, level):
        return jax.tree.map(lambda leaf: f(name, leaf, level), tree)

    return [
        {name: of(name, tree, level) for name, tree in part.items()}
        for level, part in enumerate(parts)
    ]


def _context_at(vertical, column):
    """The vertical stream's outputs in a column, at each level."""

    def at(_, context, level):
        return lax.dynamic_slice_in_dim(context, column >> level, 1, axis=3)

    contexts = [{"context": part["context"]} for part in vertical]
    return [part["context"] for part in _map_with_level(at, contexts)]


def _draw(keys, position, parameters, channels, temperature):
    """Draw a pixel; its noise is a function of the image's key and the pixel's position alone."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, position))(keys)
    return logistic_mixture_sample(keys, parameters, channels, temperature)


def _dtype(variables):
    return jax.tree.leaves(variables["params"])[0].dtype


# ------------------------------------------------------------------------------- normalization


def fold_normalization(variables: Variables) -> dict[str, Any]:
    """Fold a network's normalization, at its running statistics, into kernels and biases.

    Args:
        variables: variables of a `PixelCNN` with "batch" or "weight" normalization.

    Returns:
        Parameters for the same network with normalization "none", which computes the same in
        evaluation mode.
    """

    def fold(params, stats):
        conv = next((name for name in ("conv", "conv_transpose") if name in params), None)
        if conv is None:
            return {name: fold(params[name], stats.get(name, {})) for name in params}
        kernel = params[conv]["kernel"]
        # Kernels are (..., height, width, in, out), of transposes (..., height, width, out, in).
        summed = (-4, -3, -2 if conv == "conv" else -1)
        if "norm" in params:
            norm, stats = params["norm"], stats["norm"]
            scale = norm["scale"] / jnp.sqrt(stats["var"] + BATCH_NORM_EPSILON)
            bias = norm["bias"] - scale * stats["mean"]
        elif "scale" in params:
            norm = jnp.sqrt(jnp.sum(kernel**2, axis=summed) + WEIGHT_NORM_EPSILON)
            scale, bias = params["scale"] / norm, params["bias"]
        else:
            return params
        return {conv: {"kernel": kernel * jnp.expand_dims(scale, summed), "bias": bias}}

    return fold(variables["params"], variables.get("batch_stats", {}))
