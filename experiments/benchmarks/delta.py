"""Delta of the BatchNorm test, against loops over its mixed batches in Python."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import peers, report, steps
from experiments.benchmarks.cases import Case
from experiments.benchmarks.report import OURS
from experiments.benchmarks.timing import Amount, Run, in_turn
from jaxood import scores

RATIOS = 0.1, 0.9
LOOP = "loop in JAX"


class Sizes(NamedTuple):
    """The amount of scoring.

    Attributes:
        images: images that are judged.
        trusted: images that fill the batches.
        draws: Monte-Carlo draws.
    """

    images: int
    trusted: int
    draws: int


def delta(case: Case, sizes: Sizes, seed: int, amount: Amount) -> list[report.Line]:
    """Print the time of `scores.batch_norm_delta`, against plain loops."""
    model, variables = steps.initial(case, seed)
    rng = np.random.default_rng(seed)
    images, trusted = (
        rng.integers(0, 256, (n, *case.shape), np.uint8) for n in (sizes.images, sizes.trusted)
    )
    ratios = {"r1": RATIOS[0], "r2": RATIOS[1]}
    settings: Any = {"batch_size": case.batch_size, "draws": sizes.draws, **ratios}
    score = scores.batch_norm_delta(model, variables, trusted, **settings)

    def ours(count: int) -> None:
        for _ in range(count):
            score(images)

    log_prob = jax.jit(lambda x, key: model.log_prob(variables, x, train=True, key=key))

    def evaluate(judged: np.ndarray, companions: np.ndarray) -> np.ndarray:
        key = jax.random.key(int(judged[0]))
        return np.asarray(log_prob(np.concatenate([images[judged], trusted[companions]]), key))

    programs: dict[str, Run] = {OURS: ours, LOOP: _loop(case, sizes, evaluate)}
    others = {LOOP: [LOOP]}
    if peers.installed():
        found = _peer(case, sizes, variables, images, trusted)
        programs |= found
        others["loop in PyTorch"] = list(found)
    times = in_turn(programs, amount._replace(sample=0))  # a call takes seconds
    title = f"Delta of {sizes.images} images, {sizes.draws} draws, {case.title}"
    lines = report.compare(title, times, others)
    return lines if peers.installed() else lines + report.alone(title, times, peers.ABSENT)


def mixed_batches(
    sizes: Sizes, batch_size: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield the place of the ratio, the draw, the images and their companions of each batch."""
    rng = np.random.default_rng(0)
    for draw in range(sizes.draws):
        order, companions = rng.permutation(sizes.images), rng.permutation(sizes.trusted)
        for place, ratio in enumerate(RATIOS):
            size = round(ratio * batch_size)
            groups = -(-sizes.images // size)
            judged = np.resize(order, (groups, size))
            filled = np.resize(companions, (groups, batch_size - size))
            yield from ((place, draw, *rows) for rows in zip(judged, filled, strict=True))


def _loop(
    case: Case, sizes: Sizes, evaluate: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Run:
    def run(count: int) -> None:
        for _ in range(count):
            values = np.empty((len(RATIOS), sizes.draws, sizes.images), np.float32)
            for place, draw, judged, companions in mixed_batches(sizes, case.batch_size):
                values[place, draw, judged] = evaluate(judged, companions)[: len(judged)]
            np.abs(np.subtract(*values.mean(1)))

    return run


def _peer(
    case: Case, sizes: Sizes, variables: Any, images: np.ndarray, trusted: np.ndarray
) -> dict[str, Run]:
    from experiments.benchmarks.peers import programs

    on = programs.device(jax.default_backend())

    def timed(layout: str) -> Run:
        peer = programs.build(case, variables, layout, on)
        return _loop(case, sizes, programs.mixed_log_prob(peer, images, trusted, layout, on))

    return {layout: timed(layout) for layout in programs.FORMATS}
