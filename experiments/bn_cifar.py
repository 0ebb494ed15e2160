"""The BatchNorm paper on CIFAR-10: Tables 1 (b, d), 2 and 5, Figure 3.

This experiment trains RealNVP, PixelCNN++ or the VAE (--model) on CIFAR-10. It judges rotated
CIFAR-10, SVHN, ImageNet and LSUN as the paper does, and also CelebA, CIFAR-100 and Tiny-ImageNet
(tiny_imagenet32.npz in the data folder). OOD sets that cannot be loaded are left out, and named in
the report. Data sets that lie prepared in --data-dir are read from there; others are downloaded by
TFDS (pip install 'jaxood[tfds]').
"""

from experiments import lab
from experiments.batch_norm.settings import Config
from experiments.batch_norm.studies import CIFAR10

PRESETS = CIFAR10.presets
study_of = CIFAR10.study_of
main = CIFAR10.main

if __name__ == "__main__":
    lab.main(main, Config, __doc__)
