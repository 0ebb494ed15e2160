"""The toy examples from their data to the report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import lab
from experiments.batch_norm.settings import R1, R2
from experiments.batch_norm.toy import detection, examples, proposition1
from experiments.batch_norm.toy.detection import Case
from experiments.batch_norm.toy.examples import Descent
from experiments.batch_norm.toy.figures import drawings
from experiments.batch_norm.toy.results import Results
from jaxood import data
from jaxood.report.record import Record

PAGE = Path(__file__).with_name("page.md")


def run(cases: Sequence[Case], flags: lab.Flags, out: Path, *, quick: bool) -> Record:
    """Run the examples, the checks and the test, and write the record and the report.

    Args:
        cases: cases of the BatchNorm test.
        flags: flags of the command line.
        out: folder of the run.
        quick: check Proposition 1 on flows alone.

    Raises:
        UsageError: if the folder holds another run.
    """
    run = lab.begin(flags, "toy", out)
    gaussians, descents = examples.gaussians(flags.seed), train_couplings(flags.seed)
    print("Proposition 1: integrating", flush=True)
    checks = proposition1.checks(quick=quick)
    outcomes, absent = [], {}
    for case in cases:
        try:
            outcomes.append(detection.run(case, run))
        except data.AbsentError as error:
            print(f"left out: {error}", flush=True)
            absent[case.in_dist] = str(error)
    results = Results(
        gaussians=gaussians, descents=descents, checks=checks, outcomes=outcomes, absent=absent
    )
    return run.finish(
        PAGE,
        headline=results.headline(),
        title="The argument for the BatchNorm test, checked",
        context={
            "results": results,
            "members": examples.MEMBERS,
            "noise": examples.NOISE,
            "as_printed": examples.closed_form(1.0, variance=1 / np.sqrt(12)).q_training,
            "r1": R1,
            "r2": R2,
        },
        figures=drawings(results, flags.seed),
        results=[row for outcome in outcomes for row in outcome.results],
        sweeps=[row for outcome in outcomes for row in outcome.sweeps],
        extra=results.numbers(),
    )


def train_couplings(seed: int) -> dict[str, Descent]:
    """Train the paper's coupling, and the one with a scale on dependent data."""
    rng = np.random.default_rng(seed)
    independent = examples.sample_p(rng, 4096)
    dependent = examples.sample_p(rng, 4096, slope=examples.SLOPE, noise=examples.NOISE)
    return {
        "independent": examples.train_coupling(independent, scale=False, seed=seed),
        "dependent": examples.train_coupling(dependent, scale=True, seed=seed),
    }
