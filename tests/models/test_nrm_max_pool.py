import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.models.nrm.max_pool import pick, winners


@pytest.mark.parametrize("pool", [(2, 2), (3, 2), (3, 3), (2, 1), (5, 2), (1, 2)], ids=str)
def test_one_winner_a_window_the_first_of_equals(pool, float64):
    size, stride = pool
    x = np.random.default_rng(0).integers(-3, 0, size=(2, 5, 4, 2)).astype(np.float64)
    winner = winners(x, pool)
    rows, columns = -(-5 // stride), -(-4 // stride)
    assert winner.shape == (2, rows, columns, 2)
    # Padded as "SAME", by what never wins.
    low_h = max(0, (rows - 1) * stride + size - 5) // 2
    low_w = max(0, (columns - 1) * stride + size - 4) // 2
    wide = np.pad(x, ((0, 0), (low_h, 9), (low_w, 9), (0, 0)), constant_values=-np.inf)
    expected = np.empty(winner.shape, int)
    unpooled = np.zeros(wide.shape)
    for place in np.ndindex(winner.shape):
        n, i, j, c = place
        window = wide[n, i * stride : i * stride + size, j * stride : j * stride + size, c]
        expected[place] = window.argmax()
        down, right = np.unravel_index(window.argmax(), window.shape)
        unpooled[n, i * stride + down, j * stride + right, c] += 1 + i + 10 * j
    np.testing.assert_array_equal(winner, expected)

    y, transpose = jax.vjp(lambda x: jnp.asarray(pick(x, winner, pool)), x)
    if pool != (1, 2):  # where Flax pads less than nothing
        np.testing.assert_array_equal(y, nn.max_pool(x, (size, size), (stride, stride), "SAME"))
    h = (1.0 + np.arange(rows)[:, None] + 10 * np.arange(columns))[None, :, :, None]
    (back,) = transpose(jnp.broadcast_to(h, y.shape))
    np.testing.assert_array_equal(back, unpooled[:, low_h : low_h + 5, low_w : low_w + 4])
