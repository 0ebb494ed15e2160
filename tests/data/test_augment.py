"""Augmentation moves pixels without changing them, and every change has the right probability."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.data import augment

X = np.random.default_rng(0).integers(0, 256, (512, 8, 6, 3), np.uint8)


def test_flip_mirrors_about_half_of_the_images():
    flipped = np.asarray(augment.flip(jax.random.key(0), X))
    chex.assert_trees_all_equal_dtypes(flipped, X)
    same, mirrored = ((flipped == y).all((1, 2, 3)) for y in (X, X[:, :, ::-1]))
    assert (same ^ mirrored).all()
    # The tolerance is four standard deviations of a binomial.
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(X))


@pytest.mark.parametrize("pad", [1, 3])
def test_crop_takes_one_window_of_the_reflected_image(pad):
    cropped = np.asarray(augment.crop(jax.random.key(0), X, pad))
    padded = np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    places = range(2 * pad + 1)
    windows = [padded[:, i : i + 8, j : j + 6] for i in places for j in places]
    hits = np.array([(cropped == window).all((1, 2, 3)) for window in windows])
    assert (hits.sum(0) == 1).all()
    assert hits.any(1).all()


def test_crop_and_flip_keep_the_type_and_give_the_same_under_jit():
    x = jnp.asarray(X[:4], jnp.float32)
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    made = jax.jit(augment.crop_and_flip)(jax.random.key(1), padded)
    chex.assert_shape(made, padded.shape)
    chex.assert_type(made, jnp.float32)
    again = augment.crop_and_flip(jax.random.key(1), padded)
    chex.assert_trees_all_equal(made, again)
