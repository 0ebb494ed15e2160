"""OOD detection using neural rendering models: every table and figure of the NRM paper.

Trains a ConvNet that classifies CIFAR-10 and renders it back, once a seed, and scores SVHN,
CelebA x 0.8 (in both ranges that the paper may mean) and CIFAR-100 by the likelihood of its
latents, by its reconstruction loss at every layer and by log p(x). The report says of each of the
paper's sentences whether it holds. Data sets are read from --data-dir where they lie prepared, or
downloaded by TFDS (pip install 'jaxood[tfds]').
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import lab
from experiments.nrm import study
from experiments.nrm.settings import PRESETS, Architecture, Study
from jaxood.report.record import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the experiment."""

    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds, embedded photographs, checks that everything runs. small: 20 minutes on 2
    CPU cores. paper: the paper's sizes, for an accelerator."""
    architecture: Architecture | None = None
    """Network, in place of the preset's."""
    batch_norm: bool = False
    """BatchNorm, folded into weights and biases for rendering."""
    augment: bool = False
    """Crop and flip training images; the preset paper does so anyway."""
    labelled: float = 1.0
    """Share of the training images whose labels are used; the others are rendered from y*."""
    latent: float = 0.0
    """Weight of the likelihood of the latents in training (the paper's future directions)."""
    path: float | None = None
    """Weight of the rendering-path normalization, in place of the preset's."""
    steps: int | None = None
    """Training steps, in place of the preset's."""
    models: int = 3
    """Number of models, of the seeds seed, seed + 1, ...."""
    negativity: bool = True
    """Train one more model, without the negativity loss, to see whether it is crucial."""

    def study(self) -> Study:
        """Return the study that the command line asks for.

        Raises:
            UsageError: if there is to be no model, or the share of labels is out of range.
        """
        if self.models < 1:
            raise lab.UsageError(f"--models {self.models}: there must be one at least")
        if not 0 < self.labelled <= 1:
            raise lab.UsageError(f"--labelled {self.labelled}: give a share above 0, at most 1")
        preset = PRESETS[self.preset]
        recipe, weights = preset.recipe.with_steps(self.steps), preset.recipe.loss_weights
        assert weights is not None
        path = weights.path if self.path is None else self.path
        recipe = dataclasses.replace(
            recipe,
            model=self.architecture or recipe.model,
            options={**recipe.options, "batch_norm": self.batch_norm},
            loss_weights=weights._replace(latent=self.latent, path=path),
            labelled=self.labelled,
            augment=self.augment or recipe.augment,
        )
        seeds = tuple(range(self.seed, self.seed + self.models))
        return dataclasses.replace(preset, recipe=recipe, seeds=seeds)


def main(flags: Config) -> Record:
    """Run the experiment."""
    out = flags.out or Path(f"runs/nrm_cifar-{flags.preset}")
    return study.run(flags.study(), flags, out, negativity=flags.negativity)


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
