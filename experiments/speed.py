"""How fast a RealNVP training step is, against the same step done otherwise."""

from experiments import lab
from experiments.benchmarks import training

if __name__ == "__main__":
    lab.main(training.main, training.Config, training.__doc__)
