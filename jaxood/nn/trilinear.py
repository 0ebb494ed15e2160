"""A convolution, its input gradient and its kernel gradient as three JAX primitives.

For a convolution y = x * k, all three belong to one trilinear form sum(dy (x * k)). Each is
bilinear, and the transpose of each in either argument is another of the three. So three primitives,
closed under differentiation, give forward mode, reverse mode and every higher order. On the CPU
they run in native code (`jaxood.nn.native`) where that suits, and else are written out as forward
convolutions and matrix products; other platforms lower them to XLA's own convolutions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxood.density import Array
from jaxood.nn import native

LAYOUT = ("NHWC", "HWIO", "NHWC")
"""The layout of images, kernels and results, as `jax.lax.conv_general_dilated` writes it."""


class Geometry(NamedTuple):
    """The sizes of a convolution; each of the three operations needs some that its arguments lack.

    Attributes:
        image: height and width of the images.
        kernel: height and width of the kernel.
        strides: strides of rows and columns.
        padding: rows and columns of zeros around the images, ``((low, high), (low, high))``.
    """

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def result(self) -> tuple[int, ...]:
        """Height and width of the result."""
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + sum(pair) - k) // s + 1) for n, k, s, pair in sizes)

    @property
    def is_product(self) -> bool:
        """True where the convolution is one matrix product of channels at every pixel."""
        unpadded = self.padding == ((0, 0), (0, 0))
        return self.kernel == self.strides == (1, 1) and unpadded


# ------------------------------------------------------------------------- the three, by XLA


def _native_convolve(x, kernel, geometry):
    return lax.conv_general_dilated(
        x, kernel, geometry.strides, geometry.padding, dimension_numbers=LAYOUT
    )


def _native_input_gradient(dy, kernel, geometry):
    image = jax.ShapeDtypeStruct((len(dy), *geometry.image, kernel.shape[2]), dy.dtype)
    return jax.linear_transpose(lambda x: _native_convolve(x, kernel, geometry), image)(dy)[0]


def _native_kernel_gradient(x, dy, geometry):
    kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], dy.shape[3]), dy.dtype)
    return jax.linear_transpose(lambda k: _native_convolve(x, k, geometry), kernel)(dy)[0]


# ---------------------------------------------------------------------- the three, written out


def _written_out_convolve(x, kernel, geometry):
    """A matrix product where possible, or XLA's own convolution."""
    if geometry.is_product:
        return x @ kernel[0, 0]
    return _native_convolve(x, kernel, geometry)


def _written_out_input_gradient(dy, kernel, geometry):
    """A stride-1 convolution of ``dy``, for every stride.

    A convolution with stride s is one with stride 1 of the image whose s x s patches are moved into
    the channels. The kernel is filled up with zeros to a multiple of s and rearranged likewise.
    """
    if geometry.is_product:
        return dy @ kernel[0, 0].T
    n, *rows, c_out = dy.shape
    (kh, kw), c_in = geometry.kernel, kernel.shape[2]
    if geometry.strides == (1, 1) and geometry.result != (1, 1):
        sizes = zip(geometry.kernel, geometry.padding, geometry.image, rows, strict=True)
        pairs = [(k - 1 - low, size - row + low) for k, (low, _), size, row in sizes]
        adjoint = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        return lax.conv_general_dilated(dy, adjoint, (1, 1), pairs, dimension_numbers=LAYOUT)
    if geometry.result == (1, 1):
        # This is a dense layer. As a convolution, a 7x7 kernel would take 49 times the work.
        image = (dy.reshape(n, c_out) @ kernel.reshape(-1, c_out).T).reshape(n, kh, kw, c_in)
    else:
        sh, sw = geometry.strides
        taps_h, taps_w = -(-kh // sh), -(-kw // sw)
        filled = ((0, taps_h * sh - kh), (0, taps_w * sw - kw), (0, 0), (0, 0))
        kernel = jnp.pad(kernel, filled).reshape(taps_h, sh, taps_w, sw, c_in, c_out)
        adjoint = jnp.flip(kernel, (0, 2)).transpose(0, 2, 5, 1, 3, 4)
        adjoint = adjoint.reshape(taps_h, taps_w, c_out, sh * sw * c_in)
        full = ((taps_h - 1, taps_h - 1), (taps_w - 1, taps_w - 1))
        patches = lax.conv_general_dilated(dy, adjoint, (1, 1), full, dimension_numbers=LAYOUT)
        h, w = patches.shape[1:3]
        image = patches.reshape(n, h, w, sh, sw, c_in).transpose(0, 1, 3, 2, 4, 5)
        image = image.reshape(n, h * sh, w * sw, c_in)
    # Take the padding off, and put zeros where no window reaches.
    return _pad(
        image,
        [
            (-low, size + low - reached)
            for (low, _), size, reached in zip(
                geometry.padding, geometry.image, image.shape[1:3], strict=True
            )
        ],
    )


def _written_out_kernel_gradient(x, dy, geometry):
    """A stride-1 convolution in which the images and the channels have changed places.

    XLA's own gradient is this convolution with other dimension numbers, which inside of a loop it
    takes a hundred times longer for.
    """
    c_in, c_out = x.shape[3], dy.shape[3]
    if geometry.is_product:
        return (x.reshape(-1, c_in).T @ dy.reshape(-1, c_out))[None, None]
    sizes = zip(
        geometry.image, geometry.kernel, geometry.strides, geometry.padding, dy.shape[1:3],
        strict=True,
    )  # fmt: skip
    # What the windows reach, from the first to the last.
    pairs = [(low, (row - 1) * s + k - size - low) for size, k, s, (low, _), row in sizes]
    if geometry.result == (1, 1):
        kernel = _pad(x, pairs).reshape(len(x), -1).T @ dy.reshape(len(x), c_out)
        return kernel.reshape(*geometry.kernel, c_in, c_out)
    kernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), pairs,
        rhs_dilation=geometry.strides, dimension_numbers=LAYOUT,
    )  # fmt: skip
    return kernel.transpose(1, 2, 0, 3)


def _pad(x, pairs):
    """Add rows and columns of zeros, or take rows and columns off where a number is negative."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


# ---------------------------------------------------------------------------- as JAX primitives


def _bilinear(name, shape, by_xla_conv, cpu, free, transposes):
    """Make a bilinear primitive over arrays with a leading axis of ensemble members.

    Args:
        name: name of the primitive.
        shape: ``(a, b, geometry)`` to the shape of the result.
        by_xla_conv: the operation on one member, for all platforms.
        cpu: the operation on one member, for the CPU.
        free: for each argument, an axis that the other does not have, and the result's axis that
            comes from it. A `jax.vmap` over that argument alone is folded into this axis.
        transposes: ``(dz, b, geometry) -> da`` and ``(dz, a, geometry) -> db``.
    """
    primitive = Primitive(name)
    compiled = jax.jit(primitive.bind, static_argnames="geometry")

    @primitive.def_impl
    def _(a, b, *, geometry):
        with jax.disable_jit(False):
            return compiled(a, b, geometry=geometry)

    @primitive.def_abstract_eval
    def _(a, b, *, geometry):
        return ShapedArray((a.shape[0], *shape(a, b, geometry)), a.dtype)

    def lower(one, all_of):
        def members(a, b, *, geometry):
            if len(a) == 1:
                return one(a[0], b[0], geometry)[None]
            return all_of(lambda ab: one(*ab, geometry), (a, b))

        return mlir.lower_fun(members, multiple_results=False)

    def vmap(f, xs):
        return jax.vmap(f)(xs)

    def in_native_code(a, b, *, geometry):
        result = jax.ShapeDtypeStruct((len(a), *shape(a, b, geometry)), a.dtype)
        numbers = (*geometry.strides, *(low for low, _ in geometry.padding))
        return native.call(name, result, a, b, attribute=numbers)

    on_cpu = native.preferred(in_native_code, lower(cpu, lax.map), multiple_results=False)
    mlir.register_lowering(primitive, lower(by_xla_conv, vmap))
    mlir.register_lowering(primitive, on_cpu, platform="cpu")

    first, second = transposes
    ad.defbilinear(
        primitive,
        lambda dz, a, b, geometry: first(dz, b, geometry),
        lambda dz, a, b, geometry: second(dz, a, geometry),
    )

    def batch(args, dims, *, geometry):
        both = None not in dims
        axis, result_axis = (0, 0) if both else free[1 - dims.index(None)]
        size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        a, b = (x if d is None else fold(x, d, axis) for x, d in zip(args, dims, strict=True))
        z = primitive.bind(a, b, geometry=geometry)
        shape = z.shape
        split = (*shape[:result_axis], size, shape[result_axis] // size, *shape[result_axis + 1 :])
        return z.reshape(split), result_axis

    def fold(x, dim, axis):
        x = jnp.moveaxis(x, dim, axis)
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    batching.primitive_batchers[primitive] = batch
    return primitive


_convolve = _bilinear(
    "convolve",
    lambda x, k, geometry: (x.shape[1], *geometry.result, k.shape[4]),
    _native_convolve,
    _written_out_convolve,
    free=((1, 1), (4, 4)),
    transposes=(
        lambda dy, k, geometry: _input_gradient.bind(dy, k, geometry=geometry),
        lambda dy, x, geometry: _kernel_gradient.bind(x, dy, geometry=geometry),
    ),
)

_input_gradient = _bilinear(
    "input_gradient",
    lambda dy, k, geometry: (dy.shape[1], *geometry.image, k.shape[3]),
    _native_input_gradient,
    _written_out_input_gradient,
    free=((1, 1), (3, 4)),
    transposes=(
        lambda dx, k, geometry: _convolve.bind(dx, k, geometry=geometry),
        lambda dx, dy, geometry: _kernel_gradient.bind(dx, dy, geometry=geometry),
    ),
)

_kernel_gradient = _bilinear(
    "kernel_gradient",
    lambda x, dy, geometry: (*geometry.kernel, x.shape[4], dy.shape[4]),
    _native_kernel_gradient,
    _written_out_kernel_gradient,
    free=((4, 3), (4, 4)),
    transposes=(
        lambda dk, dy, geometry: _input_gradient.bind(dy, dk, geometry=geometry),
        lambda dk, x, geometry: _convolve.bind(x, dk, geometry=geometry),
    ),
)


def convolve(x: Array, kernel: Array, geometry: Geometry) -> jax.Array:
    """Convolve images ``(n, h, w, c_in)`` with a kernel ``(kh, kw, c_in, c_out)``."""
    return _bind(_convolve, x, kernel, geometry)


def input_gradient(dy: Array, kernel: Array, geometry: Geometry) -> jax.Array:
    """Apply the adjoint of `convolve` to ``(n, h', w', c_out)``: ``(n, h, w, c_in)``."""
    return _bind(_input_gradient, dy, kernel, geometry)


def kernel_gradient(x: Array, dy: Array, geometry: Geometry) -> jax.Array:
    """Sum ``dy`` times what each tap of the kernel sees of ``x``: ``(kh, kw, c_in, c_out)``."""
    return _bind(_kernel_gradient, x, dy, geometry)


def _bind(primitive, a, b, geometry) -> Any:
    return primitive.bind(a[None], b[None], geometry=geometry)[0]
