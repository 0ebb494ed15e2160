"""Transforms: pixel values, rotation angles, and refusals."""

import numpy as np
import pytest

from jaxood.data.transforms import DataError, contrast, rotate, scale, unit_scale
from tests.data.helpers import noise


@pytest.mark.parametrize("channels", [1, 3])
def test_scale_multiplies_and_keeps_zero(channels):
    images = np.arange(256, dtype=np.uint8).repeat(channels).reshape(1, 16, 16, channels)
    np.testing.assert_array_equal(scale(images, 0.8), np.rint(images * 0.8))
    np.testing.assert_array_equal(scale(images, 1), images)
    np.testing.assert_array_equal(scale(images, 2.0), np.minimum(images.astype(int) * 2, 255))
    assert scale(images, 3.0)[images == 0].max() == 0
    assert scale(images, 0.5).dtype == np.uint8


def test_unit_scale_is_scaling_in_the_range_from_minus_one_to_one(rng):
    images = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    scaled = unit_scale(images, 0.8)
    want = 0.8 * (images / 127.5 - 1)
    np.testing.assert_allclose(scaled / 127.5 - 1, want, atol=0.5 / 127.5 + 1e-9)
    np.testing.assert_array_equal(unit_scale(images, 1), images)


def test_contrast_keeps_each_mean_and_scales_the_spread(rng):
    images = np.stack([noise(rng, 16, 16, 3) // 2, 127 + noise(rng, 16, 16, 3) // 2])
    half = contrast(images, 0.5)
    assert half.dtype == np.uint8
    np.testing.assert_allclose(half.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.5)
    np.testing.assert_allclose(half.std((1, 2, 3)), images.std((1, 2, 3)) / 2, rtol=0.02)
    np.testing.assert_array_equal(contrast(images, 1), images)
    assert len(np.unique(contrast(images, 0)[0])) == 1


def test_rotation_angles_lie_between_90_and_270():
    # A bright spot lies right of the centre; after a turn by 90 to 270 degrees it lies left of it.
    images = np.zeros((500, 65, 65, 1), np.uint8)
    images[:, 30:35, 54:59] = 255
    turned = rotate(images).astype(float).squeeze(-1)
    weight = turned.sum((1, 2))
    x = (turned.sum(1) @ (np.arange(65) - 32)) / weight
    y = (turned.sum(2) @ (32 - np.arange(65))) / weight
    np.testing.assert_allclose(np.hypot(x, y), 24, atol=0.5)  # only turned, about the centre
    degrees = np.rad2deg(np.arctan2(y, x)) % 360
    assert degrees.min() > 89 and degrees.max() < 271
    counts, _ = np.histogram(degrees, 6, (90, 270))
    assert counts.min() > 500 / 6 / 2


@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_is_deterministic_and_differs_between_images(rng, channels):
    images = np.repeat(noise(rng, 1, 32, 32, channels), 8, axis=0)
    turned = rotate(images)
    assert turned.shape == images.shape and turned.dtype == np.uint8
    assert len({bytes(image) for image in turned}) == 8
    np.testing.assert_array_equal(turned, rotate(images))
    np.testing.assert_array_equal(turned[:3], rotate(images[:3]))
    assert (turned != rotate(images, seed=1)).any()


def test_transforms_do_not_change_their_argument(rng):
    images = noise(rng, 4, 8, 8, 3)
    images.flags.writeable = False
    for changed in (rotate(images), scale(images, 0.5), contrast(images, 0.5)):
        assert (changed != images).any()


@pytest.mark.parametrize("transform", [rotate, lambda x: scale(x, 0.5), lambda x: contrast(x, 1)])
def test_transforms_refuse_floats(transform):
    with pytest.raises(DataError, match="uint8"):
        transform(np.zeros((2, 8, 8, 1)))
    with pytest.raises(DataError, match="finite"):
        scale(np.zeros((2, 8, 8, 1), np.uint8), float("inf"))


def test_nearest_rotation_makes_no_new_levels_and_bilinear_does(rng):
    two_levels = np.uint8(200) * rng.integers(0, 2, (4, 16, 16, 1), dtype=np.uint8)
    assert set(np.unique(rotate(two_levels))) <= {0, 200}
    smooth = rotate(two_levels, bilinear=True)
    assert len(np.unique(smooth)) > 10
    # Both turn by the same angles, so they agree where the smooth one is certain.
    nearest = rotate(two_levels)
    agree = (nearest == 200) == (smooth > 100)
    assert agree.mean() > 0.95
