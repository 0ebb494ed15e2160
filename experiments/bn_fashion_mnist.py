"""The BatchNorm paper on Fashion-MNIST: Tables 1 (a, c), 2 and 5, Figures 1 (left) and 3.

Trains RealNVP, the VAE or PixelCNN++ (--model) on Fashion-MNIST and judges rotated Fashion-MNIST,
MNIST, Omniglot and KMNIST. Data sets are read from --data-dir where they lie prepared, or
downloaded by TFDS (pip install 'jaxood[tfds]').
"""

from experiments import lab
from experiments.batch_norm import study
from experiments.batch_norm.settings import Amount, Config, Study, presets
from jaxood.report.record import Record

# The paper has no smoothly resampled rotation: it tells the rotation from the ragged resampling.
OOD = (
    "fashion_mnist/rotated",
    "mnist",
    "omniglot",
    "kmnist",
    "fashion_mnist/rotated_bilinear",
)
PRESETS = presets(
    experiment="bn_fashion_mnist",
    title="The BatchNorm test on Fashion-MNIST",
    in_dist="fashion_mnist",
    ood=OOD,
    realnvp={"width": 32, "depth": 4},
    epochs_100=93_700,
    small=Amount({"realnvp": 300, "vae": 300, "pixelcnn": 300}, statistics_images=12_800),
    members=Amount({"realnvp": 80, "vae": 80, "pixelcnn": 50}, statistics_images=3200),
)


def study_of(flags: Config) -> Study:
    """Return the study that a command line asks for."""
    return flags.study(PRESETS)


def main(flags: Config) -> Record:
    """Run the experiment."""
    return study.run(study_of(flags), flags, flags.folder("bn_fashion_mnist"))


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
