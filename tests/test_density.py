import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from jaxood.density import bits_per_dim, dequantize, image_keys


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3, 2), dtype=np.uint8)


def bits(keys):
    return np.asarray(jax.random.key_data(keys))


def test_bits_per_dim_of_a_uniform_density_are_eight():
    dims = 4 * 3 * 2
    log_prob = np.array([-dims * np.log(256), 0.0, dims * np.log(2)])
    np.testing.assert_allclose(bits_per_dim(log_prob, (4, 3, 2)), [8, 0, -1], rtol=1e-14)


def test_dequantization_without_a_key_takes_the_centre_of_each_interval(images):
    result = dequantize(None, images)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, images + np.float32(0.5))


@pytest.mark.parametrize("many_keys", [False, True])
def test_dequantization_noise_is_uniform_on_the_unit_interval(many_keys):
    # Levels that float32 holds with room to spare, and the two ends.
    x = np.resize(np.array([0, 1, 2, 255], np.uint8), (16, 16, 16, 1))
    key = jax.random.split(jax.random.key(1), len(x)) if many_keys else jax.random.key(1)
    noise = np.asarray(dequantize(key, x)) - x
    assert noise.min() >= 0
    assert noise.max() <= 1
    for level in (0, 255):
        assert kstest(noise[x == level], "uniform").pvalue > 1e-3
    # Neighbours and batch mates get noise of their own.
    assert len(np.unique(noise[x == 0])) > 0.99 * np.sum(x == 0)


def test_an_image_with_its_own_key_has_noise_of_its_own(images):
    keys = jax.random.split(jax.random.key(2), len(images))
    together = dequantize(keys, images)
    for i in range(len(images)):
        alone = dequantize(keys[i : i + 1], images[i : i + 1])
        np.testing.assert_array_equal(together[i], alone[0])
    np.testing.assert_array_equal(together[::-1], dequantize(keys[::-1], images[::-1]))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_only_uint8_images_are_dequantized(images, dtype):
    with pytest.raises(TypeError, match=f"must be uint8.*got {np.dtype(dtype)}"):
        dequantize(None, images.astype(dtype))


def test_image_keys_follow_their_images(images):
    keys = bits(image_keys(jax.random.key(3), images))
    order = np.array([4, 0, 5, 2, 1, 3])
    np.testing.assert_array_equal(bits(image_keys(jax.random.key(3), images[order])), keys[order])
    np.testing.assert_array_equal(bits(image_keys(jax.random.key(3), images[2:3])), keys[2:3])
    twice = image_keys(jax.random.key(3), np.concatenate([images, images]))
    np.testing.assert_array_equal(bits(twice), np.concatenate([keys, keys]))
    assert not np.any(np.all(keys == bits(image_keys(jax.random.key(4), images)), axis=1))


def test_every_change_of_one_pixel_changes_the_image_key():
    base = np.random.default_rng(1).integers(0, 256, (1, 3, 3, 1), dtype=np.uint8)
    changed = np.repeat(base, 9 * 256, axis=0).reshape(9, 256, 9)
    for pixel in range(9):
        changed[pixel, :, pixel] = np.arange(256)
    images = changed.reshape(-1, 3, 3, 1)
    different = len(np.unique(images, axis=0))
    assert different == 9 * 255 + 1
    assert len(np.unique(bits(image_keys(jax.random.key(0), images)), axis=0)) == different


def test_image_keys_see_a_pixel_whatever_multipliers_are_drawn(monkeypatch):
    """They are made odd: an even one could carry the difference of two levels out of 32 bits."""
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    assert len(np.unique(bits(image_keys(jax.random.key(0), levels)), axis=0)) == 256


def test_image_keys_see_where_a_pixel_is():
    one_hot = np.eye(12, dtype=np.uint8).reshape(12, 4, 3, 1)
    assert len(np.unique(bits(image_keys(jax.random.key(0), one_hot)), axis=0)) == 12
