"""The contract of a density model, for every model: what its functions take, give and depend on."""

import functools
import json
import re
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest

from jaxood import nrm
from jaxood.density import Spec, build, image_keys
from jaxood.models.ensemble import ensemble
from jaxood.models.glow import glow
from jaxood.models.mates_only import mates_only
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.realnvp import realnvp
from jaxood.models.vae import vae
from jaxood.nn.batch_norm import BATCH_NORM_MOMENTUM
from jaxood.nn.batch_stats import move
from tests.helpers import perturb

SHAPE = (4, 4, 1)


class Case(NamedTuple):
    """A model and its place in the contract.

    Attributes:
        model: with ``init``, ``log_prob`` and, unless it is an `NRM`, ``sample``.
        shape: shape of its images.
        batch_norm: its images see their batch companions in training mode.
        own_moments: training mode equals evaluation mode with the moments of the batch.
        noise: it is evaluated at random points of an image.
        dropout: it has dropout.
        looks_at_images: ``init`` depends on the images, as its docstring says.
        levels_only: it refuses floating images.
        members: axes in front of the images'.
        gradient: its gradient compiles in seconds.
        idle: a parameter that ``log_prob`` does not depend on.
    """

    model: Any
    shape: tuple[int, int, int] = SHAPE
    batch_norm: bool = True
    own_moments: bool = True
    noise: bool = True
    dropout: bool = False
    looks_at_images: bool = False
    levels_only: bool = True
    members: tuple[int, ...] = ()
    gradient: bool = True
    idle: str = ""


REALNVP, EXACT = (realnvp(SHAPE, width=2, depth=1, jacobian=j) for j in ("usual", "exact"))
VAE = vae(SHAPE, width=4, latent=4)
PIXELCNN, WEIGHTED = (
    pixelcnn(SHAPE, width=2, depth=1, mixtures=1, levels=2, normalization=normalization)
    for normalization in ("batch", "weight")
)
GLOW = glow(SHAPE, levels=2, depth=2, width=2, lu=True)
CASES = {
    "realnvp": Case(REALNVP),
    "realnvp exact": Case(EXACT, own_moments=False, gradient=False),
    "vae": Case(VAE),
    "pixelcnn": Case(PIXELCNN, noise=False, dropout=True),
    "pixelcnn weight": Case(
        WEIGHTED, batch_norm=False, noise=False, dropout=True, looks_at_images=True
    ),
    "glow": Case(GLOW, batch_norm=False, looks_at_images=True),
    "mates_only realnvp": Case(mates_only(REALNVP), own_moments=False, gradient=False),
    "mates_only vae": Case(mates_only(VAE), own_moments=False),
    "ensemble vae": Case(ensemble(VAE, 2), members=(2,)),
    "nrm resnet": Case(
        nrm.resnet(SHAPE, classes=2, width=2, depth=1, batch_norm=True),
        noise=False,
        levels_only=False,
        idle="['dense']['bias']",
    ),
    "nrm all_cnn_c": Case(
        nrm.all_cnn_c((9, 9, 1), classes=2, width=2),
        shape=(9, 9, 1),
        batch_norm=False,
        noise=False,
        levels_only=False,
    ),
}
N = 6
"""Images of a batch, of which the last two are the same."""


# Programs that are equal to the letter are compiled once: evaluation mode of a wrapped model is
# that of the model, and a model that was built again is the model.
_PROGRAMS = {}


def lower(f, *args):
    return jax.jit(f).lower(*args)


def takes(lowered, array):
    """Tell whether a program takes an array of this type; unused arguments are left out."""
    entry = re.search(r"func\.func public @main\((.*?)\) ->", lowered.as_text(), re.DOTALL)
    assert entry
    kind = {np.dtype(np.uint8): "ui8"}.get(array.dtype, "ui32")  # a key is made of two numbers
    return f"{kind}>" in entry[1]


def compiled(f, *args):
    lowered = lower(f, *args)
    program = lowered.as_text(), lowered.in_tree, lowered.out_tree
    if program not in _PROGRAMS:
        _PROGRAMS[program] = lowered.compile()
    return _PROGRAMS[program]


class Subject:
    """A model, away from its initial variables, and its programs.

    Attributes:
        case: its place in the contract.
        model: the model.
        shape: ``(h, w, c)``.
        x: uint8 ``(N, h, w, c)``.
        key: random key of an image's noise.
        keys: keys of the noise of ``x``.
        variables: random.
    """

    def __init__(self, case):
        self.case, self.model = case, case.model
        self.shape = case.shape
        rng = np.random.default_rng(0)
        self.x = rng.integers(0, 256, (N, *self.shape), dtype=np.uint8)
        self.x[-1] = self.x[-2]
        self.key = jax.random.key(1)
        self.keys = image_keys(self.key, self.x)
        shapes = jax.eval_shape(self.model.init, self.key, self.x)
        self.variables = perturb(jax.tree.map(lambda s: np.zeros(s.shape), shapes), scale=0.3)

    @functools.cached_property
    def evaluate(self):
        """``(variables, x, keys, key)`` to log-likelihoods: without a key, and with either kind."""

        def evaluate(variables, x, keys, key):
            log_prob = functools.partial(self.model.log_prob, variables, x)
            return log_prob(), log_prob(key=keys), log_prob(key=key)

        return compiled(evaluate, self.variables, self.x, self.keys, self.key)

    @functools.cached_property
    def train(self):
        """``(variables, x, keys)`` to log-likelihoods, running statistics, and a gradient."""

        def objective(params, variables, x, keys):
            log_prob, updates = self.model.log_prob(
                {**variables, "params": params}, x, train=True, key=keys, mutable=["batch_stats"]
            )
            return log_prob.sum(), (log_prob, updates)

        def train(variables, x, keys):
            args = variables["params"], variables, x, keys
            if not self.case.gradient:
                return *objective(*args)[1], None
            gradient, (log_prob, updates) = jax.grad(objective, has_aux=True)(*args)
            return log_prob, updates, gradient

        return compiled(train, self.variables, self.x, self.keys)

    @functools.cached_property
    def sample(self):
        """``(variables, key)`` to three images."""
        sample = functools.partial(self.model.sample, n=3)
        return compiled(sample, self.variables, self.key)

    @functools.cached_property
    def in_company(self):
        """``(x, keys)``: the first three images with other companions."""
        x = np.concatenate([self.x[:3], 255 - self.x[3:]])
        return x, image_keys(self.key, x)

    @functools.cached_property
    def evaluated(self):
        return self.evaluate(self.variables, self.x, self.keys, self.key)

    @functools.cached_property
    def trained(self):
        return self.train(self.variables, self.x, self.keys)


@pytest.fixture(scope="module", params=CASES)
def subject(request):
    return Subject(CASES[request.param])


def subjects(chosen):
    """The models to which a test applies."""
    names = [name for name, case in CASES.items() if chosen(case)]
    return pytest.mark.parametrize("subject", names, indirect=True, scope="module")


def log_probs(subject):
    """Log-likelihoods of all modes, by name."""
    centre, keyed, one_key = subject.evaluated
    return {"centre": centre, "keys": keyed, "one key": one_key, "training": subject.trained[0]}


# --------------------------------------------------------------------------------- log-likelihoods


def test_log_prob_is_a_finite_number_for_every_image(subject):
    for mode, values in log_probs(subject).items():
        assert values.shape == (*subject.case.members, N), mode
        assert values.dtype == np.float32, mode
        assert np.isfinite(values).all(), mode


def test_images_of_another_type_are_refused(subject):
    dtypes = [np.int32, np.bool_] + [np.float32] * subject.case.levels_only
    for dtype in dtypes:
        with pytest.raises(TypeError, match=f"images must be uint8.*got {np.dtype(dtype)}"):
            subject.model.log_prob(subject.variables, subject.x.astype(dtype))


def test_images_of_another_shape_are_refused(subject):
    h, w, c = subject.shape
    for shape in ((2 * h, w, c), (h, w, c + 2)):
        x = np.zeros((2, *shape), np.uint8)
        with pytest.raises(ValueError, match=rf"for images \({h}, {w}, {c}\), not \({shape[0]}, "):
            subject.model.log_prob(subject.variables, x)


def test_evaluation_mode_does_not_see_batch_companions(subject):
    """To the bit: neither who they are nor in which order they come."""
    others = subject.evaluate(subject.variables, *subject.in_company, subject.key)
    backwards = subject.evaluate(
        subject.variables, subject.x[::-1], subject.keys[::-1], subject.key
    )
    for mode in (0, 1):  # without a key, and with a key for each image
        values = subject.evaluated[mode]
        np.testing.assert_array_equal(others[mode][..., :3], values[..., :3])
        np.testing.assert_array_equal(backwards[mode][..., ::-1], values)


def test_training_mode_sees_batch_companions_where_there_is_batch_norm(subject):
    others, _, _ = subject.train(subject.variables, *subject.in_company)
    change = np.abs(others - subject.trained[0])[..., :3]
    assert change.min() > 1e-3 if subject.case.batch_norm else change.max() == 0


def test_noise_is_drawn_where_there_is_a_key(subject):
    """The last two images are the same: they differ by their noise alone."""
    centre, keyed, one_key = subject.evaluated
    _, other_keyed, other_key = subject.evaluate(
        subject.variables, subject.x, jax.random.split(jax.random.key(2), N), jax.random.key(3)
    )
    np.testing.assert_array_equal(centre[..., -1], centre[..., -2])
    np.testing.assert_array_equal(keyed[..., -1], keyed[..., -2])
    pairs = [(centre, keyed), (keyed, one_key), (keyed, other_keyed), (one_key, other_key)]
    pairs += [(one_key[..., -1], one_key[..., -2]), (other_keyed[..., -1], other_keyed[..., -2])]
    for one, other in pairs:
        if subject.case.noise:
            assert (one != other).all()
        else:
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_dropout_acts_only_where_its_key_is_given(subject):
    """The program takes a dropout key where the model has dropout; else it is left out."""

    def log_prob(variables, x, dropout_key):
        return subject.model.log_prob(variables, x, train=True, dropout_key=dropout_key)

    program = lower(log_prob, subject.variables, subject.x, subject.key)
    assert takes(program, subject.key) == subject.case.dropout


# -------------------------------------------------------------------------- statistics of a batch


def test_running_statistics_keep_their_form(subject):
    _, updates, _ = subject.trained
    assert bool(updates) == subject.case.batch_norm == ("batch_stats" in subject.variables)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, subject.variables.get("batch_stats", {}))
    chex.assert_tree_all_finite(updates)


@subjects(lambda case: case.batch_norm)
def test_training_mode_moves_the_running_statistics_and_does_not_use_them(subject):
    old = subject.variables["batch_stats"]
    blank = {**subject.variables, "batch_stats": jax.tree.map(np.zeros_like, old)}
    values, updates, _ = subject.train(blank, subject.x, subject.keys)
    train, moved, _ = subject.trained
    np.testing.assert_array_equal(values, train)
    moments = jax.tree.map(lambda leaf: leaf / (1 - BATCH_NORM_MOMENTUM), updates)
    chex.assert_trees_all_close(moved, move(old, moments), rtol=1e-5, atol=1e-6)
    if subject.case.own_moments:
        held = {**subject.variables, "batch_stats": moments}
        _, evaluated, _ = subject.evaluate(held, subject.x, subject.keys, subject.key)
        np.testing.assert_allclose(evaluated, train, rtol=1e-4)


# --------------------------------------------------------------------------------- transformations


@subjects(lambda case: case.gradient)
def test_every_parameter_has_a_finite_gradient(subject):
    _, _, gradient = subject.trained
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, subject.variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert leaf.any() == (name != subject.case.idle), name


def test_log_prob_is_batched_over_variables(subject):
    three = jax.tree.map(lambda leaf: np.stack([leaf] * 3), subject.variables)
    log_prob = functools.partial(subject.model.log_prob, x=subject.x)
    values = jax.eval_shape(jax.vmap(log_prob), three)
    assert values.shape == (3, *subject.case.members, N)


# ------------------------------------------------------------------------------ the other functions


def test_init_looks_at_the_shape_of_the_images_alone(subject):
    program = lower(subject.model.init, subject.key, subject.x)
    assert takes(program, subject.x) == subject.case.looks_at_images


@subjects(lambda case: hasattr(case.model, "sample"))
def test_samples_are_images_and_a_function_of_the_key(subject):
    x = np.asarray(subject.sample(subject.variables, subject.key))
    assert x.shape == (*subject.case.members, 3, *subject.shape)
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(subject.sample(subject.variables, subject.key), x)
    assert (subject.sample(subject.variables, jax.random.key(4)) != x).any()


def test_a_model_is_built_again_from_text(subject):
    text = json.dumps(subject.model.spec.to_json())
    again = build(Spec.from_json(json.loads(text)))
    assert again is not subject.model and again.spec == subject.model.spec
    for f, args in (
        ("init", (subject.key, subject.x)),
        ("log_prob", (subject.variables, subject.x)),
    ):
        one, other = (lower(getattr(model, f), *args) for model in (again, subject.model))
        assert one.as_text() == other.as_text()
        assert one.out_tree == other.out_tree
