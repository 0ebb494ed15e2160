"""The ConvNet whose forward pass is inference in the neural rendering model (NRM paper)."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxood.nn.convolution import Conv
from jaxood.nn.layers import BatchNorm


class Latents(NamedTuple):
    """What the forward pass chose: z*(l), l = 1..L (NRM paper, Theorem 1).

    Attributes:
        switches: s(l), one bool ``(n, h, w, c)`` a layer: pixels that the ReLU lets through.
        translations: t(l), one a layer: for each pixel of g(l) the place in its window of the
            winner, row by row from 0, uint8 ``(n, h, w, c)``; ``None`` where nothing is pooled.
    """

    switches: tuple
    translations: tuple


class Layer(NamedTuple):
    """Convolution, BatchNorm, skip connection, max-pool and ReLU, in this order.

    Attributes:
        features: channels of the result.
        kernel: height and width.
        stride: of the convolution.
        padding: ``"SAME"`` or ``"VALID"``.
        pool: size and stride of the max-pool's windows, padded as ``"SAME"``; None for no pool.
        skip: stride of a skip connection, which adds g(l-2) to the convolution of g(l-1), by way
            of a 1x1 convolution where shapes differ; 0 for none.
        batch_norm: in a network with BatchNorm, have it here.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: str = "SAME"
    pool: tuple[int, int] | None = None
    skip: int = 0
    batch_norm: bool = True


class ConvNet(nn.Module):
    """The network whose inference is that of an NRM.

    Attributes:
        layers: l = 1..L.
        classes: number of logits, by a dense layer W_fc, b_fc after the global average pooling;
            without it the averages are the logits.
        batch_norm: with BatchNorm.
    """

    layers: tuple[Layer, ...]
    classes: int | None
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x, *, train=False):
        """Map floating ``(n, h, w, c)`` to logits, features g(0..L) and `Latents`."""
        features, switches, translations = [x], [], []
        for number, layer in enumerate(self.layers, 1):
            y = self._convolve(f"layer_{number}", features[-1], layer, train)
            if layer.skip:
                source = features[-2]
                if source.shape != y.shape:
                    source = self._convolve(f"skip_{number}", source, shortcut(layer), train)
                y += source
            winner = None
            if layer.pool:
                winner = winners(y, layer.pool)
                y = pick(y, winner, layer.pool)
            features.append(nn.relu(y))
            switches.append(y > 0)
            translations.append(winner)
        logits = features[-1].mean((1, 2))
        if self.classes is not None:
            logits = nn.Dense(self.classes, name="dense")(logits)
        return logits, tuple(features), Latents(tuple(switches), tuple(translations))

    def _convolve(self, name, x, layer, train):
        normalized = self.batch_norm and layer.batch_norm
        conv: Any = Conv(
            layer.features,
            (layer.kernel, layer.kernel),
            layer.stride,
            layer.padding,
            # A skip connection has none: the layer's own is enough.
            use_bias=name.startswith("layer") and not normalized,
            kernel_init=nn.initializers.he_normal(),
            name=name,
        )
        y = conv(x)
        if normalized:
            norm = BatchNorm(use_running_average=not train, name=f"{name}_norm")
            y = norm(y)
        return y


def shortcut(layer):
    """The 1x1 convolution of a skip connection, as a layer."""
    return layer._replace(kernel=1, stride=layer.skip, padding="SAME")


# ------------------------------------------------------------------------------------ max-pool


def winners(x, pool):
    """Where in its window each maximum is, the first of equals: uint8, row by row from 0.

    Args:
        x: ``(n, h, w, c)``.
        pool: size and stride of the windows, padded as ``"SAME"``.

    Returns:
        ``(n, ceil(h / stride), ceil(w / stride), c)``.
    """
    best, *others = _window_entries(x, pool, -jnp.inf)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for place, entry in enumerate(others, 1):
        better = entry > best
        winner = jnp.where(better, jnp.uint8(place), winner)
        best = jnp.where(better, entry, best)
    return winner


def pick(x, winner, pool):
    """The entries of the windows that `winners` names; linear in ``x``. Its adjoint unpools.

    A few elementwise passes over slices: the derivative, forward and backward, is a few more.

    Args:
        x: ``(n, h, w, c)``.
        winner: of `winners`, ``(n, h', w', c)``.
        pool: as in `winners`.

    Returns:
        ``(n, h', w', c)``.
    """
    entries = _window_entries(x, pool, 0)
    return sum(jnp.where(winner == place, entry, 0) for place, entry in enumerate(entries))


def _window_entries(x, pool, fill):
    """For each place in a window, the entries of all windows there, ``(n, h', w', c)`` each."""
    size, stride = pool
    n, h, w, c = x.shape
    rows, columns = -(-h // stride), -(-w // stride)
    overlap = (size - 1) // stride
    pads = []
    for length, count in ((h, rows), (w, columns)):
        low = max(0, (count - 1) * stride + size - length) // 2
        pads.append((low, (count + overlap) * stride - length - low))
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    # One image for each place within a stride, so that windows are shifts and not strided slices.
    x = x.reshape(n, rows + overlap, stride, columns + overlap, stride, c)
    phases = [
        [phase.squeeze((2, 4)) for phase in jnp.split(row, stride, axis=4)]
        for row in jnp.split(x, stride, axis=2)
    ]

    def entries(i, j):
        (down, i), (right, j) = divmod(i, stride), divmod(j, stride)
        return phases[i][j][:, down : down + rows, right : right + columns]

    return [entries(i, j) for i in range(size) for j in range(size)]
