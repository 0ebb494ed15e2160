"""Screen any number of images with a model that an experiment has trained.

This command takes the model of a finished run (quickstart, bn_fashion_mnist or bn_cifar),
calibrates it on held-out trusted images, and judges every image of --images: a name such as
svhn_cropped, a .npz or .npy file, or a folder of images. Images are read while the model works, so
memory does not grow with their number. As they are judged, scores.csv in --out gets a line for
each: position, file name, score (higher = more OOD), p-value, and 1 if the image is reported. An
image that cannot be read gets a line with the reason. If the command is stopped at any moment, the
same command goes on where it was. At the end report.html shows the most suspicious images.

Example: python -m experiments.quickstart, then
python -m experiments.screen --run runs/quickstart --images digits/rotated --score batch_norm_delta
--false-positive-rate 0.1
"""

from experiments import bn_cifar, bn_fashion_mnist, lab, quickstart
from experiments.screening import study
from experiments.screening.settings import Config
from jaxood import stream

RUNS = {"quickstart": quickstart, "bn_fashion_mnist": bn_fashion_mnist, "bn_cifar": bn_cifar}
"""Experiments whose models can screen."""


def main(flags: Config) -> stream.Summary:
    """Screen."""
    return study.screen(flags, RUNS)


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
