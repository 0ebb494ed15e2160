"""The contract of a score, for every score and every kind of model."""

import functools
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from jaxood import data, detector, metrics, nrm, parallel, scores
from jaxood.density import DensityModel
from jaxood.models.ensemble import ensemble
from jaxood.models.glow import Glow, glow
from jaxood.models.pixelcnn import pixelcnn
from jaxood.models.vae import vae
from jaxood.scores.score import names
from tests.helpers import initial, perturb

IMAGES = data.load("digits", "train")[0]
TRUSTED, CALIBRATION, X = IMAGES[:64], IMAGES[64:104], IMAGES[256:267]
"""Reference images, held-out trusted images, and eleven to judge."""
SHAPE = X.shape[1:]
LAYERS = [nrm.Layer(3, pool=(2, 2)), nrm.Layer(4, stride=2)]


class Case(NamedTuple):
    """A score of a model.

    Attributes:
        model: name of the model, a property of `Models`.
        build: ``(model, variables, *, batch_size) -> Score``.
        noise: whether draws of the score differ.
    """

    model: str
    build: Callable[..., scores.Score]
    noise: bool = True


DRAWS: Any = {"seed": 1, "draws": 2}
CASES = {
    "neg_log_prob": Case("flow", lambda m, v, **o: scores.neg_log_prob(m, v, **DRAWS, **o)),
    "neg_log_prob, VAE": Case("vae", lambda m, v, **o: scores.neg_log_prob(m, v, **DRAWS, **o)),
    "neg_log_prob, PixelCNN": Case(
        "pixelcnn", lambda m, v, **o: scores.neg_log_prob(m, v, **DRAWS, **o), noise=False
    ),
    "neg_log_prob, Glow": Case("glow", lambda m, v, **o: scores.neg_log_prob(m, v, **DRAWS, **o)),
    "t_perm": Case("flow", lambda m, v, **o: scores.t_perm(m, v, CALIBRATION, **DRAWS, **o)),
    "typicality": Case("flow", lambda m, v, **o: scores.typicality(m, v, TRUSTED, **DRAWS, **o)),
    "waic": Case("ensemble", lambda m, v, **o: scores.waic(m, v, **DRAWS, **o)),
    "batch_norm_delta": Case(
        "flow", lambda m, v, **o: scores.batch_norm_delta(m, v, TRUSTED, **DRAWS, **o)
    ),
    "batch_norm_rank": Case(
        "flow", lambda m, v, **o: scores.batch_norm_rank(m, v, TRUSTED, CALIBRATION, **DRAWS, **o)
    ),
    "glow_neg_log_pz": Case("glow", lambda m, v, **o: scores.glow_neg_log_pz(m, v, **DRAWS, **o)),
    "glow_neg_log_pz, all": Case(
        "glow", lambda m, v, **o: scores.glow_neg_log_pz(m, v, levels="all", **DRAWS, **o)
    ),
    "nrm_latent": Case("nrm", scores.nrm_latent, noise=False),
    "nrm_reconstruction": Case(
        "nrm", lambda m, v, **o: scores.nrm_reconstruction(m, v, layer=1, **o), noise=False
    ),
    "nrm_neg_log_prob": Case("nrm", scores.nrm_neg_log_prob, noise=False),
    "nrm_latent_per_energy": Case("nrm", scores.nrm_latent_per_energy, noise=False),
    "nrm_latent_two_sided": Case(
        "nrm", lambda m, v, **o: scores.nrm_latent_two_sided(m, v, TRUSTED, **o), noise=False
    ),
    "nrm_latent_class_centred": Case(
        "nrm", lambda m, v, **o: scores.nrm_latent_class_centred(m, v, TRUSTED, **o), noise=False
    ),
    "nrm_profile": Case(
        "nrm", lambda m, v, **o: scores.nrm_profile(m, v, TRUSTED, **o), noise=False
    ),
    "nrm_switches": Case(
        "nrm", lambda m, v, **o: scores.nrm_switches(m, v, TRUSTED, **o), noise=False
    ),
    "nrm_latent, no BatchNorm": Case("nrm_bias", scores.nrm_latent, noise=False),
    "nrm_neg_log_prob, no BatchNorm": Case("nrm_bias", scores.nrm_neg_log_prob, noise=False),
}
every_score = pytest.mark.parametrize("case", CASES)


class Models:
    """Tiny models and their variables, away from initialization."""

    def __init__(self, flow):
        self.flow = flow.model, flow.variables

    @functools.cached_property
    def vae(self):
        return _perturbed(vae(SHAPE, width=2, latent=2))

    @functools.cached_property
    def pixelcnn(self):
        return _perturbed(pixelcnn(SHAPE, width=2, depth=1, mixtures=2, levels=1))

    @functools.cached_property
    def glow(self):
        return _perturbed(glow(SHAPE, levels=2, depth=1, width=4))

    @functools.cached_property
    def nrm(self):
        return _perturbed(nrm.nrm(SHAPE, LAYERS, classes=3, batch_norm=True))

    @functools.cached_property
    def nrm_bias(self):
        return _perturbed(nrm.nrm(SHAPE, LAYERS, classes=3))

    @functools.cached_property
    def ensemble(self):
        member: Any = glow(SHAPE, levels=1, depth=1, width=2)
        return _perturbed(ensemble(member, 2))


def _perturbed(model):
    return model, perturb(initial(model.init, TRUSTED))


class Made(NamedTuple):
    """Scores of tiny models, and their values for the images to judge, each made once.

    Attributes:
        score: ``(case, devices=1, batch_size=8) -> Score``.
        values: ``case -> (n,)``.
    """

    score: Callable[..., scores.Score]
    values: Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def made(flow):
    models = Models(flow)

    @functools.cache
    def score(case, devices=1, batch_size=8):
        model, variables = getattr(models, CASES[case].model)
        variables = parallel.replicate(variables, parallel.mesh(devices))
        return CASES[case].build(model, variables, batch_size=batch_size)

    return Made(score, functools.cache(lambda case: score(case)(X)))


def test_every_score_is_here():
    assert {case.partition(",")[0] for case in CASES} == set(names())
    for name in names():
        assert name in scores.__all__ and callable(getattr(scores, name))


@every_score
def test_values_are_float32_one_an_image(case, made):
    values = made.values(case)
    assert values.dtype == np.float32 and values.shape == (len(X),)
    assert np.isfinite(values).all() and len(np.unique(values)) > 3
    assert made.score(case).name == case.partition(",")[0]


@every_score
def test_batch_companions_matter_where_the_score_says_so(case, made):
    """An image's score is the same to the bit, or the score says that it is a batch score."""
    score, values = made.score(case), made.values(case)
    order = np.random.default_rng(0).permutation(len(X))
    among_others = score(np.concatenate([255 - X[:5], X]))[5:]
    if not score.per_image:
        assert np.any(among_others != values) and np.any(score(X[order]) != values[order])
        return
    np.testing.assert_array_equal(among_others, values)
    np.testing.assert_array_equal(score(X[order]), values[order])
    np.testing.assert_array_equal(np.concatenate([score(X[:4]), score(X[4:])]), values)
    np.testing.assert_array_equal(score(X[3:4]), values[3:4])
    np.testing.assert_array_equal(made.score(case, batch_size=5)(X), values)


@every_score
def test_devices_matter_up_to_rounding(case, made):
    values = made.values(case)
    found = made.score(case, devices=8)(X)
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    np.testing.assert_array_equal(made.score(case)(jax.device_put(X)), values)


@every_score
def test_an_estimate_has_standard_errors(case, made):
    """They are 0 where the score draws nothing."""
    mean, stderr = made.score(case).estimate(X)
    np.testing.assert_array_equal(mean, made.values(case))
    assert stderr.dtype == np.float32 and stderr.shape == (len(X),)
    assert np.all(stderr >= 0) and np.any(stderr > 0) == CASES[case].noise


@every_score
def test_what_is_no_set_of_images_is_refused(case, made):
    score = made.score(case)
    with pytest.raises(TypeError, match="must be uint8 with levels 0 to 255, got float32"):
        score(X.astype(np.float32))
    with pytest.raises(ValueError, match=r"must have the shape \(n, h, w, c\), got \(8, 8, 1\)"):
        score(X[0])
    if score.per_image:
        assert score(X[:0]).shape == (0,) and score(X[:0]).dtype == np.float32
        return
    with pytest.raises(ValueError, match=r"^0 images to judge .* give both$"):
        score(X[:0])
    with pytest.raises(ValueError, match=r"^at r = .* 7 different test images, but there are 6: "):
        score(X[:6])


@every_score
def test_it_goes_into_a_detector(case, made):
    score = made.score(case)
    size = None if score.per_image else 10
    fitted = detector.fit(score, CALIBRATION, set_size=size)
    null = score(CALIBRATION) if score.per_image else fitted.null
    np.testing.assert_array_equal(fitted.null, np.sort(null))
    values, p_values = detector.judge(fitted, X[:10])
    np.testing.assert_array_equal(values, score(X[:10]))
    wanted = values if score.per_image else np.full(10, values.mean(dtype=np.float64))
    at_least = (null[:, None] >= wanted.astype(np.float32)).sum(0)
    np.testing.assert_allclose(p_values, (1 + at_least) / (len(null) + 1))


@every_score
def test_it_is_plain_data_and_is_rebuilt_from_it_to_the_bit(case, made):
    score = made.score(case)
    header, arrays = scores.to_plain(score)
    file: Any = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    file.seek(0)
    rebuilt = scores.from_plain(json.loads(json.dumps(header)), np.load(file))
    np.testing.assert_array_equal(rebuilt(X), made.values(case))
    assert scores.to_plain(rebuilt)[0] == header and rebuilt.options == score.options
    assert rebuilt.model is not score.model
    assert rebuilt.model.spec == score.model.spec and hash(rebuilt.model) and hash(score)
    assert all(type(value) in (int, float, str, bool) for value in score.options.values())


# ------------------------------------------------------------------------------------------- signs


def centred(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
    """A normal law of an image's mean, around 100 or, in training mode, around the batch's mean."""
    level = x.astype(jnp.float32).mean((1, 2, 3))
    return norm.logpdf(level, level.mean() if train else 100.0, variables.get("std", 10.0))


def constant(rng, low, high, n=64):
    """Images of one level each."""
    return np.broadcast_to(rng.integers(low, high, (n, 1, 1, 1), np.uint8), (n, 4, 4, 1))


CENTRED: Any = DensityModel(lambda key, x: {}, centred, lambda *_, **__: jnp.zeros(0))
CENTRED_GLOW = Glow(
    CENTRED.init, CENTRED.log_prob, CENTRED.sample, lambda v, x, key=None: centred(v, x)[:, None]
)
MEMBERS = {"std": jnp.array([5.0, 20.0])}

WINDOW = nrm.nrm((4, 4, 1), [nrm.Layer(5, kernel=1)], classes=1)
"""Two units are on above level 70 and two below 153, so all four for trusted images alone, which
then have likelier latents and, h(0) being near 0, are rendered better; a fifth is on above 100."""
KERNEL, BIAS = np.array([1, 1, -1, -1, 1e-2]), np.array([0.45, 0.45, 0.2, 0.2, 2e-3])
WINDOW_WEIGHTS = {
    "params": {
        "layer_1": {"kernel": jnp.float32(KERNEL[None, None, None]), "bias": jnp.float32(BIAS)},
        "dense": {"kernel": jnp.full((5, 1), 24.0), "bias": jnp.zeros(1)},
    }
}
SIGNS = {
    "neg_log_prob": lambda trusted, held_out: scores.neg_log_prob(CENTRED, {}),
    "t_perm": lambda trusted, held_out: scores.t_perm(CENTRED, {}, held_out),
    "typicality": lambda trusted, held_out: scores.typicality(CENTRED, {}, trusted),
    "waic": lambda trusted, held_out: scores.waic(ensemble(CENTRED, 2), MEMBERS),
    "batch_norm_delta": lambda trusted, held_out: scores.batch_norm_delta(CENTRED, {}, trusted),
    "batch_norm_rank": lambda trusted, held_out: scores.batch_norm_rank(
        CENTRED, {}, trusted, held_out
    ),
    "glow_neg_log_pz": lambda trusted, held_out: scores.glow_neg_log_pz(CENTRED_GLOW, {}),
    "nrm_latent": lambda trusted, held_out: scores.nrm_latent(WINDOW, WINDOW_WEIGHTS),
    "nrm_reconstruction": lambda trusted, held_out: scores.nrm_reconstruction(
        WINDOW, WINDOW_WEIGHTS, layer=0
    ),
    "nrm_neg_log_prob": lambda trusted, held_out: scores.nrm_neg_log_prob(WINDOW, WINDOW_WEIGHTS),
    "nrm_latent_per_energy": lambda trusted, held_out: scores.nrm_latent_per_energy(
        WINDOW, WINDOW_WEIGHTS
    ),
    **{
        name: lambda trusted, held_out, name=name: getattr(scores, name)(
            WINDOW, WINDOW_WEIGHTS, held_out
        )
        for name in (
            "nrm_latent_two_sided",
            "nrm_latent_class_centred",
            "nrm_profile",
            "nrm_switches",
        )
    },
}


def test_every_sign_is_here():
    assert SIGNS.keys() == set(names())


@pytest.mark.parametrize("name", SIGNS)
def test_higher_is_more_ood(name):
    """Trusted images have a mean near the model's; OOD images are brighter or darker."""
    rng = np.random.default_rng(0)
    trusted, held_out, fresh = (constant(rng, 90, 111) for _ in range(3))
    score = SIGNS[name](trusted, held_out)
    for ood in (constant(rng, 0, 50), constant(rng, 200, 256)):
        assert metrics.auroc(score(fresh), score(ood)) > 0.95


# ------------------------------------------------------------------------------ what is no score


def test_what_is_no_plain_data_is_refused():
    with pytest.raises(TypeError, match=r"option 'f' of waic is <function .* not plain data"):
        scores.Score("waic", options={"f": np.mean})
    with pytest.raises(TypeError, match="the array 'a' of waic is no array of numbers"):
        scores.Score("waic", arrays={"a": np.mean})
    with pytest.raises(ValueError, match="no score has the name 'brilliance'; there are "):
        scores.Score("brilliance")
    with pytest.raises(ValueError, match="scores with the name 'waic' already: choose another"):
        scores.scored("waic", per_image=True)(lambda score, images: np.zeros(0))


def test_a_score_that_cannot_be_written_says_why():
    with pytest.raises(ValueError, match="model of neg_log_prob does not say how it was built"):
        scores.to_plain(scores.neg_log_prob(CENTRED, {}))
    with pytest.raises(ValueError, match="hold no slash, but there is 'a/b'"):
        scores.to_plain(scores.Score("waic", arrays={"a/b": np.zeros(2)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, a: (h, dict(list(a.items())[1:])), r"missing are \['.*left over are \[\]"),
        (lambda h, a: (h, a | {"b": a["arrays/null"]}), r"missing are \[\], left over are \['b'\]"),
        (lambda h, a: (h | {"score": "brilliance"}, a), "no score has the name 'brilliance'"),
        (lambda h, a: (h | {"model": {"name": "os", "arguments": {}}}, a), "no builder has the"),
        (lambda h, a: (h | {"model": h["model"] | {"arguments": {"x": 1}}}, a), "arguments"),
        (lambda h, a: (h | {"model": "realnvp"}, a), "this is no header of a score"),
        (lambda h, a: (h | {"options": {"seed": [1]}}, a), "cannot be rebuilt: the option 'seed'"),
        (lambda h, a: (h | {"options": 3}, a), "this is no header of a score"),
        (lambda h, a: (h | {"arrays": ["a"]}, a), "this is no header of a score"),
        (lambda h, a: ({}, a), "this is no header of a score"),
        (lambda h, a: (h | {"more": 1}, a), "this is no header of a score"),
    ],
)
def test_damaged_data_is_refused_in_one_sentence(change, message, made):
    header, arrays = scores.to_plain(made.score("t_perm"))
    with pytest.raises(ValueError, match=message) as error:
        scores.from_plain(*change(header, arrays))
    assert "\n" not in str(error.value)


def test_types_that_a_device_does_not_have_are_kept():
    wide = np.array([1 / 3, 1e-300])
    header, arrays = scores.to_plain(scores.Score("waic", arrays={"wide": wide}))
    assert header["arrays"] == {"arrays/wide": "host"}
    header["arrays"]["arrays/wide"] = "device"  # of a process with double precision
    rebuilt = scores.from_plain(header, arrays)
    np.testing.assert_array_equal(rebuilt.arrays["wide"], wide)
    assert rebuilt.model is None and rebuilt.variables == {}


def test_rebuilt_scores_of_one_model_share_its_programs(made):
    one, other = (scores.from_plain(*scores.to_plain(made.score("t_perm"))) for _ in range(2))
    assert one.model is other.model and one.model is not made.score("t_perm").model
    assert isinstance(one.variables["params"], dict)
    leaves = jax.tree.leaves(one.variables)
    assert leaves and all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert isinstance(one.arrays["null"], np.ndarray)
