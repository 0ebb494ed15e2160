"""The BatchNorm paper's arguments, checked by numbers: Section 3, 4.2 and Proposition 1.

Figure 1 (right), Figure 2 with the constants of Appendix D, and what Proposition 1 says, where it
holds, where it does not, and what mends it. Then the BatchNorm test with the mended likelihoods,
on embedded digits and, where they are in --data-dir, on Fashion-MNIST.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.batch_norm.toy import (
    detection as toy_detection,
)
from experiments.batch_norm.toy import (
    examples as toy_examples,
)
from experiments.batch_norm.toy import (
    proposition1,
)
from experiments.batch_norm.toy import (
    report as toy_report,
)
from experiments.batch_norm.toy.detection import FASHION_OOD, Case, Outcome
from experiments.lab import common
from jaxood import data, parallel
from jaxood.report import record
from jaxood.train import Recipe

DIGITS = Case(
    in_dist="digits",
    ood=("digits/scaled_0.5", "digits/rotated"),
    recipe=Recipe(model="realnvp", width=8, depth=1, steps=150),
    batch_size=16,
    images=98,
    draws=2,
)
"""98 images: seven groups of the 14 test images that r = 0.9 of b = 16 is."""


def _fashion(**settings):
    return dataclasses.replace(DIGITS, in_dist="fashion_mnist", ood=FASHION_OOD, **settings)


PRESETS = {
    "smoke": (
        dataclasses.replace(
            DIGITS,
            recipe=Recipe(model="realnvp", width=2, depth=1, steps=4),
            batch_size=8,
            images=14,
            draws=1,
        ),
    ),
    # 8x8 pixels, as digits have, because of the exact Jacobian; then 28x28 without it.
    "small": (
        DIGITS,
        _fashion(
            shrink=4,
            recipe=Recipe(model="realnvp", width=8, depth=1, steps=300, statistics_images=8192),
            draws=1,
        ),
        _fashion(
            recipe=Recipe(model="realnvp", width=8, depth=1, steps=120, statistics_images=8192),
            exact=False,
            batch_size=64,
            images=174,
            draws=1,
        ),
    ),
    "paper": (
        dataclasses.replace(DIGITS, images=588, draws=8),
        _fashion(
            shrink=2,
            recipe=Recipe(model="realnvp", width=32, depth=4, steps=9_370),
            batch_size=64,
            images=580,
            draws=4,
        ),
        _fashion(
            recipe=Recipe(model="realnvp", width=32, depth=4, steps=93_700),
            exact=False,
            batch_size=64,
            images=2_500,
            draws=10,
        ),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
    """Flags of the toy examples."""

    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: half a minute, embedded digits, checks that everything runs. small: eight minutes on 2
    CPU cores. paper: the paper's networks, for an accelerator."""


def main(config: Config):
    """Run the examples, the checks and the test."""
    common.start(config)
    out = config.out or Path(f"runs/toy-{config.preset}")
    common.open_run(out, "toy", config)
    gaussians = toy_examples.gaussians(config.seed)
    paths = _train_couplings(config.seed)
    print("Proposition 1: integrating", flush=True)
    checks = proposition1.checks(quick=config.preset == "smoke")
    outcomes, absent = _detect(config, out)
    made = record.Record(
        experiment="toy",
        seed=config.seed,
        preset=config.preset,
        environment=common.environment(config.devices),
        models=[o.model for o in outcomes],
        results=[row for o in outcomes for row in o.results],
        sweeps=[row for o in outcomes for row in o.sweeps],
        extra=toy_report.numbers(gaussians, paths, checks, outcomes, absent),
    )
    if parallel.is_writer():
        toy_report.draw(gaussians, paths, checks, config.seed, out / "figures")
        page = toy_report.write(made, gaussians, paths, checks, outcomes, absent, out)
        print(f"report: {page}")
    return made


def _train_couplings(seed):
    """The paper's coupling, and the one with a scale on dependent data, each trained."""
    rng = np.random.default_rng(seed)
    independent = toy_examples.sample_p(rng, 4096)
    dependent = toy_examples.sample_p(rng, 4096, slope=toy_examples.SLOPE, noise=toy_examples.NOISE)
    return {
        "independent": toy_examples.train_coupling(independent, scale=False, seed=seed),
        "dependent": toy_examples.train_coupling(dependent, scale=True, seed=seed),
    }


def _detect(config, out) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes, and by trusted set why it was left out."""
    outcomes, absent = [], {}
    for case in PRESETS[config.preset]:
        try:
            outcomes.append(toy_detection.run(case, config, out))
        except data.AbsentError as error:
            print(f"left out: {error}", flush=True)
            absent[case.in_dist] = str(error)
    return outcomes, absent


if __name__ == "__main__":
    common.run(main, Config, __doc__)
