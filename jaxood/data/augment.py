"""Augmentation of training batches on the device: each image is changed at random."""

import jax
import jax.numpy as jnp

from jaxood.density import Array


def flip(key: jax.Array, x: Array) -> jax.Array:
    """Mirror images left to right, each with probability 1/2.

    Args:
        key: a typed random key.
        x: ``(n, h, w, c)``, of any type.

    Returns:
        An array of the same shape and type.
    """
    mirrored = jax.random.bernoulli(key, shape=(len(x), 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def crop(key: jax.Array, x: Array, pad: int = 4) -> jax.Array:
    """Shift each image by up to ``pad`` pixels each way; the border is filled by reflection.

    Args:
        key: a typed random key.
        x: ``(n, h, w, c)``, of any type.
        pad: the largest shift, less than h and w.

    Returns:
        An array of the same shape and type.
    """
    n, *shape = x.shape
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), shape)

    return jax.vmap(cut)(padded, corners)


def crop_and_flip(key: jax.Array, x: Array) -> jax.Array:
    """Crop by up to 4 pixels, then flip: the usual augmentation for CIFAR-10.

    Args:
        key: a typed random key.
        x: ``(n, h, w, c)``, of any type.

    Returns:
        An array of the same shape and type.
    """
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, crop(crop_key, x))
