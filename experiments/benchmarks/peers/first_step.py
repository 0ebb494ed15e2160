"""One training step of a peer in a process of its own, which prints the time when it has ended.

The arguments are a preset and the name of a model.
"""

import sys
import time
from typing import Any

from experiments.benchmarks.cases import PRESETS
from experiments.benchmarks.peers import programs


def main(preset: Any, name: str) -> None:
    """Do the step."""
    case = PRESETS[preset][name]
    programs.training(case, programs.build(case), 0, "NCHW")(1)
    print(time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
