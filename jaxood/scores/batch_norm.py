"""The BatchNorm test: an image's likelihood among its companions (BatchNorm paper, Section 5)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxood import parallel, progress
from jaxood.density import Array, HasLogProb, Variables, image_keys
from jaxood.scores import statistics
from jaxood.scores.likelihood import log_prob_draw
from jaxood.scores.score import Estimate, Score, check_set, scored

BATCHES_A_CALL = 8
"""Mixed batches in one call of the compiled program, or the next multiple of the devices."""


def images_in_batch(batch_size: int, ratio: float) -> int:
    """Return how many images of a mixed batch are judged: ``ratio * batch_size``, rounded, >= 1.

    At b = 64 these are 6 for r = 0.1 and 58 for r = 0.9.
    """
    return max(1, round(ratio * batch_size))


def mixed_log_prob(
    model: HasLogProb,
    variables: Variables,
    x: Array,
    reference: Array,
    ratios: Sequence[float],
    *,
    key: jax.Array | None = None,
    batch_size: int = 64,
    draws: int = 4,
    show_progress: bool = False,
) -> np.ndarray:
    """Compute training-mode log-likelihoods of images mixed into batches of trusted ones.

    BatchNorm paper, eq. 5 and 6. In a draw, the images ``x`` are shuffled and cut into groups of
    ``r b``; each group is filled up to ``b`` with reference images and evaluated in training mode.
    Draws are paired over the ratios: an image meets the same noise, the groups of all ratios are
    cut from the same shuffled order, and so are the reference images.

    These values depend on the other images in ``x``: an OOD image gives itself away among OOD
    images. Where the last group is short, it is filled up with images from the front of the order,
    never with padding, which would change the statistics.

    Args:
        model: a `DensityModel`.
        variables: variables of the model; each device that they lie on evaluates batches of its
            own.
        x: uint8 ``(n, h, w, c)``, the images to judge.
        reference: uint8 ``(m, h, w, c)``, trusted images, for instance the training set.
        ratios: the shares r of a batch that images to judge take, each in ``[0, 1]``; 0, the
            limit, is evaluation mode.
        key: random key of the shuffles and the noise, by default that of seed 0.
        batch_size: b.
        draws: Monte-Carlo draws.
        show_progress: draw a progress bar on stderr.

    Returns:
        float32 ``(draws, len(ratios), n)``, nats; the mean over draws is the paper's S_{b,r}.

    Raises:
        ValueError: if there are too few images in ``x`` or ``reference`` to fill a batch with
            different ones, or a ratio is out of range.
    """
    if not all(0 <= r <= 1 for r in ratios):
        raise ValueError(f"ratios must lie in [0, 1], got {tuple(ratios)}")
    sizes = [images_in_batch(batch_size, r) for r in ratios if r > 0]
    if len(x) == 0 or len(reference) == 0:
        raise ValueError(f"{len(x)} images to judge and {len(reference)} trusted ones: give both")
    if sizes and len(x) < max(sizes):
        raise ValueError(
            f"at r = {max(ratios)} and b = {batch_size} a batch holds {max(sizes)} different test "
            f"images, but there are {len(x)}: give more images, or lower the batch size or r"
        )
    if sizes and len(reference) < batch_size - min(sizes):
        raise ValueError(
            f"at b = {batch_size} a batch holds up to {batch_size - min(sizes)} different trusted "
            f"images, but there are {len(reference)}: give more, or lower the batch size"
        )
    key = jax.random.key(0) if key is None else key
    order_key, noise_key = jax.random.split(key)
    plan = plan_batches(order_key, len(x), len(reference), sizes, batch_size, draws)
    evaluations = draws * -(-len(x) // batch_size) if 0 in ratios else 0
    total = evaluations + len(plan.draw)

    result = np.empty((draws, len(ratios), len(x)), np.float32)
    with progress.bar("mixed batches", total, show=show_progress) as advance:
        for i, ratio in enumerate(ratios):
            if ratio == 0:
                for d in range(draws):
                    result[d, i] = log_prob_draw(
                        model, variables, x, noise_key, d, batch_size, advance
                    )
        values = _run(model, variables, x, reference, noise_key, plan, advance)
    for i, size in zip(np.flatnonzero(ratios), sizes, strict=True):
        for d in range(draws):
            mine = (plan.draw == d) & (plan.size == size)
            # The last group is filled up from the front of the order: keep an image's own group.
            index = plan.test[mine, :size].ravel()[: len(x)]
            result[d, i, index] = values[mine, :size].ravel()[: len(x)]
    return result


class Plan(NamedTuple):
    """The images that make up each mixed batch.

    Attributes:
        test: int32 ``(batches, batch_size)``, indices of images to judge; -1 where a reference
            image takes the place.
        reference: int32 ``(batches, batch_size)``, indices of reference images; -1 elsewhere.
        draw: int32 ``(batches,)``, the Monte-Carlo draw.
        size: int32 ``(batches,)``, number of images to judge.
    """

    test: np.ndarray
    reference: np.ndarray
    draw: np.ndarray
    size: np.ndarray


def plan_batches(
    key: jax.Array, n: int, m: int, sizes: Sequence[int], batch_size: int, draws: int
) -> Plan:
    """Choose the images of each mixed batch at random.

    Args:
        key: random key of the shuffles.
        n: number of images to judge.
        m: number of reference images.
        sizes: numbers of images to judge in a batch, one for each ratio.
        batch_size: b.
        draws: Monte-Carlo draws, each with shuffles of its own that all sizes share.

    Returns:
        A `Plan`.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    position = np.arange(batch_size)
    plans = []
    for draw in range(draws):
        order, companions = rng.permutation(n), rng.permutation(m)
        for size in sorted(set(sizes)):
            groups = -(-n // size)
            # Each group takes the next test images and the next trusted companions of two orders
            # that wrap around: no companion serves twice before all have served.
            group = np.arange(groups)[:, None]
            is_test = position < size
            test = np.where(is_test, order[(group * size + position) % n], -1)
            next_companion = group * (batch_size - size) + position - size
            reference = np.where(is_test, -1, companions[next_companion % m])
            plans.append((test, reference, np.full(groups, draw), np.full(groups, size)))
    if not plans:
        empty = np.empty(0, np.int32)
        return Plan(empty, empty, empty, empty)
    return Plan(*(np.concatenate(part).astype(np.int32) for part in zip(*plans, strict=True)))


def _run(model, variables, x, reference, key, plan: Plan, advance) -> np.ndarray:
    """Evaluate a plan: float32 ``(batches, batch_size)`` nats."""
    mesh = parallel.mesh_of(variables)
    program = _training_program(model, mesh)
    x, reference = parallel.replicate((x, reference), mesh)
    values = np.empty(plan.test.shape, np.float32)
    at_once = -(-BATCHES_A_CALL // mesh.size) * mesh.size
    for start in range(0, len(values), at_once):
        rows = np.arange(start, min(start + at_once, len(values)))
        # The last call has fewer batches; the draw -1 says that the others are not evaluated.
        rows_of_call = np.resize(rows, at_once)
        draws = np.where(np.arange(at_once) < len(rows), plan.draw[rows_of_call], -1)
        indices = plan.test[rows_of_call], plan.reference[rows_of_call]
        test, companions, draws = parallel.shard((*indices, draws), mesh)
        result = program(variables, _gather(x, reference, test, companions), key, draws)
        values[rows] = result[: len(rows)]
        advance(len(rows))
    return values


@jax.jit
def _gather(x, reference, test_index, reference_index):
    is_test = (test_index >= 0)[..., None, None, None]
    return jnp.where(is_test, x[test_index], reference[reference_index])


@functools.lru_cache(16)
def _training_program(model, mesh):
    """One program for every ratio, set and draw: batches ``(k, b, h, w, c)`` to ``(k, b)``."""

    def run(variables, batches, key, draws):
        def batch_log_prob(batch_and_draw):
            batch, draw = batch_and_draw

            def evaluate():
                keys = image_keys(jax.random.fold_in(key, draw), batch)
                values = model.log_prob(variables, batch, train=True, key=keys)
                return jnp.asarray(values, jnp.float32)

            return lax.cond(draw >= 0, evaluate, lambda: jnp.zeros(len(batch), jnp.float32))

        return lax.map(batch_log_prob, (batches, draws))

    return parallel.map_rows(run, mesh, rows=(False, True, False, True))


def batch_norm_delta(
    model: HasLogProb,
    variables: Variables,
    trusted: Array,
    *,
    r1: float = 0,
    r2: float = 0.9,
    seed: int = 0,
    batch_size: int = 64,
    draws: int = 4,
) -> Score:
    """Build the score ``Delta = |S_{b,r1} - S_{b,r2}|`` (BatchNorm paper, eq. 7): a batch score.

    Images are scored among those they arrive with: each set that a call takes is judged by itself,
    and another division into sets gives other values.

    Args:
        model: a `DensityModel` with BatchNorm.
        variables: variables of the model; each device that they lie on evaluates batches of its
            own.
        trusted: uint8 ``(m, h, w, c)``, the reference images, for instance the training set.
        r1: the smaller share of a batch that images to judge take; 0 is evaluation mode.
        r2: the larger share.
        seed: seed of the shuffles and the noise.
        batch_size: b.
        draws: Monte-Carlo draws of companions and noise.

    Returns:
        A `Score` in nats. A call raises ``ValueError`` where the images to judge are too few to
        fill a batch, see `mixed_log_prob`.

    Raises:
        TypeError: if the trusted images are not uint8.
        ValueError: unless ``0 <= r1 < r2 <= 1``; or the trusted images have another shape.
    """
    if not 0 <= r1 < r2 <= 1:
        raise ValueError(f"ratios must be 0 <= r1 < r2 <= 1, got r1 = {r1}, r2 = {r2}")
    options = {"r1": r1, "r2": r2, "seed": seed, "batch_size": batch_size, "draws": draws}
    return Score(
        "batch_norm_delta", model, variables, options, {"trusted": _whole(trusted, variables)}
    )


@scored("batch_norm_delta", per_image=False)
def _delta(score: Score, images: Array) -> Estimate:
    options = score.options
    draws = mixed_log_prob(
        score.model,
        score.variables,
        images,
        score.arrays["trusted"],
        (options["r1"], options["r2"]),
        key=jax.random.key(options["seed"]),
        batch_size=options["batch_size"],
        draws=options["draws"],
    )
    return statistics.delta(draws[:, 0], draws[:, 1])


def batch_norm_rank(
    model: HasLogProb,
    variables: Variables,
    trusted: Array,
    calibration: Array,
    *,
    r1: float = 0,
    r2: float = 0.9,
    seed: int = 0,
    batch_size: int = 64,
    draws: int = 4,
) -> Score:
    """Build the score T, the rank of Delta among held-out trusted images: a batch score.

    BatchNorm paper, eq. 8.

    Args:
        model: as in `batch_norm_delta`.
        variables: as in `batch_norm_delta`.
        trusted: as in `batch_norm_delta`.
        calibration: uint8 ``(N, h, w, c)``, the calibration set: trusted images that the model was
            not trained on. They are scored here, as one set.
        r1: as in `batch_norm_delta`.
        r2: as in `batch_norm_delta`.
        seed: as in `batch_norm_delta`.
        batch_size: as in `batch_norm_delta`.
        draws: as in `batch_norm_delta`.

    Returns:
        A `Score` with values in ``[0, N]``. Its standard error is half the number of calibration
        images whose Delta lies within one standard error of the image's own.

    Raises:
        TypeError: as `batch_norm_delta`.
        ValueError: as `batch_norm_delta`; or there are too few calibration images to fill a batch.
    """
    delta = batch_norm_delta(
        model, variables, trusted, r1=r1, r2=r2, seed=seed, batch_size=batch_size, draws=draws
    )
    null = delta(calibration)
    return Score("batch_norm_rank", model, variables, delta.options, {**delta.arrays, "null": null})


@scored("batch_norm_rank", per_image=False)
def _rank(score: Score, images: Array) -> Estimate:
    mean, stderr = _delta(score, images)
    low, value, high = (
        statistics.rank(delta, score.arrays["null"])
        for delta in (mean - stderr, mean, mean + stderr)
    )
    return Estimate(value, np.where(np.isnan(stderr), np.nan, (high - low) / 2))


def _whole(trusted: Array, variables: Variables) -> Array:
    """Put reference images on the devices of the variables, once and not for every set."""
    check_set(trusted)
    return parallel.replicate(trusted, parallel.mesh_of(variables))
