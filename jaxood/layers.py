"""Building blocks that several models share."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

BATCH_NORM_MOMENTUM = 0.9
"""Weight of the OLD value in a running average (Flax's convention)."""

BatchNorm = functools.partial(
    nn.BatchNorm,
    momentum=BATCH_NORM_MOMENTUM,
    # E[x^2] - E[x]^2 cancels badly, and the BatchNorm test measures small differences.
    use_fast_variance=False,
)


def conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs):
    """`jax.lax.conv_general_dilated` with faster gradients on the CPU.

    XLA's CPU backend takes the kernel gradient of a 3x3 convolution at a fifth to a third of the
    speed of the forward pass and, inside a `jax.lax.scan`, both gradients a hundred times slower
    than that. For stride-1 "SAME" convolutions with odd kernels, the input gradient is written
    here as the forward convolution that it is, and the kernel gradient as a scan over groups of
    images: join the column shifts of a group, then one matrix product for each row shift. Every
    other convolution, and every other platform, gets the original.

    Pass it to a Flax layer: ``nn.Conv(..., conv_general_dilated=conv_general_dilated)``.

    Args:
        lhs: images ``(n, h, w, c_in)``.
        rhs: kernel ``(kh, kw, c_in, c_out)``.
        window_strides: as in `jax.lax.conv_general_dilated`.
        padding: likewise.
        **kwargs: likewise.

    Returns:
        ``(n, h', w', c_out)``.
    """
    plain = functools.partial(
        lax.conv_general_dilated, window_strides=window_strides, padding=padding, **kwargs
    )
    if not _is_stride_one_same(rhs.shape, window_strides, padding, kwargs):
        return plain(lhs, rhs)

    @jax.custom_vjp
    def conv(x, kernel):
        return plain(x, kernel)

    def forward(x, kernel):
        return plain(x, kernel), (x, kernel)

    def backward(residuals, dy):
        def transposed(x, kernel, dy):
            (dx,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(dy)
            (dkernel,) = jax.linear_transpose(lambda k: plain(x, k), kernel)(dy)
            return dx, dkernel

        def written_out(x, kernel, dy):
            adjoint = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
            return plain(dy, adjoint), _kernel_gradient(x, dy, kernel.shape)

        return lax.platform_dependent(*residuals, dy, cpu=written_out, default=transposed)

    conv.defvjp(forward, backward)
    return conv(lhs, rhs)


def _is_stride_one_same(kernel_shape, strides, padding, kwargs):
    dilations = kwargs.get("lhs_dilation"), kwargs.get("rhs_dilation")
    return (
        kernel_shape[0] % 2 == kernel_shape[1] % 2 == 1
        and tuple(strides) == (1, 1)
        and padding == "SAME"
        and all(d in (None, (1, 1)) for d in dilations)
        and kwargs.get("feature_group_count", 1) == 1
    )


def _kernel_gradient(x, dy, kernel_shape):
    kh, kw, c_in, c_out = kernel_shape
    n, h, w, _ = x.shape
    # Groups of about 4,096 positions: large enough for a matrix product, small enough for cache.
    group = max(g for g in range(1, n + 1) if n % g == 0 and (g == 1 or g * h * w <= 4096))
    x = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    xs = x.reshape(n // group, group, *x.shape[1:])
    dys = dy.reshape(n // group, group * h * w, c_out)

    def add_group(total, group_of):
        x, dy = group_of
        columns = jnp.concatenate([x[:, :, j : j + w] for j in range(kw)], axis=-1)
        rows = [columns[:, i : i + h].reshape(-1, kw * c_in).T @ dy for i in range(kh)]
        return total + jnp.stack(rows), None

    total, _ = lax.scan(add_group, jnp.zeros((kh, kw * c_in, c_out), dy.dtype), (xs, dys))
    return total.reshape(kernel_shape)


Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice BatchNorm, ReLU, 3x3 convolution (He et al. 2016)."""

    channels: int
    conv: Callable
    train: bool

    @nn.compact
    def __call__(self, x, _=None):
        h = x
        for _ in range(2):
            h = nn.relu(BatchNorm(use_running_average=not self.train)(h))
            h = self.conv(self.channels, (3, 3), use_bias=False)(h)
        return x + h, None


class ResNet(nn.Module):
    """Convolution, a scanned stack of residual blocks, and a 1x1 convolution that starts at zero.

    Attributes:
        channels: width of the residual blocks.
        blocks: their number.
        out_channels: of the result, which is zero at initialization.
        conv: makes the convolutions, as `flax.linen.Conv` does.
        unroll: how many blocks one turn of the scan holds.
    """

    channels: int
    blocks: int
    out_channels: int
    conv: Callable = Conv
    unroll: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        """Map ``(n, h, w, c)`` to ``(n, h, w, out_channels)``; ``train`` is the BatchNorm mode."""
        x = self.conv(self.channels, (3, 3))(x)
        stack = nn.scan(
            ResidualBlock,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.blocks,
            unroll=self.unroll,
        )
        x, _ = stack(self.channels, self.conv, train, name="blocks")(x, None)
        x = nn.relu(BatchNorm(use_running_average=not train)(x))
        return self.conv(self.out_channels, (1, 1), kernel_init=nn.initializers.zeros)(x)


def squeeze(x):
    """Move each 2x2 patch into channels: ``(n, h, w, c)`` to ``(n, h/2, w/2, 4c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def unsqueeze(x):
    """The inverse of `squeeze`: ``(n, h, w, 4c)`` to ``(n, 2h, 2w, c)``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def checkerboard(shape):
    """Float32 mask ``(h, w, c)`` for images ``(n, h, w, c)``: 1 where row + column is even.

    Dinh et al. 2017, Figure 3.
    """
    _, h, w, c = shape
    even = (jnp.arange(h)[:, None] + jnp.arange(w)) % 2 == 0
    return jnp.broadcast_to(even[:, :, None], (h, w, c)).astype(jnp.float32)


def channelwise(shape):
    """Float32 mask ``(h, w, c)`` for images ``(n, h, w, c)``: 1 on the first half of the channels.

    Dinh et al. 2017, Figure 3.
    """
    _, h, w, c = shape
    return jnp.broadcast_to(jnp.arange(c) < c // 2, (h, w, c)).astype(jnp.float32)
