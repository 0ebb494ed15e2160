"""The invertible 1x1 convolution of Glow (Kingma and Dhariwal 2018, Section 3.2)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

Rotation = tuple[np.ndarray, np.ndarray, np.ndarray]
"""One rotation of `lu_rotations`, or all of them on a first axis."""


class Invertible1x1(nn.Module):
    """Invertible 1x1 convolution, which starts as a rotation of the channels."""

    @nn.compact
    def __call__(
        self, x: jax.Array, rotation: Rotation | None = None, *, inverse: bool = False
    ) -> tuple[jax.Array, jax.Array | float]:
        """Mix the channels.

        Args:
            x: ``(n, h, w, c)``.
            rotation: None for a weight ``W`` of its own; or one of `lu_rotations`, for a weight
                ``P L U`` with P fixed, whose determinant is a product (the paper's eq. 10).
            inverse: apply the inverse of the weight.

        Returns:
            ``(n, h, w, c)`` and the log-determinant of the forward map, ``()`` nats. That of a
            weight of its own is left to the caller, who takes those of several weights together,
            and is 0 here.
        """
        c = x.shape[-1]
        if rotation is None:
            weight = self.param("kernel", nn.initializers.orthogonal(), (c, c))
            log_det = 0.0
        else:
            permutation, sign, start = rotation
            packed = self.param("lu", lambda _: start)
            log_scale = jnp.diag(packed)
            lower = jnp.tril(packed, -1) + jnp.eye(c, dtype=packed.dtype)
            upper = jnp.triu(packed, 1) + jnp.diag(sign * jnp.exp(log_scale))
            weight, log_det = (lower @ upper)[permutation], log_scale.sum()
        if inverse:
            weight = jnp.linalg.inv(weight)
        return x @ weight, x.shape[1] * x.shape[2] * log_det


def lu_rotations(count: int, channels: int, seed: int) -> Rotation:
    """Make random rotations ``W = P L U``, for `Invertible1x1`.

    Args:
        count: number of rotations.
        channels: c.
        seed: seed of the rotations. P never changes, so it is no function of the key of ``init``.

    Returns:
        The row of L U that each row of W is, int ``(count, c)``; the signs of the diagonal of U,
        float32 ``(count, c)``; and float32 ``(count, c, c)`` with L below the diagonal, U above
        it, and log |diag U| on it.
    """
    from scipy.stats import special_ortho_group  # it takes as long to import as JAX

    rotations = special_ortho_group.rvs(channels, size=count, random_state=seed)
    permutations, signs, packed = [], [], []
    for rotation in rotations.reshape(count, channels, channels):
        factors: Any = linalg.lu(rotation)
        p, lower, upper = factors
        diagonal = np.diag(upper)
        permutations.append(p.argmax(1))
        signs.append(np.sign(diagonal).astype(np.float32))
        triangles = np.tril(lower, -1) + np.triu(upper, 1)
        packed.append(np.float32(triangles + np.diag(np.log(np.abs(diagonal)))))
    return np.stack(permutations), np.stack(signs), np.stack(packed)
