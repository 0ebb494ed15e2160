"""Muon moves kernels by orthogonal matrices, and learning rates rise and fall."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood.train import optimizers


def params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 3, 4, 8), "dense": (16, 10), "bias": (8,)}
    return {name: jnp.float32(rng.normal(size=shape)) for name, shape in shapes.items()}


def test_muon_moves_kernels_by_orthogonal_matrices_and_biases_as_nadam_does():
    grads = params(1)
    steps = 10  # fewer than twenty: the rate starts at its highest
    muon = optimizers.muon(steps, learning_rate=0.1, other_learning_rate=0.01)
    updates, _ = jax.jit(muon.update)(grads, muon.init(params()), params())
    for name in ("kernel", "dense"):
        matrix = np.asarray(updates[name]).reshape(-1, updates[name].shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        before = np.linalg.svd(np.reshape(grads[name], matrix.shape), compute_uv=False)
        # All directions move at one rate, up to the error of five Newton-Schulz iterations.
        assert singular.max() / singular.min() < 1.8 < before.max() / before.min()
        # The kernel moves against its gradient.
        assert (matrix * np.reshape(grads[name], matrix.shape)).sum() < 0
    # Adam's first step is the sign of the gradient, here with Nesterov's look ahead (NAdam).
    adam = optax.nadam(0.01)
    expected: Any = adam.update(grads["bias"], adam.init(params()["bias"]))[0]
    np.testing.assert_allclose(updates["bias"], expected, rtol=1e-5)
    assert (np.sign(updates["bias"]) == -np.sign(grads["bias"])).all()


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.muon])
def test_the_rate_rises_and_falls_to_zero(make):
    steps = 40
    optimizer = make(steps)
    state, sizes = optimizer.init(params()), []
    update = jax.jit(optimizer.update)
    for _ in range(steps + 1):
        updates, state = update(params(1), state, params())
        sizes.append(float(optax.tree.norm(updates)))
    assert sizes[0] == 0
    assert np.argmax(sizes) in (2, 3)
    assert sizes[-1] < 1e-6 * max(sizes)
