"""One value for each channel, at every pixel, with a gradient that is fast on the CPU.

The gradient of such a value, of a bias for example, is a sum over all pixels. XLA takes ten times
as long for it on the CPU as the memory does. Here it is the kernel gradient of a 1x1 convolution
of an image of ones, which runs in native code or as a matrix product.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxood.nn.trilinear import Geometry, kernel_gradient


def at_every_pixel(values: jax.Array, like: jax.Array) -> jax.Array:
    """Repeat values ``(c,)`` at every pixel of an array ``(..., c)``, and return that shape."""
    bound: Any = _spread.bind(values, shape=like.shape)
    return bound


_spread = Primitive("at_every_pixel")


def _broadcast(values, *, shape):
    return jnp.broadcast_to(values, shape)


def _sum(bar, values, *, shape):
    del values
    pixels = bar.reshape(1, -1, 1, shape[-1])
    ones = jnp.ones((*pixels.shape[:3], 1), bar.dtype)
    geometry = Geometry(pixels.shape[1:3], (1, 1), (1, 1), ((0, 0), (0, 0)))
    return [kernel_gradient(ones, pixels, geometry)[0, 0, 0]]


def _batch(args, dims, *, shape):
    (values,), (dim,) = args, dims
    values = jnp.moveaxis(values, dim, 0)
    values = values.reshape(len(values), *(1,) * (len(shape) - 1), shape[-1])
    return jnp.broadcast_to(values, (len(values), *shape)), 0


@_spread.def_abstract_eval
def _(values, *, shape):
    return ShapedArray(shape, values.dtype)


_spread.def_impl(_broadcast)
mlir.register_lowering(_spread, mlir.lower_fun(_broadcast, multiple_results=False))
ad.deflinear2(_spread, _sum)
batching.primitive_batchers[_spread] = _batch
