import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood import metrics, scores, train
from jaxood.density import DensityModel, dequantize
from jaxood.models.ensemble import ensemble
from jaxood.train.losses import ensemble_loss

MEMBERS = 3


def gaussian_log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
    y = dequantize(key, x) / 256
    result = -0.5 * ((y - variables["params"]["centre"]) ** 2).sum((1, 2, 3))
    return (result, {}) if mutable else result


GAUSSIAN = DensityModel(
    lambda key, x: {"params": {"centre": jax.random.normal(key, x.shape[1:])}},
    gaussian_log_prob,
    lambda variables, key, n, *, temperature=1.0: jnp.round(variables["params"]["centre"]),
)
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 2, 2, 1), dtype=np.uint8)


def member(tree, i):
    return jax.tree.map(lambda a: a[i], tree)


# --------------------------------------------------------------------------------------- the score


def test_waic_by_hand():
    # Means -2 and -5, variances 1 and 4.
    result = scores.statistics.waic(np.array([[-1.0, -3.0], [-3.0, -7.0]]))
    np.testing.assert_array_equal(result, [3, 9])
    assert result.dtype == np.float32


def test_waic_is_higher_where_likelihood_is_low_and_where_members_disagree():
    rng = np.random.default_rng(1)
    typical = rng.normal(-100, 1, (5, 200))
    unlikely = typical - 20
    disputed = typical + rng.normal(0, 20, (5, 200))
    for other in (unlikely, disputed):
        assert metrics.auroc(scores.statistics.waic(typical), scores.statistics.waic(other)) > 0.95


def test_waic_of_one_model_is_refused():
    with pytest.raises(ValueError, match="train two or more"):
        scores.statistics.waic(np.zeros((1, 4)))


# ------------------------------------------------------------------------------------ the ensemble


def test_members_are_seeded_independently():
    variables = ensemble(GAUSSIAN, MEMBERS).init(jax.random.key(0), IMAGES)
    centres = np.asarray(variables["params"]["centre"])
    assert centres.shape == (MEMBERS, 2, 2, 1)
    assert len(np.unique(centres)) == centres.size


def test_each_member_scores_as_it_would_alone(flow):
    """All three modes, the same noise for all members, and the moments of each."""
    model = ensemble(flow.model, MEMBERS)
    variables = jax.tree.map(
        lambda a: np.stack([a * (1 + 0.1 * i) for i in range(MEMBERS)]), flow.variables
    )
    x, key = flow.images[:8], jax.random.key(3)

    @jax.jit
    def modes(variables, x):
        train = model.log_prob(variables, x, train=True, key=key, mutable=["batch_stats"])
        return model.log_prob(variables, x, key=key), train

    @jax.jit
    def alone(variables, x):
        train = flow.model.log_prob(variables, x, train=True, key=key, mutable=["batch_stats"])
        return flow.model.log_prob(variables, x, key=key), train

    together = modes(variables, x)
    assert together[0].shape == (MEMBERS, 8)
    for i in range(MEMBERS):
        chex.assert_trees_all_close(
            member(together, i), alone(member(variables, i), x), rtol=2e-4, atol=1e-4
        )


def test_scoring_keeps_the_members_apart():
    model = ensemble(GAUSSIAN, MEMBERS)
    variables = model.init(jax.random.key(0), IMAGES)
    result = scores.log_prob(model, variables, IMAGES[:11], batch_size=4, draws=2)
    assert result.shape == (MEMBERS, 11)
    for i in range(MEMBERS):
        alone = scores.log_prob(GAUSSIAN, member(variables, i), IMAGES[:11], batch_size=4, draws=2)
        np.testing.assert_allclose(result[i], alone, rtol=1e-6)


def test_each_member_trains_as_it_would_alone():
    """Its own images, its own noise, and the gradient of its own loss; the loss is the mean."""
    model = ensemble(GAUSSIAN, MEMBERS)
    variables = model.init(jax.random.key(0), IMAGES)
    key = jax.random.key(5)
    together = jax.value_and_grad(ensemble_loss(GAUSSIAN), has_aux=True)
    (loss, _), gradient = together(variables, IMAGES[:12], key)
    losses = []
    for i, key_i in enumerate(jax.random.split(key, MEMBERS)):
        alone = jax.value_and_grad(train.neg_log_prob_loss(GAUSSIAN), has_aux=True)
        (loss_i, _), gradient_i = alone(member(variables, i), IMAGES[i:12:MEMBERS], key_i)
        chex.assert_trees_all_close(member(gradient, i), gradient_i, rtol=1e-6)
        losses.append(loss_i)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-6)


def test_an_ensemble_is_trained_by_the_one_training_loop():
    model = ensemble(GAUSSIAN, MEMBERS)
    state = train.fit(
        ensemble_loss(GAUSSIAN),
        model.init(jax.random.key(0), IMAGES),
        IMAGES,
        steps=200,
        batch_size=MEMBERS * 16,
        optimizer=optax.adam(0.1),
        show_progress=False,
    )
    mean = (IMAGES.astype(float) + 0.5).mean(0) / 256
    centres = np.asarray(state.params["centre"])
    np.testing.assert_allclose(centres, np.broadcast_to(mean, centres.shape), atol=0.1)


# -------------------------------------------------------------------------- averaged parameters


def test_average_is_the_exponential_average_with_a_short_memory_at_first():
    decay, rate, steps = 0.8, 0.5, 12
    loss = lambda variables, batch, key: (variables["params"]["w"] ** 2 / 2, {})  # noqa: E731
    state = train.fit(
        loss,
        {"params": {"w": jnp.float32(1)}},
        IMAGES,
        steps=steps,
        batch_size=4,
        optimizer=optax.sgd(rate),
        average_decay=decay,
        show_progress=False,
    )
    w = average = 1.0
    for step in range(steps):
        w *= 1 - rate
        keep = min(decay, (1 + step) / (10 + step))
        average = keep * average + (1 - keep) * w
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-6)
    np.testing.assert_allclose(state.average["w"], average, rtol=1e-6)
    assert state.variables["params"] is state.average


def test_without_averaging_the_average_is_the_parameters():
    state = train.fit(
        train.neg_log_prob_loss(GAUSSIAN),
        GAUSSIAN.init(jax.random.key(0), IMAGES),
        IMAGES,
        steps=3,
        batch_size=4,
        show_progress=False,
    )
    chex.assert_trees_all_equal(state.average, state.params)
