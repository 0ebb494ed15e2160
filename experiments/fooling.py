"""Fooling likelihood-based tests: Appendix B and C.3 of the BatchNorm paper, Figures 4, 5, Table 4.

A second model, trained on other images, draws samples at a temperature at which the trusted model
finds them neither too likely nor too unlikely: RealNVP trained on SVHN against RealNVP trained on
CIFAR-10, or PixelCNN++ trained on MNIST against PixelCNN++ trained on Fashion-MNIST (--model). The
permutation test is fooled. The BatchNorm test sees the same samples, which the paper leaves out.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import bn_cifar, bn_fashion_mnist
from experiments.batch_norm import settings as batch_norm_study
from experiments.batch_norm.fooling import report as fooling_report
from experiments.batch_norm.fooling.results import (
    RATIOS,
    TEMPERATURES,
    Attack,
    Results,
    null_name,
)
from experiments.batch_norm.fooling.search import find_temperature, sampler
from experiments.batch_norm.settings import Sizes
from experiments.lab import common
from experiments.lab.common import UsageError
from experiments.lab.recipes import Trained, trained
from experiments.lab.store import Scores, identity
from jaxood import data, parallel, scores
from jaxood.report import record
from jaxood.report.labels import label


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(common.Flags):
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Who is fooled by whom.

    Attributes:
        experiment: where the trusted model comes from.
        presets: its presets.
        sets: trusted images, and those of the model that fools.
    """

    experiment: str
    presets: dict[tuple[str, str], batch_norm_study.Preset]
    sets: tuple[str, str]


PAIRS = {
    "realnvp": Pair(
        experiment="bn_cifar",
        presets=bn_cifar.PRESETS,
        sets=("cifar10", "svhn_cropped"),
    ),
    "pixelcnn": Pair(
        experiment="bn_fashion_mnist",
        presets=bn_fashion_mnist.PRESETS,
        sets=("fashion_mnist", "mnist"),
    ),
}
SMOKE_SETS = ("digits", "digits/scaled_0.5")
"""Embedded ones in their place."""
SIZES = {
    "smoke": Sizes(images=64, null_images=64, draws=2),
    "small": Sizes(images=200, null_images=200, draws=2),
    "paper": Sizes(images=2500, null_images=2500, draws=10),
}
ATTACKER_STEPS = {"small": 200}
"""Training steps of the model that fools, where they are fewer than the trusted one's."""
CHUNK = {"smoke": 64, "small": 128, "paper": 256}
"""Samples drawn at a time; the search judges a temperature by one such chunk."""


def main(config: Config) -> record.Record:
    """Run the experiment."""
    common.start(config)
    pair = PAIRS[config.model]
    out = config.out or Path(f"runs/fooling-{config.model}-{config.preset}")
    p_directory = parallel.on_writer(trusted_directory, config, pair, out)
    common.open_run(out, "fooling", config)
    recipe = pair.presets[config.model, config.preset].recipe.with_steps(config.steps)
    names = SMOKE_SETS if config.preset == "smoke" else pair.sets
    images, sets, note = _load(config, *names)
    p = trained(
        recipe,
        names[0],
        images[0],
        seed=config.seed,
        devices=config.devices,
        directory=p_directory,
    )
    # Another seed, so that the two networks do not start alike.
    q = trained(
        recipe.with_steps(config.steps or ATTACKER_STEPS.get(config.preset)),
        names[1],
        images[1],
        seed=config.seed + 1,
        devices=config.devices,
        directory=out / "attacker",
    )
    made_from = identity(sets, trusted=p.variables, attacker=q.variables)
    store = Scores(out / "scores.npz", made_from)
    results = _attack(config, names, p, q, images[0], sets, store)
    made = record.Record(
        experiment="fooling",
        seed=config.seed,
        preset=config.preset,
        environment=common.environment(config.devices),
        models=[p.row, q.row],
        bpd=results.bpd_rows(),
        results=results.main_rows(),
        sweeps=results.temperature_rows(),
        extra=results.extra() | ({"note": note} if note else {}),
    )
    if parallel.is_writer():
        fooling_report.draw(results, p.losses, q.losses, out / "figures")
        page = fooling_report.write(results, made, note, out)
        print(f"{results.headline()}\nreport: {page}")
    return made


# ----------------------------------------------------------------------- settings and images


def trusted_directory(config: Config, pair: Pair, out: Path) -> Path:
    """Where the trusted model is trained, or lies trained.

    Raises:
        UsageError: if the run that is to lend it has other settings, or has not finished.
    """
    run = config.trusted_run
    if run is None:
        return out / "model"
    wanted = {"experiment": pair.experiment} | {
        name: getattr(config, name) for name in ("model", "preset", "seed", "steps")
    }
    return common.finished_part(run, "--trusted-run", wanted, "model")


def split_by_position(images, share=0.75):
    """The first ``share`` of the images and the rest, in order.

    Where neighbours come from one photograph, parts drawn at random would share photographs.
    """
    cut = round(share * len(images))
    return images[:cut], images[cut:]


def load_attacker(name: str, data_dir):
    """Images to train on, others of the same set to judge, and a note on where they come from."""
    try:
        train, _ = data.load(name, "train", data_dir)
    except data.AbsentError as error:
        if name != "svhn_cropped":
            raise
        test, _ = data.load(name, "test", data_dir)
        train, test = split_by_position(test)
        print(f"{label(name)} is its test split, cut in two: {error}", flush=True)
        note = (
            f"{label(name)} was at hand as its test split alone. The model that fools was trained "
            f"on the first {len(train):,} of its images, and those judged come from the last "
            f"{len(test):,}: neighbours are digits of one photograph, so the cut is by position."
        )
        return train, test, note
    test, _ = data.load(name, "test", data_dir)
    return train, test, ""


def _load(config: Config, trusted: str, other: str):
    """Training images of both models; the sets to score, by name; a note for the report."""
    sizes, rng = SIZES[config.preset], np.random.default_rng(config.seed)
    train, _ = data.load(trusted, "train", config.data_dir)
    held_out, _ = data.load(trusted, "test", config.data_dir)
    other_train, other_test, note = load_attacker(other, config.data_dir)
    cuts = np.cumsum([sizes.images, sizes.null_images])
    if len(held_out) < cuts[-1] or len(other_test) < sizes.batch_size:
        raise UsageError(
            f"{len(held_out)} test images of {trusted} and {len(other_test)} of {other} are too "
            f"few: {cuts[-1]} and {sizes.batch_size} are needed"
        )
    test, null, _ = np.split(rng.permutation(held_out), cuts)
    sets = {trusted: test, null_name(trusted): null}
    return (train, other_train), sets | {other: rng.permutation(other_test)[: sizes.images]}, note


# --------------------------------------------------------------------------------- the attack


def _attack(config: Config, names, p: Trained, q: Trained, trusted, sets, store: Scores):
    """Score the sets, find the temperature, draw and score samples at it and at the paper's."""
    sizes = SIZES[config.preset]
    all_keys = jax.random.split(jax.random.key(config.seed), 2 + 1 + len(TEMPERATURES))
    score_key, search_key, *sample_keys = all_keys
    draw = sampler(q.model, q.variables, CHUNK[config.preset])
    log_probs, seconds = {}, {}

    def score(name, images):

        def compute():
            print(f"scoring {len(images)} images: {label(name)}", flush=True)
            return scores.mixed_log_prob(
                p.model, p.variables, images, trusted, RATIOS, key=score_key,
                batch_size=sizes.batch_size, draws=sizes.draws, show_progress=True,
            )  # fmt: skip

        values, seconds[name] = store.timed(f"log_prob/{name}", compute)
        return values

    in_dist, other = names
    null = null_name(in_dist)
    log_probs |= {name: score(name, sets[name]) for name in (in_dist, null, other)}

    def search_log_prob(temperature):
        def compute():
            images = draw(search_key, CHUNK[config.preset], temperature)
            return np.asarray(scores.log_prob(p.model, p.variables, images, key=score_key))

        values = store.get(f"search/{temperature!r}", compute)
        print(f"T = {temperature:.4g}: median log p = {np.median(values):,.1f} nats", flush=True)
        return values

    target = float(np.median(log_probs[null][:, 0].mean(0)))
    print(f"looking for the temperature with median log p = {target:,.1f} nats", flush=True)
    found = find_temperature(search_log_prob, target)
    attack = Attack(
        model=config.model,
        in_dist=in_dist,
        other=other,
        sizes=sizes,
        temperature=found.temperature,
        target=target,
        tried=found.tried,
    )
    for (name, temperature), sample_key in zip(
        attack.temperatures.items(), sample_keys, strict=True
    ):
        sets[name] = store.get(
            f"samples/{name}", lambda t=temperature, k=sample_key: draw(k, sizes.images, t)
        )
        log_probs[name] = score(name, sets[name])
    return Results(attack, sets, log_probs, seconds)


if __name__ == "__main__":
    common.run(main, Config, __doc__)
