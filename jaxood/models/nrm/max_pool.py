"""Max-pooling in two steps: which pixel of a window wins, and picking the winners."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxood.density import Array


def winners(x: Array, pool: tuple[int, int]) -> jax.Array:
    """Find the place of each maximum in its window, the first of equals, row by row from 0.

    Args:
        x: ``(n, h, w, c)``.
        pool: size and stride of the windows, padded as ``"SAME"``.

    Returns:
        uint8 ``(n, ceil(h / stride), ceil(w / stride), c)``.
    """
    best, *others = _window_entries(x, pool, -jnp.inf)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for place, entry in enumerate(others, 1):
        better = entry > best
        winner = jnp.where(better, jnp.uint8(place), winner)
        best = jnp.where(better, entry, best)
    return winner


def pick(x: Array, winner: Array, pool: tuple[int, int]) -> jax.Array:
    """Pick the winners of all windows. This is linear in ``x``, and its adjoint unpools.

    A few elementwise passes over slices do it; the derivatives, forward and backward, are a few
    more.

    Args:
        x: ``(n, h, w, c)``.
        winner: ``(n, h', w', c)``, as `winners` returns it.
        pool: as in `winners`.

    Returns:
        ``(n, h', w', c)``.
    """
    entries = enumerate(_window_entries(x, pool, 0))
    picked: Any = sum(jnp.where(winner == place, entry, 0) for place, entry in entries)
    return picked


def _window_entries(x, pool, fill):
    """Return, for each place in a window, the entries of all windows there, ``(n, h', w', c)``."""
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
