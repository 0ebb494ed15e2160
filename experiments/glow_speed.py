"""How long Glow takes to its first training step: initialization, compilation, the step."""

from experiments import lab
from experiments.benchmarks import glow

if __name__ == "__main__":
    lab.main(glow.main, glow.Config, glow.__doc__)
