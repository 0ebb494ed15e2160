"""Convolutions whose gradients are fast on the CPU, also inside a loop.

XLA's CPU backend is quick in the forward pass of a convolution, but takes kernel gradients at a
fifth to a third of that speed, gradients by strided convolutions slower still, and inside a
`jax.lax.scan` or `jax.lax.while_loop` every gradient a hundred times slower. Here the gradients
are written out as forward convolutions and matrix products; and 1x1 convolutions, which take it up
to eight times as long as the same product of matrices, are that product.

A convolution y = x * k, its input gradient and its kernel gradient are the three faces of one
trilinear form sum(dy (x * k)): each is bilinear, and the transpose of each in either argument is
another of the three. So three JAX primitives, closed under differentiation, give forward mode,
reverse mode and every higher order. Platforms other than the CPU lower them to XLA's own
convolutions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(lhs, rhs, window_strides, padding, dimension_numbers=LAYOUT, **kwargs):
    """`jax.lax.conv_general_dilated` with fast gradients on the CPU.

    Any stride and padding in two dimensions, channels last. What is dilated, grouped, in another
    layout or at a precision of its own gets the original. Under `jax.vmap`, images alone join the
    batch and kernels alone the output channels; where both are batched (an ensemble), the members
    run one after another on the CPU, whose grouped convolution is slow, and as XLA sees fit
    elsewhere.

    Pass it to a Flax layer: ``nn.Conv(..., conv_general_dilated=conv_general_dilated)``.

    Args:
        lhs: images ``(n, h, w, c_in)``.
        rhs: kernel ``(kh, kw, c_in, c_out)`` of the same dtype.
        window_strides: as in `jax.lax.conv_general_dilated`.
        padding: likewise; ``"SAME"``, ``"VALID"`` or ``((low, high), (low, high))``.
        dimension_numbers: likewise.
        **kwargs: likewise.

    Returns:
        ``(n, h', w', c_out)``.
    """
    if not _is_plain(lhs, rhs, dimension_numbers, kwargs):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **kwargs
        )
    image, kernel = lhs.shape[1:3], rhs.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, kernel, window_strides, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    return _bind(_convolve, lhs, rhs, _Geometry(image, kernel, tuple(window_strides), pairs))


def conv_transpose(lhs, rhs, window_strides, padding, output_padding=(0, 0)):
    """Adjoint of a convolution: its inner product with ``y`` is that of the image with the result.

    Args:
        lhs: ``y``, ``(n, h, w, c_in)``.
        rhs: kernel of that convolution, ``(kh, kw, c_out, c_in)``: it maps the result's channels
            to those of ``lhs``.
        window_strides: of that convolution, two ints.
        padding: of that convolution, ``((low, high), (low, high))``.
        output_padding: rows and columns of the result that are there beyond the smallest image
            whose convolution has the size of ``lhs``; each less than its stride.

    Returns:
        ``(n, h', w', c_out)`` with ``h' = (h - 1) stride + kh - low - high + output_padding``.

    Raises:
        ValueError: if an output padding is negative or reaches its stride.
    """
    strides, kernel = tuple(window_strides), rhs.shape[:2]
    if not all(0 <= extra < s for extra, s in zip(output_padding, strides, strict=True)):
        raise ValueError(f"output padding {output_padding} must be in [0, stride), {strides}")
    sizes = zip(lhs.shape[1:3], strides, kernel, padding, output_padding, strict=True)
    image = tuple((n - 1) * s + k - sum(pair) + extra for n, s, k, pair, extra in sizes)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    return _bind(_input_gradient, lhs, rhs, _Geometry(image, kernel, strides, pairs))


Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)
"""`flax.linen.Conv` with fast gradients on the CPU."""


class ConvTranspose(nn.Module):
    """Transposed convolution, the adjoint of a `Conv`, with sizes as PyTorch counts them.

    The result has ``(h - 1) stride - 2 padding + kernel + output_padding`` rows: a 5x5 kernel
    with stride 2, padding 2 and output padding 1 doubles the size. (Neither the padding "SAME"
    nor the kernel's orientation of `flax.linen.ConvTranspose` is that of an adjoint.)

    The kernel is that of the convolution whose adjoint this is, ``(kh, kw, features, c_in)``.

    Attributes:
        features: channels of the result.
        kernel_size: height and width.
        strides: of the convolution, an int or a pair.
        padding: zeros that the convolution adds at each side, an int or a pair.
        output_padding: further rows and columns of the result, an int or a pair.
        use_bias: add a bias.
        kernel_init: of the kernel; by default variance one over the inputs that a kernel covers.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    output_padding: int | tuple[int, int] = 0
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)

    @nn.compact
    def __call__(self, x):
        """Map ``(n, h, w, c)`` to ``(n, h', w', features)``."""
        shape = (*self.kernel_size, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        padding = [(p, p) for p in _pair(self.padding)]
        strides, output_padding = _pair(self.strides), _pair(self.output_padding)
        y = conv_transpose(x, kernel, strides, padding, output_padding)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,))
        return y


def _pair(value):
    return (value, value) if isinstance(value, int) else value


def _is_plain(lhs, rhs, dimension_numbers, kwargs):
    if not lhs.ndim == rhs.ndim == 4 or lhs.dtype != rhs.dtype or lhs.shape[3] != rhs.shape[2]:
        return False
    layout, ours = (
        lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
        for numbers in (dimension_numbers, LAYOUT)
    )
    defaults = (None, 1, (1, 1))
    return layout == ours and all(
        value is None or (tuple(value) if isinstance(value, list) else value) in defaults
        for value in kwargs.values()
    )


class _Geometry(NamedTuple):
    """What all three operations share; each needs a size that its arguments do not have."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def result(self):
        sizes = zip(self.image, self.kernel, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + sum(pair) - k) // s + 1) for n, k, s, pair in sizes)

    @property
    def is_product(self):
        """Whether it is one product of matrices: channels by channels, pixel by pixel."""
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
    """XLA's own, where it is no product of matrices."""
    if geometry.is_product:
        return x @ kernel[0, 0]
    return _native_convolve(x, kernel, geometry)


def _written_out_input_gradient(dy, kernel, geometry):
    """A stride-1 convolution of ``dy``, whatever the stride.

    A convolution with stride s is one with stride 1 of the image with its s x s patches moved into
    the channels, the kernel filled up with zeros to a multiple of s and rearranged likewise.
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
        # A dense layer. The convolution would multiply zeros: 49 times the work for a 7x7 kernel.
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
    # Take the padding off, and put zeros where no window reached.
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
    """Join the column shifts of the images, then one matrix product for each row shift."""
    (kh, kw), (sh, sw) = geometry.kernel, geometry.strides
    n, h, w, c_out = dy.shape
    c_in = x.shape[3]
    if geometry.is_product:
        return (x.reshape(-1, c_in).T @ dy.reshape(-1, c_out))[None, None]
    # Groups of about 4,096 positions: large enough for a matrix product, small enough for cache.
    group = max(g for g in range(1, n + 1) if n % g == 0 and (g == 1 or g * h * w <= 4096))
    x = _pad(x, geometry.padding)
    xs = x.reshape(n // group, group, *x.shape[1:])
    dys = dy.reshape(n // group, group * h * w, c_out)

    def add_group(total, group_of):
        x, dy = group_of
        shifts = [x[:, :, j : j + (w - 1) * sw + 1 : sw] for j in range(kw)]
        columns = jnp.concatenate(shifts, axis=-1)
        rows = [columns[:, i : i + (h - 1) * sh + 1 : sh] for i in range(kh)]
        products = [row.reshape(-1, kw * c_in).T @ dy for row in rows]
        return total + jnp.stack(products), None

    total, _ = lax.scan(add_group, jnp.zeros((kh, kw * c_in, c_out), dy.dtype), (xs, dys))
    return total.reshape(kh, kw, c_in, c_out)


def _pad(x, pairs):
    """Zeros around the images, or fewer rows and columns where a number is negative."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in pairs), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


# ---------------------------------------------------------------------------- as JAX primitives


def _bilinear(name, shape, native, cpu, free, transposes):
    """A bilinear primitive over arrays with a leading axis of ensemble members.

    Args:
        name: of the primitive.
        shape: ``(a, b, geometry)`` to the shape of the result.
        native: the operation of one member, for all platforms.
        cpu: the same for the CPU.
        free: for each argument, an axis that the other does not have, and where the result has it.
            A `jax.vmap` over that argument alone is folded into it.
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

    mlir.register_lowering(primitive, lower(native, vmap))
    mlir.register_lowering(primitive, lower(cpu, lax.map), platform="cpu")

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


def _bind(primitive, a, b, geometry) -> Any:
    return primitive.bind(a[None], b[None], geometry=geometry)[0]


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
    "convolve_input_gradient",
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
    "convolve_kernel_gradient",
    lambda x, dy, geometry: (*geometry.kernel, x.shape[4], dy.shape[4]),
    _native_kernel_gradient,
    _written_out_kernel_gradient,
    free=((4, 3), (4, 4)),
    transposes=(
        lambda dk, dy, geometry: _input_gradient.bind(dy, dk, geometry=geometry),
        lambda dk, x, geometry: _convolve.bind(x, dk, geometry=geometry),
    ),
)
