import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from jaxood.density import (
    DensityModel,
    Spec,
    bits_per_dim,
    build,
    builder,
    dequantize,
    image_keys,
)
from jaxood.models.ensemble import ensemble
from jaxood.models.glow import glow
from jaxood.models.mates_only import mates_only
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae
from jaxood.nn.convolution import Conv


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
    # These are levels that float32 holds with room to spare, and the two ends.
    x = np.resize(np.array([0, 1, 2, 255], np.uint8), (16, 16, 16, 1))
    key = jax.random.split(jax.random.key(1), len(x)) if many_keys else jax.random.key(1)
    noise = np.asarray(dequantize(key, x)) - x
    assert noise.min() >= 0
    assert noise.max() <= 1
    for level in (0, 255):
        assert kstest(noise[x == level], "uniform").pvalue > 1e-3
    # Neighbouring pixels and batch companions get noise of their own.
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
    """The multipliers are odd: an even one could shift a difference of levels out of 32 bits."""
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    assert len(np.unique(bits(image_keys(jax.random.key(0), levels)), axis=0)) == 256


def test_image_keys_see_where_a_pixel_is():
    one_hot = np.eye(12, dtype=np.uint8).reshape(12, 4, 3, 1)
    assert len(np.unique(bits(image_keys(jax.random.key(0), one_hot)), axis=0)) == 12


# ----------------------------------------------------------------------------------- specification

SHAPE = (4, 4, 1)


def spec_of(model):
    assert model.spec is not None
    return model.spec


def through_text(spec):
    return Spec.from_json(json.loads(json.dumps(spec.to_json())))


@pytest.mark.parametrize(
    "model",
    [
        realnvp(SHAPE, width=2, depth=1, jacobian="exact"),
        vae(list(SHAPE), width=np.arange(3)[1], latent=2),
        pixelcnn(SHAPE, width=2, depth=1, levels=2, normalization="weight", dropout=0.25),
        glow(SHAPE, levels=2, depth=1, width=2, lu=True),
        mates_only(realnvp(SHAPE), folds=4),
        ensemble(mates_only(realnvp(SHAPE, depth=2)), members=3),
    ],
    ids=lambda model: model.spec.name,
)
def test_a_specification_survives_json_text(model):
    spec = through_text(model.spec)
    assert spec == model.spec
    assert hash(spec) == hash(model.spec)
    assert build(spec).spec == model.spec
    # The specification holds the arguments that were given, under the builder's own names.
    assert repr(spec) == repr(model.spec)


def test_a_specification_holds_defaults_but_no_functions():
    assert realnvp(SHAPE, width=2).spec == Spec(
        "realnvp",
        (
            ("image_shape", SHAPE),
            ("width", 2),
            ("depth", 4),
            ("jacobian", "usual"),
        ),
    )


def test_specifications_nest():
    inner = realnvp(SHAPE, width=2)
    outer = ensemble(mates_only(inner), 3).spec
    assert outer == Spec(
        "ensemble",
        (("model", Spec("mates_only", (("model", inner.spec), ("folds", 2)))), ("members", 3)),
    )


def test_models_that_were_not_built_have_no_specification():
    by_hand = DensityModel(*realnvp(SHAPE)[:3])
    assert by_hand.spec is None
    assert mates_only(by_hand).spec is None
    assert ensemble(mates_only(by_hand), 2).spec is None


def test_models_are_keys_of_caches():
    @functools.lru_cache
    def cached(model):
        return object()

    model = ensemble(mates_only(vae(list(SHAPE))), 2)
    assert cached(model) is cached(model)
    assert cached(model) is not cached(build(spec_of(model)))


def test_a_function_as_an_argument_is_built_with_but_not_written_down():
    calls = []

    def conv(*args, **kwargs):
        calls.append(args)
        return Conv(*args, **kwargs)

    model = realnvp(SHAPE, width=1, depth=1, conv=conv)
    assert dict(spec_of(model).arguments)["conv"] is conv
    images = np.zeros((2, *SHAPE), np.uint8)
    for made in (model, build(spec_of(model))):
        calls.clear()
        jax.eval_shape(made.init, jax.random.key(0), images)
        assert calls
    with pytest.raises(ValueError, match=r"the argument 'conv' of 'realnvp' is <function.*plain"):
        spec_of(model).to_json()
    with pytest.raises(ValueError, match=r"the argument 'conv' of 'realnvp' is <function.*plain"):
        spec_of(ensemble(mates_only(model), 2)).to_json()


def test_unknown_builders_are_refused():
    with pytest.raises(ValueError, match=r"no builder has the name 'os\.system'; there are .*glow"):
        build(Spec("os.system", (("command", "true"),)))


def test_unknown_arguments_are_refused():
    spec = Spec("realnvp", (("image_shape", SHAPE), ("filters", 3)))
    with pytest.raises(ValueError, match=r"'realnvp' is not built from these arguments: .*filters"):
        build(spec)
    with pytest.raises(ValueError, match=r"'realnvp' is not built from these arguments: .*shape"):
        build(Spec("realnvp", ()))


@pytest.mark.parametrize(
    "data",
    [
        None,
        "realnvp",
        {"name": "realnvp"},
        {"name": 3, "arguments": {}},
        {"name": "realnvp", "arguments": []},
        {"name": "realnvp", "arguments": {}, "more": 1},
        {"name": "ensemble", "arguments": {"model": {"name": "realnvp"}}},
    ],
)
def test_other_data_is_no_specification(data):
    with pytest.raises(ValueError, match="a specification is"):
        Spec.from_json(data)


def test_two_builders_do_not_share_a_name():
    def realnvp(image_shape):
        return DensityModel(*vae(image_shape)[:3])

    with pytest.raises(ValueError, match="realnvp has a builder 'realnvp' already"):
        builder(realnvp)
    assert build(globals()["realnvp"](SHAPE).spec).spec.name == "realnvp"


def test_a_builder_is_registered_again_where_it_was_defined():
    """The cell of a notebook, too, is run more than once."""

    def define(level):
        @builder
        def of_a_notebook(image_shape, **options):
            init, _, sample, _ = vae(image_shape, **options)
            return DensityModel(init, lambda *_, **__: level, sample)

        return of_a_notebook

    define(1)
    again = define(2)
    spec = again(SHAPE, latent=3).spec
    assert spec == Spec("of_a_notebook", (("image_shape", SHAPE), ("latent", 3)))
    assert build(through_text(spec)).log_prob({}, np.zeros((1, *SHAPE), np.uint8)) == 2
