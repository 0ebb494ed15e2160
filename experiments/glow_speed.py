"""The time until Glow's first training step ends: initialization, compilation and the step."""

from experiments import lab
from experiments.benchmarks import glow

if __name__ == "__main__":
    lab.main(glow.main, glow.Config, glow.__doc__)
