"""A recipe is plain data, from which the same model is trained by the same program."""

import dataclasses
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood import data, integrity, nrm, parallel, train
from jaxood.density import DensityModel, builder, dequantize
from jaxood.nn import batch_norm
from jaxood.train import Recipe, loop

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 1), dtype=np.uint8)
LABELS = np.arange(40) % 3


class Net(nn.Module):
    """A layer between two normalizations: running statistics depend on parameters."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x, train):
        for _ in range(self.depth):
            x = nn.Dense(self.width)(x)
            x = batch_norm.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(1)(x)


@builder
def tiny_model(image_shape, *, width=2, depth=1, slope=1.0):
    """A normal density around the output of a small network."""
    net = Net(width, depth)

    def init(key, x):
        return net.init(key, jnp.zeros((1, *image_shape)), train=False)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        y = slope * dequantize(key, x) / 256
        z, updates = net.apply(variables, y, train=train, mutable=["batch_stats"])
        result = -0.5 * ((z - y) ** 2).sum((1, 2, 3))
        return (result, updates["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, lambda *_, **__: jnp.zeros(0))


@builder
def tiny_nrm(image_shape, *, width, classes, template=0.0):
    """A neural rendering model of two layers."""
    layers = [nrm.Layer(width), nrm.Layer(2 * width, stride=2)]
    return nrm.nrm(image_shape, layers, classes=classes, template=template)


RECIPE = Recipe(
    model="tiny_model",
    width=3,
    depth=2,
    options={"slope": 2.0},
    steps=6,
    batch_size=8,
    average_decay=0.5,
    statistics_images=24,
)
NRM = Recipe(
    model="tiny_nrm",
    width=2,
    options={"template": 1.0},
    steps=3,
    batch_size=8,
    optimizer="muon",
    schedule="cosine",
    learning_rate=0.02,
    loss_weights=nrm.LossWeights(),
)


def run(recipe, seed=0, directory=None, labels=None):
    return recipe.train(
        IMAGES, labels, seed=seed, directory=directory, devices=1, show_progress=False
    )


@pytest.fixture(scope="module")
def trained():
    return run(RECIPE)


def test_the_model_is_built_by_the_builder_of_that_name_with_these_arguments(trained):
    model = tiny_model((9, 9, 1), width=3, depth=2, slope=2.0)
    assert trained.model.spec == model.spec == RECIPE.build((9, 9, 1)).spec
    assert trained.parameters == (1 * 3 + 3) + 3 * 2 + (3 * 3 + 3) + 3 * 2 + (3 + 1)
    variables = trained.variables
    np.testing.assert_array_equal(
        trained.model.log_prob(variables, IMAGES), model.log_prob(variables, IMAGES)
    )


def test_the_training_is_that_of_the_loop_with_statistics_of_the_averaged_parameters(trained):
    """The parts of the training, put together by hand."""
    model = tiny_model((9, 9, 1), width=3, depth=2, slope=2.0)
    mesh = parallel.mesh(1)
    state = train.fit(
        train.neg_log_prob_loss(model),
        parallel.replicate(model.init(jax.random.key(0), IMAGES), mesh),
        IMAGES,
        steps=6,
        batch_size=8,
        optimizer=optax.adam(1e-3),
        average_decay=0.5,
        show_progress=False,
    )
    chosen = np.random.default_rng(0).permutation(IMAGES)[:24]
    given = {"params": state.average, "batch_stats": state.batch_stats}
    stats = train.population_statistics(model, given, chosen, batch_size=8, show_progress=False)
    chex.assert_trees_all_equal(trained.variables, {"params": state.average, "batch_stats": stats})
    np.testing.assert_array_equal(trained.losses, state.losses)
    # Statistics of the parameters that were not averaged would differ.
    raw = train.population_statistics(
        model, given | {"params": state.params}, chosen, batch_size=8, show_progress=False
    )
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(jax.tree.leaves(raw), jax.tree.leaves(stats), strict=True)
    )


def test_a_training_with_a_folder_is_the_same_and_is_loaded_from_it(trained, tmp_path):
    first = run(RECIPE, directory=tmp_path)
    again = run(RECIPE, directory=str(tmp_path))
    for made in (first, again):
        chex.assert_trees_all_equal(made.variables, trained.variables)
        np.testing.assert_array_equal(made.losses, trained.losses)
    assert again.seconds == pytest.approx(first.seconds) and first.seconds > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 4},
        {"options": {"slope": 1.0}},
        {"steps": 7},
        {"batch_size": 4},
        {"learning_rate": 2e-3},
        {"warmup": 1},
        {"schedule": "cosine"},
        {"optimizer": "muon"},
        {"average_decay": 0.0},
        {"statistics_images": None},
    ],
    ids=str,
)
def test_a_folder_belongs_to_one_recipe(changes, tmp_path_factory, trained):
    folder = tmp_path_factory.getbasetemp() / "one_recipe"
    run(RECIPE, directory=folder)
    with pytest.raises(integrity.Changed, match=next(iter(changes))):
        run(dataclasses.replace(RECIPE, **changes), directory=folder)


def test_a_recipe_is_written_as_json_and_read_again():
    for recipe in (RECIPE, NRM):
        values = json.loads(json.dumps(dataclasses.asdict(recipe)))
        if values["loss_weights"] is not None:
            values["loss_weights"] = nrm.LossWeights(*values["loss_weights"])
        assert Recipe(**values) == recipe
        assert hash(Recipe(**values)) == hash(recipe)


def test_seeds_share_one_program(trained):
    before = loop._train_program.cache_info().misses
    other = run(RECIPE, seed=1)
    assert loop._train_program.cache_info().misses == before
    assert other.model is trained.model
    assert np.all(other.losses != trained.losses)


def test_members_of_an_ensemble_train_on_batches_of_their_own():
    recipe = dataclasses.replace(RECIPE, members=2, steps=3)
    made = run(recipe)
    assert made.model.spec.name == "ensemble"
    for leaf in jax.tree.leaves(made.variables):
        assert leaf.shape[0] == 2
        assert leaf.ndim == 1 or np.any(leaf[0] != leaf[1])
    assert made.parameters == 2 * run(RECIPE).parameters


def rates(optimizer, steps):
    """The size of each update where the gradient stays the same, as Adam makes it."""
    params = {"w": jnp.ones(3)}
    state, found = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state = update(params, state, params)
        found.append(-float(updates["w"][0]))
    return found


def test_a_learning_rate_rises_and_then_stays_or_falls():
    recipe = dataclasses.replace(RECIPE, steps=40, learning_rate=0.01)
    expected = {
        (None, "constant"): [0.01] * 40,
        (5, "constant"): [0.002 * min(i, 5) for i in range(40)],
        (None, "cosine"): [
            0.005 * i if i < 2 else 0.005 * (1 + np.cos(np.pi * (i - 2) / 38)) for i in range(40)
        ],
        (5, "cosine"): [
            0.002 * i if i < 5 else 0.005 * (1 + np.cos(np.pi * (i - 5) / 35)) for i in range(40)
        ],
    }
    for (warmup, schedule), want in expected.items():
        changed = dataclasses.replace(recipe, warmup=warmup, schedule=schedule)
        np.testing.assert_allclose(rates(changed.make_optimizer(), 40), want, rtol=1e-4, atol=1e-8)


# ----------------------------------------------------------------------- neural rendering models


def test_an_nrm_is_trained_by_the_loop_on_its_loss_with_as_many_labels_as_asked_for():
    """The labels that the seed hides, put together by hand."""
    recipe = dataclasses.replace(NRM, labelled=0.5, temperature=2.0, augment=True)
    made = run(recipe, seed=3, labels=LABELS)
    model = tiny_nrm((9, 9, 1), width=2, template=1.0, classes=3)
    assert made.model.spec == model.spec
    hidden = np.random.default_rng(3).random(40) >= 0.5
    state = train.fit(
        nrm.loss(model, nrm.LossWeights(), temperature=2.0, augment=data.crop_and_flip),
        parallel.replicate(model.init(jax.random.key(3), IMAGES), parallel.mesh(1)),
        (IMAGES, np.where(hidden, -1, LABELS).astype(np.int32)),
        steps=3,
        batch_size=8,
        optimizer=train.optimizers.muon(3, 0.02),
        seed=3,
        show_progress=False,
    )
    chex.assert_trees_all_equal(made.variables["params"], state.average)
    np.testing.assert_array_equal(made.losses, state.losses)


def test_an_nrm_without_labels_and_images_that_fill_no_batch_are_refused():
    with pytest.raises(train.Unsuitable, match="is trained on labelled images"):
        run(NRM)
    with pytest.raises(train.Unsuitable, match="40 images do not fill one batch of 64"):
        run(dataclasses.replace(RECIPE, batch_size=64))
    with pytest.raises(train.Unsuitable, match=r"batches of 9 images cannot .* among 2 devices"):
        dataclasses.replace(RECIPE, batch_size=9).train(IMAGES, seed=0, directory=None, devices=2)
