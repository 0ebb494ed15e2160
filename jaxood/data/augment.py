"""Augmentation of training batches, on the device: each image its own random change."""

import jax
import jax.numpy as jnp


def flip(key, x):
    """Mirror images left to right, each with probability 1/2.

    Args:
        key: JAX key.
        x: ``(n, h, w, c)``, of any type.

    Returns:
        The same shape and type.
    """
    mirrored = jax.random.bernoulli(key, shape=(len(x), 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)


def crop(key, x, pad=4):
    """Shift images by up to ``pad`` pixels each way; what comes in is reflected at the border.

    Args:
        key: JAX key.
        x: ``(n, h, w, c)``, of any type.
        pad: largest shift, less than h and w.

    Returns:
        The same shape and type.
    """
    n, *shape = x.shape
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), shape)

    return jax.vmap(cut)(padded, corners)


def crop_and_flip(key, x):
    """`crop` by up to 4 pixels, then `flip`: what CIFAR-10 is usually trained with."""
    crop_key, flip_key = jax.random.split(key)
    return flip(flip_key, crop(crop_key, x))
