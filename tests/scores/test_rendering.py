import functools

import jax
import numpy as np
import pytest

from jaxood.models.nrm import Layer, fold, nrm, paths
from jaxood.scores import rendering
from jaxood.scores.statistics import typicality

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
    return rendering.measure(model(), variables(), images(), batch_size=BATCH)


def latent(x, **options):
    return rendering.nrm_latent(model(), variables(), x, batch_size=BATCH, **options)


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
        assert_close(rendering.reconstruction(m, number), squares.sum(1))
        assert_close(rendering.reconstruction(m, number, reduction="mean"), squares.mean(1))
        # Theorem 2 and the remark after it: the latents above layer k render g(k).
        above = [p.reshape(len(x), -1) for p in path[number:]]
        total, means = (sum([getattr(p, f)(1) for p in above], 0) for f in ("sum", "mean"))
        assert_close(rendering.neg_log_prob(m, layer=number), squares.sum(1) / 2 - total)
        assert_close(
            rendering.neg_log_prob(m, layer=number, reduction="mean"), squares.mean(1) / 2 - means
        )
        if number < 4:
            assert_close(rendering.latent(m, above=number), -total)
            assert_close(rendering.latent(m, reduction="mean", above=number), -means)
        assert m.sizes[number] == size
    assert_close(m.energy, (g[0] ** 2).sum((1, 2, 3)))
    assert_close(m.active, np.stack([(f > 0).mean((1, 2, 3)) for f in g[1:]], axis=1))
    assert_close(m.negative, np.stack([(r < 0).mean((1, 2, 3)) for r in h[1:]], axis=1))


def test_names_of_all_scores():
    m = measured()
    scores = rendering.all_scores(m)
    layers = [f"nrm_reconstruction_{number}" for number in range(5)]
    both = ["nrm_latent", "nrm_neg_log_prob", *layers]
    assert set(scores) == {*both, *(f"{name}_mean" for name in both), "nrm_latent_per_energy"}
    np.testing.assert_array_equal(scores["nrm_latent"], rendering.latent(m))
    np.testing.assert_array_equal(
        scores["nrm_reconstruction_2_mean"], rendering.reconstruction(m, 2, reduction="mean")
    )
    np.testing.assert_array_equal(
        scores["nrm_neg_log_prob_mean"], rendering.neg_log_prob(m, reduction="mean")
    )


# --------------------------------------------------------------------------- one forward-mode pass


@pytest.mark.parametrize("options", [{}, {"reduction": "mean"}, {"above": 2}], ids=str)
def test_the_forward_mode_pass_is_the_rendered_value(options):
    expected = rendering.latent(measured(), **options)
    assert np.ptp(expected) > 0.01
    assert_close(latent(images(), **options), expected)


def test_labels_can_be_given():
    other = (measured().label + 1) % CLASSES
    given = rendering.measure(model(), variables(), images(), y=other, batch_size=BATCH)
    np.testing.assert_array_equal(given.label, other)
    expected = rendering.latent(given)
    assert np.abs(expected - rendering.latent(measured())).max() > 0.1
    assert_close(latent(images(), y=other), expected)
    assert_close(latent(images(), y=measured().label), rendering.latent(measured()))


# -------------------------------------------------------------------------------------- properties


def test_an_image_scores_the_same_to_the_bit_whatever_its_batch_mates():
    x, m = images(), measured()
    order = np.random.default_rng(2).permutation(len(x))
    shuffled = rendering.measure(model(), variables(), x[order], batch_size=BATCH)
    for field in ("label", "logits", "latent", "reconstruction", "energy"):
        np.testing.assert_array_equal(getattr(shuffled, field), getattr(m, field)[order])
    alone = rendering.measure(model(), variables(), x[7:8], batch_size=BATCH)
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
    m = rendering.measure(tiny, weights, x, batch_size=3)
    score = rendering.nrm_latent(tiny, weights, x, batch_size=3)
    np.testing.assert_allclose(score, -3 * on / 16, rtol=1e-6)
    assert score[0] > score[1] > score[2]
    error = on * (0.5 - 6 / 16) ** 2 + (16 - on)
    np.testing.assert_allclose(rendering.reconstruction(m, 0), error, rtol=1e-6)
    np.testing.assert_allclose(rendering.neg_log_prob(m), error / 2 - 3 * on / 16, rtol=1e-6)
    np.testing.assert_allclose(m.energy, on / 4 + 16 - on, rtol=1e-6)
    np.testing.assert_allclose(
        rendering.reconstruction(m, 1),
        on * (2 - 3 / 16) ** 2 + (16 - on) * (3 / 16) ** 2,
        rtol=1e-6,
    )
    # Without BatchNorm the means divide the same sums by 16 features.
    by_mean = rendering.nrm_latent(tiny, weights, x, reduction="mean", batch_size=3)
    np.testing.assert_allclose(by_mean, score / 16, rtol=1e-6)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean', got 'max'"):
        latent(images(), reduction="max")
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean', got 'max'"):
        rendering.latent(measured(), reduction="max")  # pyright: ignore[reportArgumentType]


# -------------------------------------------------------------------------------- beyond the paper


def test_two_sided_scores_are_typicality_of_the_latents():
    score = rendering.latent(measured())
    trusted, judged = score[:6], score[6:]
    expected = np.abs(judged - trusted.mean())
    np.testing.assert_allclose(typicality(-judged, -trusted), expected, rtol=1e-5)


def test_class_centred_scores():
    trusted, trusted_label = np.array([1.0, 3.0, 10.0]), np.array([0, 0, 2])
    score, label = np.array([5.0, 5.0, 5.0, 5.0]), np.array([0, 1, 2, 3])
    centred = rendering.class_centred(score, label, trusted, trusted_label)
    # Classes 1 and 3 have no trusted images: the mean of all is 14/3.
    np.testing.assert_allclose(centred, [3, 1 / 3, -5, 1 / 3], rtol=1e-6)
    assert centred.dtype == np.float32
    # A constant that depends on the class alone, as the normalizer does, drops out.
    constant = np.array([7.0, 0.0, -2.0])
    moved = rendering.class_centred(
        score[[0, 2]] + constant[[0, 2]],
        label[[0, 2]],
        trusted + constant[trusted_label],
        trusted_label,
    )
    np.testing.assert_allclose(moved, centred[[0, 2]], rtol=1e-6)


def test_scores_per_energy():
    score, energy = np.array([-2.0, 4.0]), np.array([4.0, 2.0])
    np.testing.assert_array_equal(rendering.per_energy(score, energy), [-0.5, 2])
    m = measured()
    np.testing.assert_allclose(
        rendering.all_scores(m)["nrm_latent_per_energy"] * m.energy, rendering.latent(m), rtol=1e-5
    )


def made_up(n, seed):
    """Terms of n images of a model with two layers, with a scale and a sign of their own each."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    latent = np.array([100.0, -0.01]) * (common + 0.1 * rng.normal(size=(n, 2)))
    reconstruction = np.exp(np.array([1.0, -3.0, 5.0]) + 0.2 * rng.normal(size=(n, 3)))
    active = np.exp(np.array([-1.0, -3.0]) + 0.1 * rng.normal(size=(n, 2)))
    zero = np.zeros((n, 2), np.float32)
    return rendering.Measurement(
        np.zeros(n, int), zero, latent, reconstruction, np.ones(n), active, zero, np.ones(3)
    )


def test_the_profile_of_trusted_images_is_chi_squared_and_finds_one_odd_layer():
    trusted, fresh = made_up(2000, 0), made_up(2000, 1)
    distance = rendering.profile(fresh, trusted)
    # Five normal terms (the latent ones nearly equal): a shrunk covariance moves this a little.
    assert abs(distance.mean() - 5) < 0.5
    error = fresh.reconstruction.copy()
    error[:, 1] *= 3  # five standard deviations of its logarithm
    assert rendering.profile(fresh._replace(reconstruction=error), trusted).mean() > 25
    # Latent terms that part: each is as usual by itself.
    parted = rendering.profile(fresh._replace(latent=fresh.latent * [1, -1]), trusted)
    assert np.median(parted) > 10


def test_switches_find_a_layer_with_too_few_or_too_many_on():
    trusted, fresh = made_up(2000, 0), made_up(2000, 1)
    assert abs(rendering.switches(fresh, trusted).mean() - 2) < 0.2  # two normal terms
    for factor in (0.6, 1.6):  # five standard deviations of its logarithm
        odd = rendering.switches(fresh._replace(active=fresh.active * [1, factor]), trusted)
        assert odd.mean() > 20


def test_calibrated_scores():
    m = measured()
    scores = rendering.calibrated_scores(m, m)
    own = rendering.latent(m)
    np.testing.assert_allclose(
        scores["nrm_latent_two_sided"], np.abs(own - own.mean()), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(
        scores["nrm_latent_class_centred"], rendering.class_centred(own, m.label, own, m.label)
    )
    np.testing.assert_array_equal(scores["nrm_profile"], rendering.profile(m, m))
    np.testing.assert_array_equal(scores["nrm_switches"], rendering.switches(m, m))
