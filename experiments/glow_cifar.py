"""What the NRM paper holds its own method against: Glow and a VAE, Figures 1 (b), 3 (c) and 3 (d).

Trains both on CIFAR-10, shows what they think of SVHN and of CelebA x 0.8, next to what a neural
rendering model does, and says of each of the paper's sentences about them whether it holds. Data
sets are read from --data-dir where they lie prepared, or downloaded by TFDS (pip install
'jaxood[tfds]').
"""

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from experiments import bn_cifar, nrm_cifar
from experiments.lab import common, recipes
from experiments.lab.store import Scores, identity
from experiments.nrm.glow import report as glow_report
from experiments.nrm.glow.results import Results
from experiments.nrm.results import fitted
from experiments.nrm.settings import load_sets
from jaxood import parallel, scores
from jaxood.report import record
from jaxood.report.labels import label
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
CHUNK = 100
"""Images in one call of a program."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
    """Flags of the experiment."""

    preset: Literal["smoke", "small", "paper"] = "small"
    """smoke: seconds, embedded photographs, checks that everything runs. small: less than half an
    hour on 2 CPU cores. paper: the sizes of the models' own papers, for an accelerator."""
    steps: int | None = None
    """Training steps of each model, in place of the preset's."""
    nrm_run: Path | None = None
    """Folder of a finished run of nrm_cifar with the same preset and seed, whose first model is
    then used; without it a neural rendering model is trained here."""


class Compared(NamedTuple):
    """The density models, by name."""

    glow: recipes.Trained
    vae: recipes.Trained


def main(config: Config):
    """Run the experiment."""
    common.start(config)
    out = config.out or Path(f"runs/glow_cifar-{config.preset}")
    nrm_folder, study = _nrm(config, out)
    common.open_run(out, "glow_cifar", config)
    images, sets, absent = load_sets(study, seed=config.seed, data_dir=config.data_dir)
    store = Scores(out / "scores.npz")

    def train(recipe: Recipe):
        print(f"training: {label(recipe.model)}", flush=True)
        return recipes.trained(
            recipe.with_steps(config.steps),
            study.in_dist,
            images.images,
            seed=config.seed,
            devices=config.devices,
            directory=out / recipe.model,
        )

    models = Compared(train(GLOW[config.preset]), train(VAE[config.preset]))
    store.expect(identity(glow=models.glow.variables, vae=models.vae.variables))
    print("training: NRM", flush=True)
    trained, rendered = fitted(study, images, sets, store, nrm_folder, devices=config.devices)
    shown = [name for name in (study.in_dist, study.train, *study.ood) if name in sets]
    values = {
        name: _scored(models, name, sets[name].images, config.seed, store)
        | {s: rendered.scores[config.seed][name][s] for s in ("nrm_latent", "nrm_neg_log_prob")}
        for name in shown
    }
    results = Results(study, values, images.images.shape[1:])
    samples = store.get("samples", lambda: _samples(models.glow, config.seed))
    nrm = trained[config.seed].fit
    made = record.Record(
        experiment="glow_cifar",
        seed=config.seed,
        preset=config.preset,
        environment=common.environment(config.devices),
        models=[
            models.glow.row,
            models.vae.row,
            record.ModelRow("nrm", study.in_dist, nrm.parameters, study.recipe.steps, nrm.seconds),
        ],
        bpd=results.bpd_rows(),
        results=results.rows(),
        extra={"claims": [claim._asdict() for claim in results.claims()], "absent": absent},
    )
    losses = {"glow": models.glow.losses, "vae": models.vae.losses}
    if parallel.is_writer():
        glow_report.draw(results, samples, losses, out / "figures")
        page = glow_report.write(results, made, len(images.images), absent, out)
        print(f"{results.headline()}\nreport: {page}")
    return made


def _nrm(config: Config, out: Path):
    """Where the neural rendering model is trained, or lies trained; and what is to be measured.

    Raises:
        UsageError: if the run that is to lend it has other settings, or has not finished.
    """
    own = nrm_cifar.Config(
        preset=config.preset, seed=config.seed, steps=config.steps, models=1, negativity=False
    )
    study = own.study()
    if config.preset != "smoke":
        study = dataclasses.replace(study, ood=OOD, main=len(OOD), classes={}, families=())
    run = config.nrm_run
    if run is None:
        return out / "nrm", study
    wanted = common.settings("nrm_cifar", own)
    del wanted["models"], wanted["negativity"]
    part = f"seed_{config.seed}"
    parallel.on_writer(common.finished_part, run, "--nrm-run", wanted, part)
    return run, study


def _scored(models: Compared, name, images, seed, store: Scores):
    """Scores of one set, by name, each computed once."""
    key = jax.random.key(seed)
    size = min(CHUNK, len(images))

    def once(what, model: recipes.Trained, compute):
        def announced():
            print(f"scoring {len(images)} images: {label(name)}, {what}", flush=True)
            return compute(
                model.model, model.variables, images, key=key, batch_size=size, show_progress=True
            )

        return store.get(f"{what}/{name}", announced)

    by_level = once("glow_log_pz", models.glow, scores.glow_log_pz)
    return {
        "glow_neg_log_prob": once("glow_neg_log_prob", models.glow, lambda *given, **how: -scores.log_prob(*given, **how)),
        "vae_neg_log_prob": once("vae_neg_log_prob", models.vae, lambda *given, **how: -scores.log_prob(*given, **how)),
        "glow_neg_log_pz_last": -by_level[-1],
        "glow_neg_log_pz_all": -by_level.sum(0),
    }


def _samples(glow: recipes.Trained, seed, n=16):
    draw = jax.jit(lambda variables, key: glow.model.sample(variables, key, n, temperature=0.8))
    return np.asarray(draw(glow.variables, jax.random.key(seed)))


if __name__ == "__main__":
    common.run(main, Config, __doc__)
