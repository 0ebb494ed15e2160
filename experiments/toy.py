"""The BatchNorm paper's arguments, checked by numbers: Section 3, 4.2 and Proposition 1.

The experiment computes Figure 1 (right) and Figure 2 with the constants of Appendix D, and shows
where Proposition 1 holds, where it does not, and which likelihoods mend it. Then it runs the
BatchNorm test with these likelihoods on embedded digits and, if it lies in --data-dir, on
Fashion-MNIST.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import lab
from experiments.batch_norm.toy import study
from experiments.batch_norm.toy.settings import PRESETS
from jaxood.report.record import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the toy examples."""

    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: half a minute, embedded digits, checks that everything runs. small: eight minutes on 2
    CPU cores. paper: the paper's networks, for an accelerator."""


def main(flags: Config) -> Record:
    """Run the examples, the checks and the test."""
    out = flags.out or Path(f"runs/toy-{flags.preset}")
    return study.run(PRESETS[flags.preset], flags, out, quick=flags.preset == "smoke")


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
