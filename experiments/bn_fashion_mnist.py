"""The BatchNorm paper on Fashion-MNIST: Tables 1 (a, c), 2 and 5, Figures 1 (left) and 3.

This experiment trains RealNVP, the VAE or PixelCNN++ (--model) on Fashion-MNIST, and judges rotated
Fashion-MNIST, MNIST, Omniglot and KMNIST. Data sets that lie prepared in --data-dir are read from
there; others are downloaded by TFDS (pip install 'jaxood[tfds]').
"""

from experiments import lab
from experiments.batch_norm.settings import Config
from experiments.batch_norm.studies import FASHION_MNIST

PRESETS = FASHION_MNIST.presets
study_of = FASHION_MNIST.study_of
main = FASHION_MNIST.main

if __name__ == "__main__":
    lab.main(main, Config, __doc__)
