"""The speed of a RealNVP training step, against the same step computed in another way."""

from experiments import lab
from experiments.benchmarks import training

if __name__ == "__main__":
    lab.main(training.main, training.Config, training.__doc__)
