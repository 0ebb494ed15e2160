"""The speed of jaxood: ratios of its times to those of PyTorch, or of another way in JAX."""

from experiments import lab
from experiments.benchmarks import speed

if __name__ == "__main__":
    lab.main(speed.main, speed.Config, speed.__doc__)
