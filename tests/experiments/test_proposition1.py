"""Proposition 1 of the BatchNorm paper: where it holds, its defect where not, and what mends it."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.batch_norm.toy import proposition1
from jaxood.models.mates_only import mates_only
from jaxood.models.realnvp import RealNVP, realnvp
from jaxood.nn.batch_stats import batch_moments
from jaxood.nn.jacobian import own_log_det
from jaxood.scores import mixed_log_prob
from tests.helpers import perturb

# ---------------------------------------------------------------------------- the masses, to 1e-4

# Defects of these seeded networks where the proposition fails, by model, likelihood and b.
DEFECTS = {
    ("two couplings", "usual", 4): 1.0347,
    ("two couplings", "usual, variance over b − 1", 4): 1.0258,
    ("two couplings", "usual", 16): 1.0291,
    ("autoregressive, BatchNorm over space", "usual", 1): 0.5972,
    ("autoregressive, BatchNorm over space", "usual", 4): 0.8364,
    ("autoregressive, BatchNorm over space", "usual", 16): 0.9616,
    ("autoregressive, BatchNorm over space", "usual", 64): 0.9913,
    ("PixelCNN++", "usual", 1): 0.5045,
    ("PixelCNN++", "usual", 4): 0.7998,
    ("VAE", "usual, mates' codes encoded in the batch", 4): 0.9766,
}


@pytest.mark.parametrize(
    ("checks", "count"),
    [
        (proposition1.flow_checks, 9),
        (proposition1.autoregressive_checks, 9),
        (proposition1.pixelcnn_checks, 3),
        (proposition1.vae_checks, 3),
    ],
)
def test_mass_is_one_where_the_proposition_holds_and_is_not_where_it_fails(checks, count):
    found = checks()
    assert len(found) == count
    for check in found:
        expected = 1.0 if check.normalized else DEFECTS[check[:3]]
        chex.assert_trees_all_close(
            check.mass, expected, rtol=0, atol=1e-4, custom_message=str(check)
        )
        assert check.normalized or abs(check.mass - 1) > 0.005


def test_quadrature_and_enumeration_are_complete():
    x, cell = proposition1.plane()
    normal = np.exp(-(x.astype(np.float64) ** 2).sum(1) / 2) / (2 * np.pi)
    assert cell * normal.sum() == pytest.approx(1, abs=1e-6)
    images = proposition1.every_image(3, 1, 2, 1)
    assert images.shape == (9, 1, 2, 1)
    assert len(np.unique(images.reshape(9, 2), axis=0)) == 9


# ------------------------------------------------------------------------------ the exact Jacobian


def test_own_log_det_is_that_of_the_diagonal_blocks(float64):
    x = np.random.default_rng(0).normal(size=(5, 2, 3))

    def f(x):
        return jnp.sin(x) + 0.3 * (x**2).mean(0) * x.sum((1, 2), keepdims=True) + 2 * x

    blocks = jax.jacobian(f)(x)
    expected = [np.linalg.slogdet(blocks[i, ..., i, :, :].reshape(6, 6))[1] for i in range(5)]
    chex.assert_trees_all_close(own_log_det(f, x), np.array(expected), rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def small():
    """A 4x4 RealNVP far from its initialization: model, variables, images."""
    model = realnvp((4, 4, 1), width=2, depth=1, conv=nn.Conv)
    x = np.random.default_rng(1).integers(0, 256, (4, 4, 4, 1)).astype(np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = perturb(jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes), scale=0.7)
    return model, variables, x


def test_exact_log_prob_of_realnvp_is_that_of_the_whole_jacobian(small):
    """The oracle is the Jacobian of the whole batch map, computed in one piece."""
    model, variables, x = small
    built = realnvp((4, 4, 1), width=2, depth=1, conv=nn.Conv, jacobian="exact")

    def batch_map(logit):
        (z, log_det), _ = RealNVP(2, 1, nn.Conv).apply(
            variables, logit, train=True, mutable=["batch_stats"]
        )
        return z, log_det

    @jax.jit
    def everything(x):
        y = 0.05 + 0.9 * (x + 0.5) / 256
        return {
            "brute": jax.jacfwd(batch_map, has_aux=True)(jnp.log(y / (1 - y))),
            "usual": model.log_prob(variables, x, train=True),
            "asked": model.log_prob(variables, x, train=True, jacobian="exact"),
            "built": built.log_prob(variables, x, train=True, mutable=["batch_stats"]),
            "evaluation": (model.log_prob(variables, x), built.log_prob(variables, x)),
        }

    found = everything(x)
    jacobian, usual_log_det = found["brute"]
    jacobian = np.asarray(jacobian, np.float64).reshape(4, 16, 4, 16)
    true_log_det = np.linalg.slogdet([jacobian[i, :, i] for i in range(4)]).logabsdet
    correction = found["asked"] - found["usual"]
    assert np.abs(correction).min() > 2e-3
    chex.assert_trees_all_close(
        correction, np.float32(true_log_det - usual_log_det), rtol=0, atol=2e-4
    )

    # The constructor's setting is the call's, and evaluation mode has none.
    values, moved = found["built"]
    chex.assert_trees_all_close(values, found["asked"], rtol=1e-6)
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, variables["batch_stats"])
    chex.assert_trees_all_equal(*found["evaluation"])


def test_another_word_for_the_jacobian_is_refused(small):
    model, variables, x = small
    with pytest.raises(ValueError, match="'usual' or 'exact', got 'true'"):
        realnvp((4, 4, 1), jacobian="true")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="'usual' or 'exact', got 'true'"):
        model.log_prob(variables, x, jacobian="true")


# --------------------------------------------------------------------- statistics of the mates only


@pytest.fixture(scope="module")
def points():
    """Two couplings in the plane, with noise an image: model, variables, four points."""
    couplings = proposition1.couplings(2)

    def log_prob(variables, x, *, key=None, **options):
        if key is not None:
            x += jax.vmap(lambda k: jax.random.uniform(k, (2,)))(key)
        return couplings.log_prob(variables, x, **options)

    model = couplings._replace(log_prob=log_prob)
    x = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    variables = proposition1.randomize(model.init(jax.random.key(0), x), seed=1, gain=1.0)
    return model, variables, jnp.asarray(x)


def test_batch_moments_make_evaluation_mode_training_mode(points):
    model, variables, x = points

    @jax.jit
    def both(x):
        held = {**variables, "batch_stats": batch_moments(model, variables, x)}
        return model.log_prob(held, x), model.log_prob(variables, x, train=True)

    chex.assert_trees_all_close(*both(x), rtol=1e-5)


@pytest.mark.parametrize("folds", [2, 4])
def test_mates_only_is_evaluation_mode_under_the_statistics_of_the_other_folds(points, folds):
    """The oracle is brute force; the noise follows an image into either part."""
    model, variables, x = points
    keys = jax.random.split(jax.random.key(1), 4)

    @jax.jit
    def judged(own, own_keys, mates, mates_keys):
        moments = batch_moments(model, variables, mates, key=mates_keys)
        return model.log_prob({**variables, "batch_stats": moments}, own, key=own_keys), moments

    expected, moments = np.empty(4, np.float32), []
    for i in range(folds):
        own = np.arange(i, 4, folds)
        mates = np.setdiff1d(np.arange(4), own)
        expected[own], of_fold = judged(x[own], keys[own], x[mates], keys[mates])
        moments.append(of_fold)

    true = mates_only(model, folds)
    values, moved = jax.jit(
        lambda x, k: true.log_prob(variables, x, train=True, key=k, mutable=["batch_stats"])
    )(x, keys)
    chex.assert_trees_all_close(values, expected, rtol=1e-5)
    mean = jax.tree.map(lambda *m: np.mean(m, 0), *moments)
    towards = jax.tree.map(lambda old, m: 0.9 * old + 0.1 * m, variables["batch_stats"], mean)
    chex.assert_trees_all_close(moved, towards, rtol=1e-4, atol=1e-5)

    # One key for the batch is a key for each image.
    one_key = jax.jit(lambda x, k: true.log_prob(variables, x, train=True, key=k))
    chex.assert_trees_all_close(one_key(x, jax.random.key(1)), expected, rtol=1e-5)
    chex.assert_trees_all_equal(true.log_prob(variables, x), model.log_prob(variables, x))


def test_an_image_does_not_touch_the_statistics_it_is_judged_by(points):
    """Its fold-mates' values stay, to the bit, when it changes; those of the other fold move."""
    model, variables, x = points
    log_prob = jax.jit(lambda x: mates_only(model).log_prob(variables, x, train=True))
    before, after = np.asarray(log_prob(x)), np.asarray(log_prob(x.at[0].add(1)))
    assert after[2] == before[2]
    assert np.abs(after - before)[[0, 1, 3]].min() > 1e-3


def test_mixed_batches_take_a_true_likelihood_as_any_model(points):
    """The order of the batch does not matter where every image is left out in turn."""
    model, variables, x = points

    def of_images(variables, x, *, key=None, **options):
        return model.log_prob(variables, x.reshape(len(x), 2) / 128.0, **options)

    true = mates_only(model._replace(log_prob=of_images), folds=4)
    images = (100 * np.abs(x)).astype(np.uint8).reshape(4, 2, 1, 1)
    values = mixed_log_prob(true, variables, images, images, (1.0,), batch_size=4, draws=2)
    expected = jax.jit(lambda x: true.log_prob(variables, x, train=True))(images)
    assert np.std(expected) > 0.1
    chex.assert_trees_all_close(values[:, 0], np.stack([expected] * 2), rtol=1e-4)


def test_folds_that_cannot_be_are_refused(points):
    model, variables, x = points
    with pytest.raises(ValueError, match="folds must be >= 2, got 1"):
        mates_only(model, 1)
    with pytest.raises(ValueError, match="3 folds do not divide a batch of 4 images"):
        mates_only(model, 3).log_prob(variables, x, train=True)
