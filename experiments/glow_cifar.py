"""What the NRM paper holds its own method against: Glow and a VAE, Figures 1 (b), 3 (c) and 3 (d).

Trains both on CIFAR-10, shows what they think of SVHN and of CelebA x 0.8, next to what a neural
rendering model does, and says of each of the paper's sentences about them whether it holds. Data
sets are read from --data-dir where they lie prepared, or downloaded by TFDS (pip install
'jaxood[tfds]').
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import bn_cifar, lab, nrm_cifar
from experiments.nrm.glow import study
from experiments.nrm.settings import Study
from jaxood import parallel
from jaxood.report.record import Record
from jaxood.train import Recipe

OOD = ("svhn_cropped", "celeb_a/scaled_0.8")
GLOW = {
    "smoke": Recipe(model="glow", width=8, depth=2, steps=3, batch_size=16),
    "small": Recipe(model="glow", width=64, depth=8, steps=400, warmup=50),
    # The authors' model and rate; 100 epochs.
    "paper": Recipe(model="glow", width=512, depth=32, steps=78_100, warmup=5_000),
}
VAE = {
    "smoke": Recipe(model="vae", width=2, steps=3, batch_size=16, statistics_images=32),
    # Narrower than bn_cifar's: at equal time it is ahead, on trusted images.
    "small": Recipe(model="vae", width=8, steps=400, statistics_images=9600),
    "paper": bn_cifar.PRESETS["vae", "paper"].recipe,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the experiment."""

    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds, embedded photographs, checks that everything runs. small: less than half an
    hour on 2 CPU cores. paper: the sizes of the models' own papers, for an accelerator."""
    steps: int | None = None
    """Training steps of each model, in place of the preset's."""
    nrm_run: Path | None = None
    """Folder of a finished run of nrm_cifar with the same preset and seed, whose first model is
    then used; without it a neural rendering model is trained here."""

    def lender(self) -> nrm_cifar.Config:
        """Return the flags of nrm_cifar that train the neural rendering model."""
        return nrm_cifar.Config(
            preset=self.preset, seed=self.seed, steps=self.steps, models=1, negativity=False
        )

    def study(self) -> Study:
        """Return the study that the command line asks for."""
        made = self.lender().study()
        if self.preset == "smoke":
            return made
        return dataclasses.replace(made, ood=OOD, main=len(OOD), classes={}, families=())

    def nrm_folder(self, out: Path) -> Path:
        """Return the folder that holds the folder of the neural rendering model.

        Raises:
            UsageError: if the run that is to lend it has other settings, or has not finished.
        """
        if self.nrm_run is None:
            return out / "nrm"
        wanted = lab.settings("nrm_cifar", self.lender())
        del wanted["models"], wanted["negativity"]
        return lab.finished_part(self.nrm_run, "--nrm-run", wanted, f"seed_{self.seed}").parent


def main(flags: Config) -> Record:
    """Run the experiment."""
    lab.start(flags)
    out = flags.out or Path(f"runs/glow_cifar-{flags.preset}")
    return study.run(
        flags.study(),
        flags,
        out,
        glow=GLOW[flags.preset].with_steps(flags.steps),
        vae=VAE[flags.preset].with_steps(flags.steps),
        nrm_folder=parallel.on_writer(flags.nrm_folder, out),
    )


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
