"""The fooling experiment from images to report."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import lab
from experiments.batch_norm import paper
from experiments.batch_norm.fooling.figures import drawings
from experiments.batch_norm.fooling.results import RATIOS, Attack, Results, null_name
from experiments.batch_norm.fooling.search import find_temperature, sampler
from experiments.batch_norm.settings import R1, R2, Sizes
from jaxood import data, report, scores
from jaxood.density import bits_per_dim
from jaxood.report import label
from jaxood.report.record import Record, ResultRow
from jaxood.train import Recipe, Trained

PAGE = Path(__file__).with_name("page.md")
LIKELIHOOD_SCORES = ("neg_log_prob", "t_perm", "typicality")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Two models of one recipe, of which one is to fool the other.

    Attributes:
        in_dist: name of the trusted set.
        other: name of the set that the model that fools is trained on.
        recipe: the trusted model and its training.
        attacker: the model that fools and its training.
        sizes: the amount of scoring.
        chunk: number of samples drawn at a time; the search judges a temperature by one chunk.
    """

    in_dist: str
    other: str
    recipe: Recipe
    attacker: Recipe
    sizes: Sizes
    chunk: int


class Other(NamedTuple):
    """Images of the model that fools.

    Attributes:
        train: uint8 ``(n, h, w, c)``, to train on.
        test: uint8 ``(m, h, w, c)``, to judge.
        cut: whether both are parts of the test split, cut by position.
    """

    train: np.ndarray
    test: np.ndarray
    cut: bool


class Images(NamedTuple):
    """The images of a study.

    Attributes:
        trusted: training images of the trusted model, uint8 ``(n, h, w, c)``.
        other: those of the model that fools.
        sets: uint8 images to score, by set.
    """

    trusted: np.ndarray
    other: Other
    sets: dict[str, np.ndarray]


def run(study: Study, flags: lab.Flags, out: Path, directory: Path) -> Record:
    """Train both models, find the temperature, score, and write the record and the report.

    Args:
        study: the two models.
        flags: flags of the command line.
        out: folder of the run.
        directory: folder of the trusted model.

    Raises:
        DataError: without one of the two sets.
        UsageError: if there are too few images, no temperature is found, or the folder holds
            another run.
    """
    run = lab.begin(flags, "fooling", out)
    images = load(study, flags)
    p = run.train(
        study.recipe,
        images.trusted,
        name=study.recipe.model,
        in_dist=study.in_dist,
        directory=directory,
    )
    # Another seed, so that the two networks do not start alike.
    q = run.train(
        study.attacker,
        images.other.train,
        name=study.attacker.model,
        in_dist=study.other,
        part="attacker",
        seed=flags.seed + 1,
    )
    run.store.expect(lab.identity(images.sets, trusted=p.variables, attacker=q.variables))
    results = _attack(run, study, images, p, q)
    return _finish(run, results, images, p, q)


# ------------------------------------------------------------------------------------ the images


def split_by_position(images: np.ndarray, share: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """Cut images in two: the first ``share`` of them and the rest, in order.

    Where neighbours come from one photograph, parts drawn at random would share photographs.
    """
    cut = round(share * len(images))
    return images[:cut], images[cut:]


def load_other(name: str, data_dir: Path | None) -> Other:
    """Load images to train the model that fools on, and others of the same set to judge.

    SVHN may be at hand as its test split alone, which is then cut in two.

    Raises:
        DataError: if the set is not there.
    """
    try:
        train, _ = data.load(name, "train", data_dir)
    except data.AbsentError as error:
        if name != "svhn_cropped":
            raise
        test, _ = data.load(name, "test", data_dir)
        print(f"{label(name)} is its test split, cut in two: {error}", flush=True)
        return Other(*split_by_position(test), cut=True)
    test, _ = data.load(name, "test", data_dir)
    return Other(train, test, cut=False)


def load(study: Study, flags: lab.Flags) -> Images:
    """Load the images of both models, and of those to judge as many as are scored.

    Raises:
        DataError: without one of the two sets.
        UsageError: if there are too few images.
    """
    sizes, rng = study.sizes, np.random.default_rng(flags.seed)
    trusted, _ = data.load(study.in_dist, "train", flags.data_dir)
    held_out, _ = data.load(study.in_dist, "test", flags.data_dir)
    other = load_other(study.other, flags.data_dir)
    cuts = np.cumsum([sizes.images, sizes.null_images])
    if len(held_out) < cuts[-1] or len(other.test) < sizes.batch_size:
        raise lab.UsageError(
            f"{len(held_out)} test images of {study.in_dist} and {len(other.test)} of "
            f"{study.other} are too few: {cuts[-1]} and {sizes.batch_size} are needed"
        )
    test, null, _ = np.split(rng.permutation(held_out), cuts)
    sets = {study.in_dist: test, null_name(study.in_dist): null}
    sets[study.other] = rng.permutation(other.test)[: sizes.images]
    return Images(trusted, other, sets)


# ------------------------------------------------------------------------------------ the attack


def _attack(run: lab.Run, study: Study, images: Images, p: Trained, q: Trained) -> Results:
    """Score the sets, find the temperature, draw and score samples at it and at the paper's."""
    sizes, sets = study.sizes, dict(images.sets)
    keys = jax.random.split(jax.random.key(run.flags.seed), 2 + 1 + len(paper.TABLE_4))
    score_key, search_key, *sample_keys = keys
    draw = sampler(q.model, q.variables, study.chunk)
    log_probs, seconds = {}, {}

    def score(name: str) -> None:
        def compute() -> np.ndarray:
            print(f"scoring {len(sets[name])} images: {label(name)}", flush=True)
            return scores.mixed_log_prob(
                p.model, p.variables, sets[name], images.trusted, RATIOS, key=score_key,
                batch_size=sizes.batch_size, draws=sizes.draws, show_progress=True,
            )  # fmt: skip

        log_probs[name], seconds[name] = run.store.timed(f"log_prob/{name}", compute)

    for name in images.sets:
        score(name)

    def search_log_prob(temperature: float) -> np.ndarray:
        def compute() -> np.ndarray:
            samples = draw(search_key, study.chunk, temperature)
            return scores.log_prob(p.model, p.variables, samples, key=score_key)

        values = run.store.get(f"search/{temperature!r}", compute)
        print(f"T = {temperature:.4g}: median log p = {np.median(values):,.1f} nats", flush=True)
        return values

    target = float(np.median(log_probs[null_name(study.in_dist)][:, 0].mean(0)))
    print(f"looking for the temperature with median log p = {target:,.1f} nats", flush=True)
    found = find_temperature(search_log_prob, target)
    attack = Attack(
        model=study.recipe.model,
        in_dist=study.in_dist,
        other=study.other,
        sizes=sizes,
        temperature=found.temperature,
        target=target,
        tried=found.tried,
    )
    for (name, t), key in zip(attack.temperatures.items(), sample_keys, strict=True):
        sets[name] = run.store.get(
            f"samples/{name}", lambda t=t, key=key: draw(key, sizes.images, t)
        )
        score(name)
    return Results(
        model=attack.model,
        in_dist=attack.in_dist,
        null=attack.null,
        ood=(attack.other, *attack.temperatures),
        image_shape=images.trusted.shape[1:],
        sizes=sizes,
        ratios=RATIOS,
        log_probs=log_probs,
        seconds=seconds,
        titles=attack.titles,
        attack=attack,
        sets=sets,
    )


def _finish(run: lab.Run, results: Results, images: Images, p: Trained, q: Trained) -> Record:
    rows, table_4, titles = results.main_rows, results.table_4, results.titles
    extra: dict[str, object] = results.extra()
    cut = [len(images.other.train), len(images.other.test)] if images.other.cut else None
    if cut:
        extra["cut_by_position"] = cut

    def detection(rows: list[ResultRow], caption: str) -> report.Table:
        return report.detection_table(rows, caption=caption, titles=titles)

    context: Mapping[str, object] = {
        "attack": results.attack,
        "is_paper": bool(table_4),
        "r1": R1,
        "r2": R2,
        "cut": cut,
        "likelihood": detection(
            [row for row in rows if row.score in LIKELIHOOD_SCORES],
            "AUROC of scores of the likelihood",
        ),
        "test": detection(
            [row for row in rows if row.score not in LIKELIHOOD_SCORES],
            "AUROC of the BatchNorm test",
        ),
        "bpd": report.bpd_table(
            results.bpd_rows,
            caption="Mean bits per dimension under p in the two modes"
            + " (paper, Table 4)" * bool(table_4),
            paper=table_4,
            titles=titles,
        ),
        "temperatures": detection(
            [row for row in results.temperature_rows if row.score != "batch_norm_rank"],
            "AUROC of samples at the temperatures of Table 4",
        ),
    }
    shape = results.image_shape
    p_losses, q_losses = (bits_per_dim(-trained.losses, shape) for trained in (p, q))
    return run.finish(
        PAGE,
        headline=results.headline(),
        title=f"Fooling the likelihood of a {label(results.model)}",
        context=context,
        figures=drawings(results, p_losses, q_losses),
        results=rows,
        bpd=results.bpd_rows,
        sweeps=results.temperature_rows,
        extra=extra,
    )
