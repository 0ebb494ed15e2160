"""How fast PixelCNN++ samples from cached activations, against a whole forward pass a pixel."""

from experiments import lab
from experiments.benchmarks import sampling

if __name__ == "__main__":
    lab.main(sampling.main, sampling.Config, sampling.__doc__)
