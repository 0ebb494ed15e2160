"""The quickstart: from trusted images to an OOD report in two minutes, offline, on a laptop.

It trains a small RealNVP on scikit-learn's 8x8 digits, then judges digits at half their brightness
and digits that are turned by a random angle. The report is report.html in the run folder.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import lab
from experiments.batch_norm import study
from experiments.batch_norm.settings import Sizes, Study
from jaxood.report.record import Record
from jaxood.train import Recipe

SMALL = Study(
    experiment="quickstart",
    title="Digits that do not belong",
    in_dist="digits",
    ood=("digits/scaled_0.5", "digits/rotated"),
    recipe=Recipe(model="realnvp", width=16, depth=1, steps=120),
    sizes=Sizes(images=150, null_images=299, draws=8),
)
SMOKE = dataclasses.replace(
    SMALL,
    recipe=Recipe(model="realnvp", width=4, depth=1, steps=4, statistics_images=64),
    sizes=Sizes(images=64, null_images=64, draws=1),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the quickstart."""

    preset: Literal["smoke", "small"] = "small"
    """smoke: seconds, checks that everything runs. small: a minute or two on 2 CPU cores."""


def study_of(flags: Config) -> Study:
    """Return the study that a command line asks for."""
    return {"smoke": SMOKE, "small": SMALL}[flags.preset]


def main(flags: Config) -> Record:
    """Run the quickstart."""
    out = flags.out or Path("runs/quickstart" + "-smoke" * (flags.preset == "smoke"))
    return study.run(study_of(flags), flags, out)


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
