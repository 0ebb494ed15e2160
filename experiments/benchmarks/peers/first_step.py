"""One training step of a peer in a process of its own, which prints the time when it has ended.

The arguments are a preset, the name of a model, and the platform of JAX.
"""

import sys
import time
from typing import Any

from experiments.benchmarks.cases import PRESETS
from experiments.benchmarks.peers import programs


def main(preset: Any, name: str, platform: str) -> None:
    """Do the step."""
    case, on = PRESETS[preset][name], programs.device(platform)
    programs.training(case, programs.build(case, on=on), 0, "NCHW", on)(1)
    print(time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
