"""How fast PixelCNN++ samples from cached activations, against a whole forward pass a pixel."""

from experiments.benchmarks import sampling
from experiments.lab import common

if __name__ == "__main__":
    common.run(sampling.main, sampling.Config, sampling.__doc__)
