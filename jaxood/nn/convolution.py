"""Convolutions whose gradients are fast on the CPU, also inside a loop.

On the CPU they run in native code, where it is built (`jaxood.nn.native`). XLA's own backend is
quick in the forward pass of a convolution, slower in gradients of strided ones, and a hundred times
slower in every gradient inside a `jax.lax.scan` or `jax.lax.while_loop`. So without native code the
gradients are written out as forward convolutions and matrix products. XLA also takes up to eight
times as long for a 1x1 convolution as for the same matrix product, so here it is that product.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxood.density import Array
from jaxood.nn.channels import at_every_pixel
from jaxood.nn.trilinear import LAYOUT, Geometry, convolve, input_gradient


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dimension_numbers: Any = LAYOUT,
    **kwargs: Any,
) -> jax.Array:
    """Convolve as `jax.lax.conv_general_dilated` does, with fast gradients on the CPU.

    This is for two dimensions with channels last, with any stride and padding. Convolutions that
    are dilated, grouped, in another layout or at a precision of their own go to the original.

    Under `jax.vmap` over images alone, these join the batch; over kernels alone, these join the
    output channels. Where both are batched (an ensemble), the members run one after another on the
    CPU, whose grouped convolution is slow, and as XLA chooses elsewhere.

    `Conv` is the layer.

    Args:
        lhs: images ``(n, h, w, c_in)``.
        rhs: kernel ``(kh, kw, c_in, c_out)`` of the same dtype.
        window_strides: two ints.
        padding: ``"SAME"``, ``"VALID"`` or ``((low, high), (low, high))``.
        dimension_numbers: as in `jax.lax.conv_general_dilated`.
        **kwargs: other arguments of that function.

    Returns:
        ``(n, h', w', c_out)``.
    """
    if not _is_plain(lhs, rhs, dimension_numbers, kwargs):
        lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **kwargs
        )
    image, kernel = lhs.shape[1:3], rhs.shape[:2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image, kernel, window_strides, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    return convolve(lhs, rhs, Geometry(image, kernel, tuple(window_strides), pairs))


def conv_transpose(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    output_padding: Sequence[int] = (0, 0),
) -> jax.Array:
    """Apply the adjoint of a convolution.

    The inner product of any image with the result is that of its convolution with ``lhs``.

    Args:
        lhs: ``(n, h, w, c_in)``.
        rhs: kernel of that convolution, ``(kh, kw, c_out, c_in)``: it maps the result's channels
            to those of ``lhs``.
        window_strides: strides of that convolution, two ints.
        padding: padding of that convolution, ``((low, high), (low, high))``.
        output_padding: rows and columns that the result has more than the smallest image whose
            convolution has the size of ``lhs``; each less than its stride.

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
    return input_gradient(lhs, rhs, Geometry(image, kernel, strides, pairs))


class Conv(nn.Module):
    """A `flax.linen.Conv` over images, with the same parameters, and fast gradients on the CPU.

    Attributes:
        features: channels of the result.
        kernel_size: height and width.
        strides: an int or a pair.
        padding: ``"SAME"``, ``"VALID"``, zeros at each side as an int, or
            ``((low, high), (low, high))``.
        use_bias: add a bias.
        kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h', w', features)``."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel = promote_dtype(x, kernel)
        padding = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        y = conv_general_dilated(x, kernel, _pair(self.strides), padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += at_every_pixel(jnp.asarray(bias, y.dtype), y)
        return y


class ConvTranspose(nn.Module):
    """Transposed convolution, the adjoint of a `Conv`, with the sizes of PyTorch's.

    The result has ``(h - 1) stride - 2 padding + kernel + output_padding`` rows: a 5x5 kernel
    with stride 2, padding 2 and output padding 1 doubles the size. (`flax.linen.ConvTranspose`
    is no adjoint, in its padding "SAME" and in the orientation of its kernel.)

    The kernel is that of the convolution whose adjoint this is, ``(kh, kw, features, c_in)``.

    Attributes:
        features: channels of the result.
        kernel_size: height and width.
        strides: strides of the convolution, an int or a pair.
        padding: zeros that the convolution adds at each side, an int or a pair.
        output_padding: further rows and columns of the result, an int or a pair.
        use_bias: add a bias.
        kernel_init: initializer of the kernel. By default the variance is one over the number of
            inputs that a kernel covers.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 0
    output_padding: int | tuple[int, int] = 0
    use_bias: bool = True
    kernel_init: Callable[..., Any] = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h', w', features)``."""
        shape = (*self.kernel_size, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        padding = [(p, p) for p in _pair(self.padding)]
        strides, output_padding = _pair(self.strides), _pair(self.output_padding)
        y = conv_transpose(x, kernel, strides, padding, output_padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += at_every_pixel(jnp.asarray(bias, y.dtype), y)
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
