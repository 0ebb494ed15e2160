"""The BatchNorm test with training-mode likelihoods that are true ones: does it still detect?"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments import lab
from experiments.batch_norm.settings import R1, R2
from jaxood import data, metrics, scores
from jaxood.models.mates_only import mates_only
from jaxood.models.realnvp import realnvp
from jaxood.report import label
from jaxood.report.record import ResultRow
from jaxood.scores import statistics
from jaxood.train import Recipe, Trained

USUAL, EXACT, MATES = "usual", "exact Jacobian", "mates only"
COLUMNS = [(USUAL, R1), (MATES, R1), (USUAL, 0), (MATES, 0), (EXACT, 0)]
"""Likelihood and r1 of each Δ that is computed; the first is the paper's."""
FASHION_OOD = ("mnist", "kmnist", "fashion_mnist/rotated")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One trusted set, its OOD sets, and the amount of training and scoring.

    Attributes:
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        shrink: side of the squares of pixels that are averaged into one.
        recipe: the RealNVP and its training.
        exact: whether the exact Jacobian is taken too, at a cost of ``b h w c`` batches a batch.
        batch_size: b of the test.
        images: number of images of each set.
        draws: Monte-Carlo draws of companions and noise.
    """

    in_dist: str
    ood: tuple[str, ...]
    shrink: int = 1
    recipe: Recipe
    exact: bool = True
    batch_size: int
    images: int
    draws: int

    @property
    def place(self) -> str:
        """Name under which its model and scores are kept."""
        return f"{self.in_dist}-{self.shrink}"

    def named(self, name: str) -> str:
        """Name a set as the record does: with the size of its images, where that was changed."""
        side = -(-28 // self.shrink)
        side += side % 2
        return name if self.shrink == 1 else f"{name} ({side}×{side})"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of one case.

    Attributes:
        case: the case.
        results: −log p(x), and Δ with the usual likelihood at the paper's ratios.
        sweeps: Δ with the other likelihoods, and with r1 -> 0, where r1 is evaluation mode.
        correction: by set, mean ``|exact - usual|`` log-likelihood at r2 in nats; empty without
            the exact one.
        delta: by set, the median Δ of the usual likelihood with r1 -> 0, in nats.
    """

    case: Case
    results: list[ResultRow]
    sweeps: list[ResultRow]
    correction: dict[str, float]
    delta: dict[str, float]


def average_down(images: np.ndarray, k: int) -> np.ndarray:
    """Average images over k x k squares, after black borders up to an even number of squares.

    Args:
        images: uint8 ``(n, h, w, c)``.
        k: side of a square; 28x28 images become 14x14 at 2 and, from 32x32, 8x8 at 4.

    Returns:
        uint8 ``(n, h', w', c)``.
    """
    if k == 1:
        return images
    border = [(-size % (2 * k)) for size in images.shape[1:3]]
    around = [(0, 0), *((b // 2, b - b // 2) for b in border), (0, 0)]
    n, h, w, c = np.pad(images, around).shape
    squares = np.pad(images, around).reshape(n, h // k, k, w // k, k, c)
    return np.rint(squares.mean((2, 4))).astype(np.uint8)


LogProbs = dict[tuple[str, str], dict[float, np.ndarray]]
"""Log-likelihoods by set and likelihood, and by ratio: ``(draws, n)``, nats."""


def run(case: Case, run: lab.Run) -> Outcome:
    """Train a model, score its sets with each likelihood, and compare.

    Raises:
        DataError: if a set is not there.
    """

    def load(name: str, split: str) -> np.ndarray:
        return average_down(data.load(name, split, run.flags.data_dir)[0], case.shrink)

    rng = np.random.default_rng(run.flags.seed)
    images = load(case.in_dist, "train")
    sets = {
        name: rng.permutation(load(name, "test"))[: case.images]
        for name in (case.in_dist, *case.ood)
    }
    trained = run.train(
        case.recipe,
        images,
        name=case.recipe.model,
        in_dist=case.named(case.in_dist),
        part=f"models/{case.place}",
    )
    log_probs, seconds = _score(case, run, trained, images, sets)
    results, sweeps = _rows(case, log_probs, seconds)
    correction = {}
    if case.exact:
        # The same key gives the same batches and the same noise.
        correction = {
            case.named(n): float(np.abs(log_probs[n, EXACT][R2] - log_probs[n, USUAL][R2]).mean())
            for n in sets
        }
    medians = {case.named(n): float(np.median(_delta(log_probs[n, USUAL], 0))) for n in sets}
    return Outcome(case, results, sweeps, correction, medians)


def _score(
    case: Case, run: lab.Run, trained: Trained, images: np.ndarray, sets: dict[str, np.ndarray]
) -> tuple[LogProbs, dict[tuple[str, str], float]]:
    """Compute log-likelihoods of each set by each likelihood, and the seconds that each took."""
    models = {USUAL: trained.model, MATES: mates_only(trained.model)}
    if case.exact:
        width, depth = case.recipe.width, case.recipe.depth or 1
        models[EXACT] = realnvp(images.shape[1:], width=width, depth=depth, jacobian="exact")
    made_from = lab.identity(sets, model=trained.variables)
    run.store.expect({f"{case.place}, {name}": digest for name, digest in made_from.items()})
    log_probs: LogProbs = {}
    seconds = {}
    for name, likelihood in itertools.product(sets, models):
        # The small ratio is left out of the exact one, where it would cost the most.
        ratios = (0, R2) if likelihood == EXACT else (0, R1, R2)

        def compute(
            name: str = name, likelihood: str = likelihood, ratios: tuple[float, ...] = ratios
        ) -> np.ndarray:
            print(f"scoring {case.images} images: {label(case.named(name))}, {likelihood}")
            return scores.mixed_log_prob(
                models[likelihood],
                trained.variables,
                sets[name],
                images,
                ratios,
                key=jax.random.key(run.flags.seed),
                batch_size=case.batch_size,
                draws=case.draws,
                show_progress=True,
            )

        entry = f"{case.place}/{name}/{likelihood}"
        values, seconds[name, likelihood] = run.store.timed(f"log_prob/{entry}", compute)
        log_probs[name, likelihood] = {r: values[:, i] for i, r in enumerate(ratios)}
    return log_probs, seconds


def _delta(at: Mapping[float, np.ndarray], r1: float) -> np.ndarray:
    return statistics.delta(at[r1], at[R2]).mean


def _rows(
    case: Case, log_probs: LogProbs, seconds: Mapping[tuple[str, str], float]
) -> tuple[list[ResultRow], list[ResultRow]]:
    """Make the usual likelihood's main rows, and the rows of all others."""

    def row(
        name: str,
        score: str,
        likelihood: str,
        values: Callable[[Mapping[float, np.ndarray]], np.ndarray],
        params: Mapping[str, Any],
    ) -> ResultRow:
        return ResultRow.from_detection(
            metrics.detection(
                values(log_probs[case.in_dist, likelihood]), values(log_probs[name, likelihood])
            ),
            model=case.recipe.model,
            in_dist=case.named(case.in_dist),
            ood=case.named(name),
            score=score,
            params={"draws": case.draws, **params},
            seconds=seconds[name, likelihood],
        )

    results, sweeps = [], []
    for name in case.ood:
        results.append(row(name, "neg_log_prob", USUAL, lambda at: -at[0].mean(0), {}))
        for likelihood, r1 in COLUMNS:
            if r1 in log_probs.get((name, likelihood), ()):
                params = {"b": case.batch_size, "r1": r1, "r2": R2, "likelihood": likelihood}
                made = row(
                    name, "batch_norm_delta", likelihood, lambda at, r1=r1: _delta(at, r1), params
                )
                (results if (likelihood, r1) == COLUMNS[0] else sweeps).append(made)
    return results, sweeps
