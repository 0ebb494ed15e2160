"""The BatchNorm test as a whole: who shares a batch with whom, and that a trained flow shows it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxood import data, metrics, scores, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.models.realnvp import realnvp
from jaxood.scores.batch_norm import images_in_batch
from jaxood.scores.statistics import delta

# ------------------------------------------------------------------------------------ the pairing

RATIOS, BATCH, TRUSTED, DRAWS = (0.25, 0.75), 8, 23, 3
"""Batches of 2 and 6 companions, and of 6 and 2."""


def _roll_call(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
    """Count how often the image of one level is in the batch, for every image of the batch."""
    assert train and not mutable
    return jnp.full(len(x), jnp.sum(x[:, 0, 0, 0] == variables["level"]), jnp.float32)


ROLL_CALL = DensityModel(lambda key, x: {}, _roll_call, lambda *_, **__: jnp.zeros(0))


def test_no_batch_is_evaluated_that_only_fills_a_call():
    """One call takes eight batches; 3 images in batches of 2 make two of them, twice."""
    evaluated = []

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        jax.debug.callback(lambda: evaluated.append(None))
        return jnp.zeros(len(x))

    model = DensityModel(lambda key, x: {}, log_prob, lambda *_, **__: jnp.zeros(0))
    images = np.zeros((9, 2, 2, 1), np.uint8)
    found = scores.mixed_log_prob(model, {}, images[:3], images, (0.5,), batch_size=4, draws=2)
    jax.effects_barrier()
    assert found.shape == (2, 1, 3) and len(evaluated) == 4


class Batches(NamedTuple):
    """Who was in whose batch, as the model saw it.

    Attributes:
        mates: int ``(draws, ratios, n, n)``: how often image j is in the batch of image i.
        companions: int ``(draws, ratios, n, m)``: how often trusted image j is in it.
    """

    mates: np.ndarray
    companions: np.ndarray


@functools.cache
def batches(n):
    """Call the roll of n images and `TRUSTED` trusted ones, all told apart by their level."""
    # No level 0: an image of padding would answer to no name.
    levels = np.arange(1, n + TRUSTED + 1, dtype=np.uint8)
    x, trusted = np.split(np.broadcast_to(levels[:, None, None, None], (len(levels), 2, 2, 1)), [n])
    counts = [
        scores.mixed_log_prob(
            ROLL_CALL,
            {"level": np.uint8(level)},
            x,
            trusted,
            RATIOS,
            key=jax.random.key(4),
            batch_size=BATCH,
            draws=DRAWS,
        )
        for level in levels
    ]
    counts = np.stack(counts, axis=-1).astype(int)
    return Batches(counts[..., :n], counts[..., n:])


def groups(members):
    """The different rows of ``(n, k)`` as sets."""
    return {frozenset(np.flatnonzero(row)) for row in members}


@pytest.mark.parametrize("n", [12, 11])
def test_a_batch_holds_its_share_of_images_and_trusted_ones_and_nobody_twice(n):
    mates, companions = batches(n)
    for i, ratio in enumerate(RATIOS):
        size = images_in_batch(BATCH, ratio)
        # Together they are the whole batch: nothing in it is padding.
        np.testing.assert_array_equal(mates[:, i].sum(-1), size)
        np.testing.assert_array_equal(companions[:, i].sum(-1), BATCH - size)
    assert max(mates.max(), companions.max()) == 1
    # An image is judged in a batch that it is in itself.
    np.testing.assert_array_equal(np.diagonal(mates, axis1=-2, axis2=-1), 1)


def test_an_image_is_in_one_batch_a_draw():
    """Groups that come out even part the images, whoever's batch it is."""
    mates, _ = batches(12)
    np.testing.assert_array_equal(mates, mates.swapaxes(-1, -2))
    for draw in range(DRAWS):
        assert [len(groups(mates[draw, i])) for i in range(2)] == [6, 2]


def test_the_groups_of_all_ratios_are_cut_from_one_order():
    mates, _ = batches(12)
    small, large = mates[:, 0], mates[:, 1]
    assert (small <= large).all()  # a pair lies within one group of six
    # Draws have orders of their own.
    assert len({frozenset(groups(draw)) for draw in small}) == DRAWS


def test_the_trusted_companions_of_all_ratios_are_dealt_from_one_order():
    """The four companions of the groups of six are the first of those that the pairs get."""
    mates, companions = batches(12)
    firsts = set()
    for draw in range(DRAWS):
        dealt = groups(companions[draw, 1])
        first = frozenset().union(*dealt)
        assert len(dealt) == 2 and len(first) == 4
        meets_them = (companions[draw, 0][:, sorted(first)] == 1).all(1)
        assert meets_them.sum() == 2
        # They sit with the first pair of the order, whose six have the first two of them.
        i, j = np.flatnonzero(meets_them)
        assert mates[draw, 0, i, j] == mates[draw, 1, i, j] == 1
        firsts.add(first)
    assert len(firsts) == DRAWS


def test_no_companion_serves_twice_before_all_have_served():
    """Six pairs with six companions each: 36 places for 23 trusted images."""
    mates, companions = batches(12)
    for i in range(len(RATIOS)):
        for draw in range(DRAWS):
            # Each batch once: by the first of its images.
            _, first = np.unique(mates[draw, i], axis=0, return_index=True)
            services = companions[draw, i][first].sum(0)
            assert services.sum() == (36, 4)[i]
            assert np.ptp(services) <= 1


# ------------------------------------------------------------------------------- a trained model


class Judged(NamedTuple):
    """One set of held-out images under the trained flow, ``(n,)`` nats.

    Attributes:
        neg_log_prob: in evaluation mode.
        few: log-likelihoods at r = 0.1.
        many: log-likelihoods at r = 0.9.
        delta: the score.
    """

    neg_log_prob: np.ndarray
    few: np.ndarray
    many: np.ndarray
    delta: np.ndarray


@pytest.fixture(scope="module")
def judged():
    """A RealNVP of 8 channels and one block scores digits after 60 steps, 10 seconds."""
    images, _ = data.load("digits", "train")
    model = realnvp(images.shape[1:], width=8, depth=1)
    state = train.fit(
        train.neg_log_prob_loss(model),
        model.init(jax.random.key(0), images),
        images,
        steps=60,
        optimizer=optax.adam(5e-3),
        show_progress=False,
    )
    moments = train.population_statistics(model, state.variables, images, show_progress=False)
    variables = {**state.variables, "batch_stats": moments}

    def judge(x):
        options = {"key": jax.random.key(1), "draws": 1}
        mixed = scores.mixed_log_prob(model, variables, x, images, (0.1, 0.9), **options)
        neg_log_prob = -scores.log_prob(model, variables, x, key=jax.random.key(2))
        few, many = mixed[0]
        return Judged(neg_log_prob, few, many, delta(mixed[:, 0], mixed[:, 1]).mean)

    def held_out(name):
        return np.random.default_rng(0).permutation(data.load(name, "test")[0])

    trusted, n = held_out("digits"), 116  # two groups of the 58 that r = 0.9 is
    return {
        "trusted": judge(trusted[:n]),
        "control": judge(trusted[n : 2 * n]),
        "scaled_0.5": judge(held_out("digits/scaled_0.5")[:n]),
        "rotated": judge(held_out("digits/rotated")[:n]),
    }


def auroc(judged, name, score):
    return metrics.auroc(getattr(judged["trusted"], score), getattr(judged[name], score))


# The numbers in the next three tests are what these tests measured with seeds 0, 1 and 2 of the
# training. A first measurement of this kind, with twice the channels and 20 seconds of training,
# had 0.978 (Delta) and 0.749 (-log p) on scaled digits, and 0.989 (Delta) on rotated ones.


def test_delta_finds_the_dark_digits_that_the_likelihood_takes_for_its_own(judged):
    """0.95 to 0.99 against 0.45 to 0.52; with one ratio in place of two Delta would have 0.5."""
    assert auroc(judged, "scaled_0.5", "delta") > 0.9
    assert auroc(judged, "scaled_0.5", "neg_log_prob") < 0.7


def test_delta_finds_rotated_digits_and_no_others_of_the_trusted_kind(judged):
    """0.95 to 0.99; of images of the trusted kind 0.5, to 4 standard errors of 116 against 116."""
    assert auroc(judged, "rotated", "delta") > 0.9
    assert auroc(judged, "control", "delta") == pytest.approx(0.5, abs=0.15)


def test_the_modes_of_the_trained_flow_agree_on_trusted_images_and_part_on_others(judged):
    """5.93 to 5.97 bits per dimension; a flow whose masks never alternate stops at 6.32."""

    def bits(name):
        values = (-judged[name].neg_log_prob, judged[name].few, judged[name].many)
        return np.array([bits_per_dim(value.mean(), (8, 8, 1)) for value in values])

    np.testing.assert_allclose(bits("trusted"), bits("trusted")[0], rtol=0, atol=0.03)
    assert bits("trusted").max() < 6.12
    # Their own company makes the others unlikelier, by 0.05 to 0.4.
    for name in ("scaled_0.5", "rotated"):
        _, few, many = bits(name)
        assert many - few > 0.02
