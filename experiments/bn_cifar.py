"""The BatchNorm paper on CIFAR-10: Tables 1 (b, d), 2 and 5, Figure 3.

Trains RealNVP, PixelCNN++ or the VAE (--model) on CIFAR-10 and judges rotated CIFAR-10, SVHN,
ImageNet and LSUN as the paper does, and CelebA, CIFAR-100 and Tiny-ImageNet (tiny_imagenet32.npz
in the data folder) besides. OOD sets that are not to be had are left out, and named in the
report. Data sets are read from --data-dir where they lie prepared, or downloaded by TFDS (pip
install 'jaxood[tfds]').
"""

from experiments import lab
from experiments.batch_norm import study
from experiments.batch_norm.settings import Amount, Config, Study, presets
from jaxood.report.record import Record

OOD = (
    "cifar10/rotated",
    "svhn_cropped",
    "downsampled_imagenet",
    "lsun",
    "tiny_imagenet32",
    "celeb_a",
    "cifar100",
)
PRESETS = presets(
    experiment="bn_cifar",
    title="The BatchNorm test on CIFAR-10",
    in_dist="cifar10",
    ood=OOD,
    realnvp={"width": 64, "depth": 8},
    epochs_100=78_100,
    small=Amount({"realnvp": 500, "vae": 300, "pixelcnn": 250}, statistics_images=9600),
    members=Amount({"realnvp": 60, "vae": 60, "pixelcnn": 50}, statistics_images=1600),
)


def study_of(flags: Config) -> Study:
    """Return the study that a command line asks for."""
    return flags.study(PRESETS)


def main(flags: Config) -> Record:
    """Run the experiment."""
    return study.run(study_of(flags), flags, flags.folder("bn_cifar"))


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
