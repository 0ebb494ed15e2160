"""Does the BatchNorm test still detect when the training-mode likelihood is a true one?"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.batch_norm.settings import R1, R2
from experiments.lab.common import Flags
from experiments.lab.recipes import Trained, trained
from experiments.lab.store import Scores, identity
from jaxood import data, metrics, report, scores
from jaxood.models.mates_only import mates_only
from jaxood.models.realnvp import realnvp
from jaxood.report import record
from jaxood.report.labels import label
from jaxood.train import Recipe

USUAL, EXACT, MATES = "usual", "exact Jacobian", "mates only"
COLUMNS = [(USUAL, R1), (MATES, R1), (USUAL, 0), (MATES, 0), (EXACT, 0)]
"""Likelihood and r1 of each column of the report's table."""
FASHION_OOD = ("mnist", "kmnist", "fashion_mnist/rotated")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One trusted set, its OOD sets, and how much of everything.

    Attributes:
        in_dist: name of the trusted set.
        ood: names of the OOD sets.
        shrink: side of the squares of pixels that are averaged into one.
        recipe: the RealNVP and its training.
        exact: whether the exact Jacobian is taken too, at a cost of ``b h w c`` batches a batch.
        batch_size: b of the test.
        images: of each set.
        draws: of companions and noise.
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
    def place(self):
        """Where its model and scores are kept."""
        return f"{self.in_dist}-{self.shrink}"

    def named(self, name):
        """A set as the record names it: with the size of its images, where that was changed."""
        side = -(-28 // self.shrink)
        side += side % 2
        return name if self.shrink == 1 else f"{name} ({side}×{side})"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one case found.

    Attributes:
        case: the case.
        model: row of the record.
        results: −log p(x), and Δ with the usual likelihood at the paper's ratios.
        sweeps: Δ with the other likelihoods, and with r1 -> 0, where r1 is evaluation mode.
        correction: by set, mean ``|exact - usual|`` log-likelihood at r2 in nats; empty without
            the exact one.
        delta: by set, the median Δ of the usual likelihood with r1 -> 0, in nats.
    """

    case: Case
    model: record.ModelRow
    results: list[record.ResultRow]
    sweeps: list[record.ResultRow]
    correction: dict[str, float]
    delta: dict[str, float]


def average_down(images, k):
    """Images averaged over k x k squares, after black borders up to an even number of squares.

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


def run(case: Case, flags: Flags, out: Path) -> Outcome:
    """Train, score, compare.

    Raises:
        DataError: where a set is not to be had.
    """

    def load(name, split):
        return average_down(data.load(name, split, flags.data_dir)[0], case.shrink)

    rng = np.random.default_rng(flags.seed)
    images = load(case.in_dist, "train")
    sets = {
        name: rng.permutation(load(name, "test"))[: case.images]
        for name in (case.in_dist, *case.ood)
    }
    directory = out / "models" / case.place
    in_dist = case.named(case.in_dist)
    fit = trained(
        case.recipe,
        in_dist,
        images,
        seed=flags.seed,
        devices=flags.devices,
        directory=directory,
    )
    log_probs, seconds = _score(case, flags, fit, images, sets, out)
    results, sweeps = _rows(case, fit.row.name, log_probs, seconds)
    correction = {}
    if case.exact:
        # Same key: same batches, same noise.
        correction = {
            case.named(n): float(np.abs(log_probs[n, EXACT][R2] - log_probs[n, USUAL][R2]).mean())
            for n in sets
        }
    medians = {case.named(n): float(np.median(_delta(log_probs[n, USUAL], 0))) for n in sets}
    return Outcome(case, fit.row, results, sweeps, correction, medians)


def _score(case: Case, flags: Flags, fit: Trained, images, sets, out: Path):
    """By (set, likelihood): log-likelihoods ``{ratio: (draws, n)}`` in nats, and seconds."""
    models = {USUAL: fit.model, MATES: mates_only(fit.model)}
    if case.exact:
        recipe = case.recipe
        models[EXACT] = realnvp(
            images.shape[1:], width=recipe.width, depth=recipe.depth, jacobian="exact"
        )
    made_from = identity(sets, model=fit.variables)
    store = Scores(out / "scores.npz", {f"{case.place}, {k}": v for k, v in made_from.items()})
    log_probs, seconds = {}, {}
    for name, likelihood in itertools.product(sets, models):
        # The small ratio is left out of the exact one, where it would cost the most.
        ratios = (0, R2) if likelihood == EXACT else (0, R1, R2)

        def compute(name=name, likelihood=likelihood, ratios=ratios):
            print(f"scoring {case.images} images: {label(case.named(name))}, {likelihood}")
            return scores.mixed_log_prob(
                models[likelihood],
                fit.variables,
                sets[name],
                images,
                ratios,
                key=jax.random.key(flags.seed),
                batch_size=case.batch_size,
                draws=case.draws,
                show_progress=True,
            )

        entry = f"{case.place}/{name}/{likelihood}"
        values, seconds[name, likelihood] = store.timed(f"log_prob/{entry}", compute)
        log_probs[name, likelihood] = {r: values[:, i] for i, r in enumerate(ratios)}
    return log_probs, seconds


def _delta(at, r1):
    return scores.statistics.delta(at[r1], at[R2]).mean


def _rows(case: Case, model: str, log_probs, seconds):
    """The usual likelihood's main rows, and the rows of all others."""

    def row(name, score, likelihood, values, params):
        return record.ResultRow.from_detection(
            metrics.detection(
                values(log_probs[case.in_dist, likelihood]), values(log_probs[name, likelihood])
            ),
            model=model,
            in_dist=case.named(case.in_dist),
            ood=case.named(name),
            score=score,
            params={"draws": case.draws} | params,
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


def section(
    made: record.Record, outcomes: Sequence[Outcome], absent: Mapping[str, str]
) -> report.Section:
    """What the test finds with each likelihood, as a section of the report."""
    rows = [*made.results, *made.sweeps]
    used = [c for c in COLUMNS if any(_is(row, *c) for row in rows)]

    def cell(row):
        if row is None:
            return None
        low, high = row.auroc_ci
        return f"{row.auroc:.3f}\n[{low:.3f}, {high:.3f}]"

    def find(in_dist, ood, matches):
        here = (r for r in rows if (r.in_dist, r.ood) == (in_dist, ood) and matches(r))
        return next(here, None)

    lines = [
        [
            label(in_dist),
            label(ood),
            cell(find(in_dist, ood, lambda r: r.score == "neg_log_prob")),
            *(cell(find(in_dist, ood, lambda r, c=c: _is(r, *c))) for c in used),
        ]
        for in_dist, ood in dict.fromkeys((row.in_dist, row.ood) for row in made.results)
    ]
    settings = "; ".join(
        f"{label(o.case.named(o.case.in_dist))}: b = {o.case.batch_size}, {o.case.images} images "
        f"a set, {o.case.draws} draws"
        for o in outcomes
    )
    corrections = [
        [label(in_dist), label(name), o.delta[name], o.correction[name]]
        for o in outcomes
        for in_dist in [o.case.named(o.case.in_dist)]
        for name in o.correction
    ]
    tables = [
        report.Table(
            "AUROC with 95 % intervals; Δ with three training-mode likelihoods",
            [
                "trained on",
                "OOD set",
                label("neg_log_prob"),
                *(
                    f"Δ, {likelihood}, r1 {'→' if r1 == 0 else '='} {r1:g}"
                    for likelihood, r1 in used
                ),
            ],
            lines,
        )
    ]
    if corrections:
        tables.append(
            report.Table(
                f"What the exact Jacobian changes, beside Δ (nats an image, at r = {R2})",
                ["trained on", "set", "Δ, usual (median)", "mean |exact − usual|"],
                corrections,
            )
        )
    changes = "; ".join(
        f"{how}, {max(found):.3f}" for how in (EXACT, MATES) if (found := [*_changes(rows, how)])
    )
    missing = "".join(
        f"\n\n{label(name)} was left out, because it was not found: {why}"
        for name, why in absent.items()
    )
    return report.Section(
        "Does detection change when the likelihood is a true one?",
        "A small RealNVP, trained as usual, and Δ with the usual log-determinant, with the exact "
        f"Jacobian, and with statistics of the batch mates alone (two folds); r2 = {R2}. The exact "
        "Jacobian costs b·h·w·c batches a batch, so it is taken for images of few pixels, in small "
        "batches, and with r1 → 0, which is evaluation mode; the others for comparison there and "
        f"at the paper's r1 = {R1} too. Same batches, same noise. {settings}.\n\n"
        f"Largest change of an AUROC from the usual likelihood's, at equal r1: {changes}.{missing}",
        tables=tables,
    )


def _is(row: record.ResultRow, likelihood: str, r1: float) -> bool:
    return row.params.get("likelihood") == likelihood and row.params["r1"] == r1


def _changes(rows: Sequence[record.ResultRow], likelihood: str):
    """|AUROC - the usual likelihood's|, of every row of a likelihood."""
    usual = {
        (row.in_dist, row.ood, row.params["r1"]): row.auroc
        for row in rows
        if row.params.get("likelihood") == USUAL
    }
    for row in rows:
        if row.params.get("likelihood") == likelihood and row.auroc is not None:
            other = usual[row.in_dist, row.ood, row.params["r1"]]
            if other is not None:
                yield abs(row.auroc - other)
