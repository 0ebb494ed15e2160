import functools

import jax
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler

from jaxood import scores
from jaxood.models.nrm import Layer, fold, nrm, paths
from jaxood.scores import nrm_measure
from jaxood.scores.nrm import Measurement, latent_log_prob
from jaxood.scores.nrm import statistics as nrm_statistics
from jaxood.scores.statistics import class_centred

SHAPE, CLASSES, BATCH = (6, 6, 2), 3, 4


@functools.cache
def model():
    layers = (Layer(3, pool=(3, 2)), Layer(4, stride=2), Layer(4, kernel=1), Layer(5, skip=1))
    return nrm(SHAPE, layers, classes=CLASSES, batch_norm=True)


@functools.cache
def variables():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model().init, jax.random.key(0), np.zeros((1, *SHAPE)))

    def leaf(path, value):
        noise = rng.normal(size=value.shape).astype(np.float32)
        return np.exp(noise) if path[-1].key == "var" else noise

    return jax.tree_util.tree_map_with_path(leaf, shapes)


@functools.cache
def images():
    return np.random.default_rng(1).integers(0, 256, (10, *SHAPE), np.uint8)


@functools.cache
def measured():
    return nrm_measure(model(), variables(), images(), batch_size=BATCH)


def latent(x, **options):
    return scores.nrm_latent(model(), variables(), batch_size=BATCH, **options)(x)


@functools.cache
def latents_given():
    """The likelihood of the latents, given the classes."""
    return jax.jit(lambda v, x, y: latent_log_prob(model(), v, x, y=y).log_prob)


def assert_close(actual, expected, tolerance=1e-4):
    assert actual.dtype == np.float32
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# ----------------------------------------------------------------------------------- measurement


def test_a_measurement_is_what_encoding_and_rendering_give(float64):
    x = images()
    wide = jax.tree.map(lambda a: a.astype(np.float64), variables())

    @jax.jit
    def encode_and_render(variables, x):
        logits, g, latents = model().encode(variables, x)
        h = model().render(variables, logits.argmax(1), latents)
        return logits, g, h, paths(fold(variables), latents, h)

    logits, g, h, path = encode_and_render(wide, x / 127.5 - 1)
    m = measured()
    np.testing.assert_array_equal(m.label, logits.argmax(1))
    assert len(set(m.label)) > 1
    assert_close(m.logits, logits)
    for number, (feature, rendered) in enumerate(zip(g, h, strict=True)):
        squares = ((feature - rendered) ** 2).reshape(len(x), -1)
        size = feature[0].size
        assert_close(nrm_statistics.reconstruction(m, number), squares.sum(1))
        assert_close(nrm_statistics.reconstruction(m, number, reduction="mean"), squares.mean(1))
        # Theorem 2 and the remark after it: the latents above layer k render g(k).
        above = [p.reshape(len(x), -1) for p in path[number:]]
        total, means = (sum([getattr(p, f)(1) for p in above], 0) for f in ("sum", "mean"))
        assert_close(nrm_statistics.neg_log_prob(m, layer=number), squares.sum(1) / 2 - total)
        assert_close(
            nrm_statistics.neg_log_prob(m, layer=number, reduction="mean"),
            squares.mean(1) / 2 - means,
        )
        if number < 4:
            assert_close(nrm_statistics.latent(m, above=number), -total)
            assert_close(nrm_statistics.latent(m, reduction="mean", above=number), -means)
        assert m.sizes[number] == size
    assert_close(m.energy, (g[0] ** 2).sum((1, 2, 3)))
    assert_close(m.active, np.stack([(f > 0).mean((1, 2, 3)) for f in g[1:]], axis=1))
    assert_close(m.negative, np.stack([(r < 0).mean((1, 2, 3)) for r in h[1:]], axis=1))


# --------------------------------------------------------------------------- one forward-mode pass


@pytest.mark.parametrize("options", [{}, {"reduction": "mean"}, {"above": 2}], ids=str)
def test_the_forward_mode_pass_is_the_rendered_value(options):
    expected = nrm_statistics.latent(measured(), **options)
    assert np.ptp(expected) > 0.01
    assert_close(latent(images(), **options), expected)


def test_labels_can_be_given():
    other = (measured().label + 1) % CLASSES
    given = nrm_measure(model(), variables(), images(), y=other, batch_size=BATCH)
    np.testing.assert_array_equal(given.label, other)
    expected = nrm_statistics.latent(given)
    assert np.abs(expected - nrm_statistics.latent(measured())).max() > 0.1
    assert_close(-latents_given()(variables(), images(), other), expected)
    own = -latents_given()(variables(), images(), measured().label)
    assert_close(own, nrm_statistics.latent(measured()))
    # A label of -1 is none.
    some = np.where(np.arange(10) < 5, other, -1)
    mixed = nrm_measure(model(), variables(), images(), y=some, batch_size=BATCH)
    np.testing.assert_array_equal(mixed.label, [*other[:5], *measured().label[5:]])
    np.testing.assert_array_equal(mixed.latent[:5], given.latent[:5])
    np.testing.assert_array_equal(mixed.latent[5:], measured().latent[5:])


# -------------------------------------------------------------------------------------- properties


def test_an_image_scores_the_same_to_the_bit_whatever_its_batch_mates():
    x, m = images(), measured()
    order = np.random.default_rng(2).permutation(len(x))
    shuffled = nrm_measure(model(), variables(), x[order], batch_size=BATCH)
    for field in ("label", "logits", "latent", "reconstruction", "energy"):
        np.testing.assert_array_equal(getattr(shuffled, field), getattr(m, field)[order])
    alone = nrm_measure(model(), variables(), x[7:8], batch_size=BATCH)
    np.testing.assert_array_equal(alone.reconstruction, m.reconstruction[7:8])
    np.testing.assert_array_equal(latent(x[order]), latent(x)[order])
    np.testing.assert_array_equal(latent(x[7:8]), latent(x)[7:8])


def test_scores_of_a_network_worked_out_by_hand():
    """One pixel layer ``relu(2 x + 1)``, logits ``(3, -1)`` times its mean, on 4x4 images.

    Where x > -1/2 the switch is on: of 16 pixels, a share p. Then h(1) = 3/16 everywhere,
    h(0) = 6/16 where it is on, and log p(z|y) = 16 p b h(1) = 3 p: an image with fewer pixels on
    has less likely latents, and the higher score.
    """
    tiny = nrm((4, 4, 1), [Layer(1, kernel=1)], classes=2)
    weights = {
        "params": {
            "layer_1": {"kernel": np.full((1, 1, 1, 1), 2.0), "bias": np.ones(1)},
            "dense": {"kernel": np.array([[3.0, -1.0]]), "bias": np.zeros(2)},
        }
    }
    weights = jax.tree.map(np.float32, weights)
    x = np.full((3, 4, 4, 1), -1, np.float32)
    on = np.array([4, 8, 16])
    for image, count in zip(x, on, strict=True):
        image.flat[:count] = 0.5
    m = nrm_measure(tiny, weights, x, batch_size=3)
    found = jax.jit(lambda v, x: latent_log_prob(tiny, v, x))(weights, x)
    score = -found.log_prob
    np.testing.assert_allclose(found.energy, m.energy, rtol=1e-6)
    np.testing.assert_allclose(score, -3 * on / 16, rtol=1e-6)
    assert score[0] > score[1] > score[2]
    error = on * (0.5 - 6 / 16) ** 2 + (16 - on)
    np.testing.assert_allclose(nrm_statistics.reconstruction(m, 0), error, rtol=1e-6)
    np.testing.assert_allclose(nrm_statistics.neg_log_prob(m), error / 2 - 3 * on / 16, rtol=1e-6)
    np.testing.assert_allclose(m.energy, on / 4 + 16 - on, rtol=1e-6)
    np.testing.assert_allclose(
        nrm_statistics.reconstruction(m, 1),
        on * (2 - 3 / 16) ** 2 + (16 - on) * (3 / 16) ** 2,
        rtol=1e-6,
    )
    # Without BatchNorm the means divide the same sums by 16 features.
    by_mean = nrm_statistics.latent(m, reduction="mean")
    np.testing.assert_allclose(by_mean, score / 16, rtol=1e-6)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean', got 'max'"):
        latent(images(), reduction="max")
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean', got 'max'"):
        nrm_statistics.latent(measured(), reduction="max")  # pyright: ignore[reportArgumentType]


# -------------------------------------------------------------------------------- beyond the paper


def test_class_centred_scores():
    trusted, trusted_label = np.array([1.0, 3.0, 10.0]), np.array([0, 0, 2])
    score, label = np.array([5.0, 5.0, 5.0, 5.0]), np.array([0, 1, 2, 3])
    centred = class_centred(score, label, trusted, trusted_label)
    # Classes 1 and 3 have no trusted images: the mean of all is 14/3.
    np.testing.assert_allclose(centred, [3, 1 / 3, -5, 1 / 3], rtol=1e-6)
    assert centred.dtype == np.float32
    # A constant that depends on the class alone, as the normalizer does, drops out.
    constant = np.array([7.0, 0.0, -2.0])
    moved = class_centred(
        score[[0, 2]] + constant[[0, 2]],
        label[[0, 2]],
        trusted + constant[trusted_label],
        trusted_label,
    )
    np.testing.assert_allclose(moved, centred[[0, 2]], rtol=1e-6)


def test_scores_per_energy():
    score, energy = np.array([-2.0, 4.0]), np.array([4.0, 2.0])
    np.testing.assert_array_equal(nrm_statistics.per_energy(score, energy), [-0.5, 2])


def made_up(n, seed):
    """Terms of n images of a model with two layers, with a scale and a sign of their own each."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    latent = np.array([100.0, -0.01]) * (common + 0.1 * rng.normal(size=(n, 2)))
    reconstruction = np.exp(np.array([1.0, -3.0, 5.0]) + 0.2 * rng.normal(size=(n, 3)))
    active = np.exp(np.array([-1.0, -3.0]) + 0.1 * rng.normal(size=(n, 2)))
    zero = np.zeros((n, 2), np.float32)
    return Measurement(
        np.zeros(n, int), zero, latent, reconstruction, np.ones(n), active, zero, np.ones(3)
    )


def test_the_profile_of_trusted_images_is_chi_squared_and_finds_one_odd_layer():
    trusted, fresh = made_up(2000, 0), made_up(2000, 1)
    distance = nrm_statistics.profile(fresh, trusted)
    # Five normal terms (the latent ones nearly equal): a shrunk covariance moves this a little.
    assert abs(distance.mean() - 5) < 0.5
    error = fresh.reconstruction.copy()
    error[:, 1] *= 3  # five standard deviations of its logarithm
    assert nrm_statistics.profile(fresh._replace(reconstruction=error), trusted).mean() > 25
    # Latent terms that part: each is as usual by itself.
    parted = nrm_statistics.profile(fresh._replace(latent=fresh.latent * [1, -1]), trusted)
    assert np.median(parted) > 10


def test_switches_find_a_layer_with_too_few_or_too_many_on():
    trusted, fresh = made_up(2000, 0), made_up(2000, 1)
    assert abs(nrm_statistics.switches(fresh, trusted).mean() - 2) < 0.2  # two normal terms
    for factor in (0.6, 1.6):  # five standard deviations of its logarithm
        odd = nrm_statistics.switches(fresh._replace(active=fresh.active * [1, factor]), trusted)
        assert odd.mean() > 20


# ---------------------------------------------------------------------------------------- builders


def built(name, **options):
    build = getattr(scores, f"nrm_{name}")
    return build(model(), variables(), batch_size=BATCH, **options)


def test_builders_score_as_a_measurement_does():
    x, m = images(), measured()
    assert_close(built("reconstruction", layer=2)(x), nrm_statistics.reconstruction(m, 2))
    mean = built("reconstruction", layer=0, reduction="mean")(x)
    assert_close(mean, nrm_statistics.reconstruction(m, 0, reduction="mean"))
    assert_close(built("neg_log_prob")(x), nrm_statistics.neg_log_prob(m))
    third = built("neg_log_prob", layer=3, reduction="mean")(x)
    assert_close(third, nrm_statistics.neg_log_prob(m, layer=3, reduction="mean"))
    by_energy = nrm_statistics.per_energy(nrm_statistics.latent(m), m.energy)
    assert_close(built("latent_per_energy")(x), by_energy)


def test_builders_against_trusted_images():
    null, m = (
        Measurement(*(field[part] for field in measured()[:-1]), sizes=measured().sizes)
        for part in (np.s_[:6], np.s_[6:])
    )
    own, reference = nrm_statistics.latent(m), nrm_statistics.latent(null)
    expected = {
        "latent_two_sided": np.abs(own - reference.mean()),
        "latent_class_centred": class_centred(own, m.label, reference, null.label),
        "profile": nrm_statistics.profile(m, null),
        "switches": nrm_statistics.switches(m, null),
    }
    for name, values in expected.items():
        assert_close(built(name, trusted=images()[:6])(images()[6:]), values)


@pytest.mark.parametrize("name", ["latent_two_sided", "latent_class_centred", "profile"])
def test_trusted_images_are_uint8(name):
    with pytest.raises(TypeError, match="images must be uint8"):
        built(name, trusted=images() / 255)


def test_layers_that_there_are_not_are_refused():
    for name in ("reconstruction", "neg_log_prob"):
        for layer in (-1, 5):
            with pytest.raises(ValueError, match=f"layer must be from 0 to 4 .*, got {layer}"):
                built(name, layer=layer)
    with pytest.raises(ValueError, match="above must be from 0 to 3 for this network, got 4"):
        built("latent", above=4)


def test_the_distance_is_that_of_scikit_learn():
    terms, judged = (nrm_statistics.profile_terms(made_up(50, seed)) for seed in (0, 1))
    scaler = StandardScaler().fit(terms)
    covariance = LedoitWolf().fit(scaler.transform(terms))
    expected = covariance.mahalanobis(scaler.transform(judged))
    found = nrm_statistics.distance(nrm_statistics.fit_normal(terms), judged)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
