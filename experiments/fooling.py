"""Fooling likelihood-based tests: Appendix B and C.3 of the BatchNorm paper, Figures 4, 5, Table 4.

A second model, trained on other images, draws samples at a temperature at which the trusted model
finds them neither too likely nor too unlikely: RealNVP trained on SVHN against RealNVP trained on
CIFAR-10, or PixelCNN++ trained on MNIST against PixelCNN++ trained on Fashion-MNIST (--model). The
permutation test is fooled. The BatchNorm test sees the same samples, which the paper leaves out.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import bn_cifar, bn_fashion_mnist, lab
from experiments.batch_norm.fooling import study
from experiments.batch_norm.fooling.study import Study
from experiments.batch_norm.settings import Sizes
from jaxood import parallel
from jaxood.report.record import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the experiment."""

    model: Literal["realnvp", "pixelcnn"] = "realnvp"
    """Kind of both models, the trusted one and the one that fools it."""
    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds, embedded images, checks that everything runs. small: a quarter of an hour on
    2 CPU cores with --trusted-run. paper: the paper's sizes, for an accelerator."""
    steps: int | None = None
    """Training steps of both models, in place of the preset's."""
    trusted_run: Path | None = None
    """Finished run of bn_cifar (realnvp) or bn_fashion_mnist (pixelcnn) with the same preset, seed
    and steps: its trained model is the trusted one, and is not trained here again."""


LENDERS = {"realnvp": bn_cifar.PRESETS, "pixelcnn": bn_fashion_mnist.PRESETS}
"""Presets of the experiments whose trusted models are fooled."""
OTHERS = {"realnvp": "svhn_cropped", "pixelcnn": "mnist"}
"""The sets that the models that fool are trained on."""
SIZES = {
    "smoke": Sizes(images=64, null_images=64, draws=2),
    "small": Sizes(images=200, null_images=200, draws=2),
    "paper": Sizes(images=2500, null_images=2500, draws=10),
}
ATTACKER_STEPS = {"small": 200}
"""Training steps of the model that fools, where they are fewer than the trusted one's."""
CHUNKS = {"smoke": 64, "small": 128, "paper": 256}


def study_of(flags: Config) -> Study:
    """Return the study that a command line asks for."""
    lent = LENDERS[flags.model][flags.model, flags.preset]
    recipe = lent.recipe.with_steps(flags.steps)
    return Study(
        in_dist=lent.in_dist,
        other="digits/scaled_0.5" if flags.preset == "smoke" else OTHERS[flags.model],
        recipe=recipe,
        attacker=recipe.with_steps(flags.steps or ATTACKER_STEPS.get(flags.preset)),
        sizes=SIZES[flags.preset],
        chunk=CHUNKS[flags.preset],
    )


def trusted_directory(flags: Config, out: Path) -> Path:
    """Return the folder in which the trusted model is trained, or lies trained.

    Raises:
        UsageError: if the run that is to lend it has other settings, or has not finished.
    """
    if flags.trusted_run is None:
        return out / "model"
    lender = LENDERS[flags.model][flags.model, flags.preset].experiment
    settings = {name: getattr(flags, name) for name in ("model", "preset", "seed", "steps")}
    wanted = {"experiment": lender} | settings
    return lab.finished_part(flags.trusted_run, "--trusted-run", wanted, "model")


def main(flags: Config) -> Record:
    """Run the experiment."""
    lab.start(flags)
    out = flags.out or Path(f"runs/fooling-{flags.model}-{flags.preset}")
    directory = parallel.on_writer(trusted_directory, flags, out)
    return study.run(study_of(flags), flags, out, directory)


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
