"""How fast a RealNVP training step is, against the same step done otherwise."""

from experiments.benchmarks import training
from experiments.lab import common

if __name__ == "__main__":
    common.run(training.main, training.Config, training.__doc__)
