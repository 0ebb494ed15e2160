"""How long Glow takes to its first training step: initialization, compilation, the step."""

from experiments.benchmarks import glow
from experiments.lab import common

if __name__ == "__main__":
    common.run(glow.main, glow.Config, glow.__doc__)
