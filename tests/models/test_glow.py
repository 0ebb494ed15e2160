import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

from jaxood import data, scores, train
from jaxood.density import image_keys
from jaxood.models.glow import (
    ActNorm,
    Coupling,
    Flow,
    Step,
    glow,
)
from jaxood.nn.rotation import Invertible1x1, lu_rotations
from tests.helpers import perturb

SHAPE = (4, 4, 2)


@pytest.fixture(scope="module", params=[False, True], ids=["kernel", "lu"])
def flow(request):
    """Two levels of two steps, away from its start, with the original convolution."""
    flow: Any = Flow(2, 2, 4, request.param, nn.Conv, image_channels=SHAPE[-1])
    x = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)
    initial = jax.jit(flow.init)(jax.random.key(0), x)
    return flow, initial, perturb(initial), x


def test_inverse_undoes_forward(flow):
    flow, _, variables, x = flow
    latents, *densities = jax.jit(flow.apply)(variables, x)
    chex.assert_shape(latents, [(6, 2, 2, 4), (6, 1, 1, 16)])
    back, *same = jax.jit(functools.partial(flow.apply, inverse=True))(variables, latents)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-4)
    # The log-determinant and the densities are those of the forward map in this direction, too.
    chex.assert_trees_all_close(same, densities, rtol=1e-4, atol=1e-3)


def test_log_likelihood_is_a_change_of_variables(flow, float64):
    """The oracle is the Jacobian of the map from an image to all its standard normal latents."""
    flow, _, variables, x = flow
    variables, x = jax.tree.map(np.float64, (variables, x))

    def one(x):
        latents, log_pz, log_det = flow.apply(variables, x[None])
        flat = jnp.concatenate([z.ravel() for z in latents])
        return flat, (flat, log_pz[0], log_det[0])

    jacobian, (z, log_pz, log_det) = jax.jit(jax.vmap(jax.jacfwd(one, has_aux=True)))(x)
    assert jacobian.dtype == np.float64
    d = x[0].size
    true = np.linalg.slogdet(np.reshape(jacobian, (len(x), d, d))).logabsdet
    assert np.abs(true).min() > 0.01
    found = log_pz.sum(1) + log_det
    np.testing.assert_allclose(found, norm.logpdf(z).sum(1) + true, rtol=0, atol=1e-8)
    # The first level's share of it is of the latents that leave there.
    assert np.abs(log_pz - log_pz.mean(0)).min() > 1e-4


def test_activations_start_normalized():
    """The first batch gives every activation normalization its shift and scale."""
    step: Any = Step(4, nn.Conv)
    x = 3 + 5 * np.random.default_rng(0).normal(size=(64, *SHAPE)).astype(np.float32)

    def is_norm(module, _):
        return isinstance(module, ActNorm)

    _, variables = step.init_with_output(
        jax.random.key(0), x, capture_intermediates=is_norm, mutable=True
    )
    outputs = [leaf for leaf in jax.tree.leaves(variables["intermediates"]) if leaf.ndim == 4]
    assert len(outputs) == 3
    for y in outputs:
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-4)


def test_the_convolution_starts_as_a_rotation_in_either_form(flow):
    flow, initial, _, _ = flow
    mix = initial["params"]["steps_1"]["step"]["mix"]
    if flow.lu:
        diagonal = np.diagonal(mix["lu"], axis1=1, axis2=2)
        np.testing.assert_allclose(diagonal.sum(1), 0, atol=1e-5)  # log |det|
    else:
        both = mix["kernel"] @ mix["kernel"].transpose(0, 2, 1)
        np.testing.assert_allclose(both, np.broadcast_to(np.eye(16), both.shape), atol=1e-5)
        assert np.abs(mix["kernel"][0] - mix["kernel"][1]).max() > 0.1


def test_a_coupling_starts_close_to_the_identity():
    """It scales what it changes by sigmoid(2), as in the authors' code, and shifts nothing."""
    coupling: Any = Coupling(4, nn.Conv)
    x = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    (y, log_det), _ = jax.jit(coupling.init_with_output)(jax.random.key(0), x)
    start = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(y, x * [1, start], rtol=1e-5)  # one channel kept, one changed
    np.testing.assert_allclose(log_det, 16 * np.log(start), rtol=1e-5)


def test_lu_gives_back_the_rotation():
    rotation = tuple(part[0] for part in lu_rotations(3, 8, seed=1))
    layer: Any = Invertible1x1()
    x = np.eye(8, dtype=np.float32)[None, None]
    out: Any = layer.init_with_output(jax.random.key(0), x, rotation)[0]
    weight, log_det = np.asarray(out[0]), out[1]
    np.testing.assert_allclose(weight[0, 0] @ weight[0, 0].T, np.eye(8), atol=1e-5)
    assert log_det == pytest.approx(0, abs=1e-4)


def test_parameters_are_those_of_the_authors_but_for_a_kernel_that_never_learns():
    """Kingma and Dhariwal's CIFAR-10 model, counted by hand."""
    steps = 0
    for c in (12, 24, 48):
        norm, mix = 2 * c, c * c
        first, second = 9 * (c // 2) * 512 + 2 * 512, 512 * 512 + 2 * 512
        last = 9 * 512 * c + c + c
        steps += 32 * (norm + mix + first + second + last)
    priors = sum(9 * c * 2 * c + 2 * c + 2 * c for c in (6, 12)) + 2 * 48
    model = glow((32, 32, 3))
    x = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    count = sum(p.size for p in jax.tree.leaves(shapes))
    assert count == steps + priors == 44_052_816
    assert 44.1e6 < count + 9 * 96 * 96 < 44.3e6  # their last prior: a convolution over zeros


def test_depth_costs_no_compilation():
    def equations(depth):
        model = glow((8, 8, 1), levels=1, depth=depth, width=4)
        x = jnp.zeros((2, 8, 8, 1), jnp.uint8)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return str(jax.make_jaxpr(model.log_prob)(variables, x)).count("\n")

    assert equations(2) == equations(20)


@pytest.fixture(scope="module")
def trained():
    """A little Glow after 30 steps on digits, and 20 held-out digits."""
    images, held_out = (data.load("digits", split)[0] for split in ("train", "test"))
    model = glow((8, 8, 1), levels=2, depth=2, width=16)
    state = train.fit(
        train.neg_log_prob_loss(model),
        model.init(jax.random.key(0), images[:64]),
        images,
        steps=30,
        optimizer=optax.adam(5e-3),
        show_progress=False,
    )
    return model, state, held_out[:20]


@pytest.fixture(scope="module")
def log_prob(trained):
    """Score 20 images without noise, under the trained model."""
    return functools.partial(jax.jit(trained[0].log_prob), trained[1].variables)


def test_training_raises_the_likelihood(trained, log_prob):
    """It rises from -366 to -334 nats, and held-out digits are as likely as training digits."""
    _, state, x = trained
    losses = np.asarray(state.losses)
    assert losses[-5:].mean() < losses[:5].mean() - 20
    assert -log_prob(x).mean() == pytest.approx(losses[-5:].mean(), abs=10)


def test_log_prob_is_of_the_dequantized_levels(trained, log_prob):
    """Level k of a pixel is (k + 1/2) / 256 - 1/2 in the flow, a unit of it 1/256 wide."""
    _, state, x = trained
    flow: Any = Flow(2, 2, 16, False, image_channels=1)
    centres = (x.astype(np.float32) + 0.5) / 256 - 0.5
    _, log_pz, log_det = jax.jit(flow.apply)(state.variables, centres)
    expected = np.sum(log_pz, 1) + log_det - 64 * np.log(256)
    np.testing.assert_allclose(log_prob(x), expected, rtol=1e-5)


def test_scores(trained, log_prob):
    """Signs, readings, and that an image's score knows nothing of its batch mates."""
    model, state, x = trained
    variables = state.variables
    last = scores.glow_neg_log_pz(model, variables, batch_size=8)(x)
    whole = scores.glow_neg_log_pz(model, variables, levels="all", batch_size=8)(x)
    alone = scores.glow_neg_log_pz(model, variables, batch_size=8)(x[3:4])
    np.testing.assert_array_equal(alone, last[3:4])
    # An image's noise is that of the first draw.
    keys = image_keys(jax.random.fold_in(jax.random.key(0), 0), x)
    by_level = jax.jit(model.log_pz)(variables, x, key=keys)
    assert by_level.shape == (20, 2)
    np.testing.assert_allclose(last, -by_level[:, 1], rtol=1e-5)
    np.testing.assert_allclose(whole, -by_level.sum(1), rtol=1e-5)
    # Noise, which no digit is, scores higher, each of it: higher = more OOD.
    noise = np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8)
    worse = scores.glow_neg_log_pz(model, variables, batch_size=8)(noise)
    assert worse.min() > last.max()
    assert scores.neg_log_prob(model, variables)(noise).min() > -log_prob(x).min()


def test_samples_follow_the_temperature(trained, log_prob):
    model, state, x = trained
    draw = jax.jit(functools.partial(model.sample, n=20))
    cold = draw(state.variables, jax.random.key(1), temperature=0.0)
    warm = draw(state.variables, jax.random.key(1))
    assert warm.dtype == np.uint8 and warm.shape == (20, 8, 8, 1)
    assert (cold == cold[0]).all() and not (warm == warm[0]).all()
    # The mode is likelier than any sample, and samples are as likely as digits, 3 nats apart.
    assert log_prob(cold).min() > log_prob(warm).max()
    assert log_prob(warm).mean() == pytest.approx(log_prob(x).mean(), abs=15)


def test_images_that_cannot_be_halved():
    with pytest.raises(ValueError, match="multiple of 8"):
        glow((28, 28, 1))
