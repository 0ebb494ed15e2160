"""The speed of PixelCNN++'s cached sampling, against a whole forward pass for each pixel."""

from experiments import lab
from experiments.benchmarks import sampling

if __name__ == "__main__":
    lab.main(sampling.main, sampling.Config, sampling.__doc__)
