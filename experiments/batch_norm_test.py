"""The BatchNorm test from images to report; an experiment says on what, and how much of it."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import scipy.stats

from experiments.common import Flags, Scores, UsageError, environment
from jaxood import checkpoint, data, detector, figures, metrics, record, report, scores, train
from jaxood.density import DensityModel, bits_per_dim
from jaxood.record import label

R1, R2 = 0.1, 0.9
"""The paper's main setting (Section 6)."""
SWEEP_R2 = (0.15, 0.3, 0.5, 0.9)
"""Its Table 5, with r1 -> 0."""
CONTAMINATION = (0.1, 0.5)
"""Shares of OOD images in the mixed test sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything. A preset is one of these."""

    channels: int
    """Width of the model's networks."""
    blocks: int
    """Their residual blocks."""
    steps: int
    """Training steps."""
    images: int
    """Images of each set that are scored."""
    null_images: int
    """Held-out trusted images that the p-values are calibrated on."""
    draws: int
    """Monte-Carlo draws of companions and noise."""
    batch_size: int = 64
    """Batch size b, in training and in the test (the paper's is 64)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One trusted set, one model, several OOD sets.

    Attributes:
      experiment: its name in the results record.
      title: of the report.
      preset: name of the preset.
      model_name: in the results record.
      model: the density model.
      in_dist: name of the trusted set.
      ood: names of the OOD sets.
      sizes: how much of everything.
      paper_auroc: the paper's Table 2 and, under ``batch_norm_delta@<r2>``, Table 5, by
        (set, score).
      paper_bpd: its Table 1, by (model, set, mode).
      notes: paragraphs for the report on choices that were made, and on what.
    """

    experiment: str
    title: str
    preset: str
    model_name: str
    model: DensityModel
    in_dist: str
    ood: tuple[str, ...]
    sizes: Sizes
    paper_auroc: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    paper_bpd: Mapping[tuple[str, str, str], float] = dataclasses.field(default_factory=dict)
    notes: str = ""

    @property
    def control(self):
        """Name of the set that is trusted, and judged as if it were not."""
        return f"{self.in_dist} (control)"


def run(study: Study, flags: Flags, out: Path) -> record.Record:
    """Train, score, and write the record and the report into ``out``; resume what is there."""
    trusted, sets, null = _load(study, flags)
    model_row, variables, losses = _train(study, flags, trusted, out)
    log_probs, seconds = _score(study, flags, variables, trusted, sets | {"null": null}, out)
    mixed = _contaminate(study, flags, variables, trusted, sets, out)
    samples = {
        f"samples, temperature {t}": np.asarray(
            jax.jit(study.model.sample, static_argnums=2)(
                variables, jax.random.key(flags.seed), 16, temperature=t
            )
        )
        for t in (0.7, 1.0)
    }
    results = _Results(study, trusted.shape[1:], log_probs)
    rows = results.rows(seconds)
    made = record.Record(
        experiment=study.experiment,
        seed=flags.seed,
        preset=study.preset,
        environment=environment(),
        models=[model_row],
        bpd=results.bpd_rows(),
        results=rows,
        sweeps=results.sweep_rows() + _contamination_rows(study, mixed),
        extra={"calibration": results.calibration()},
    )
    _draw(study, results, rows, samples, sets, losses, out / "figures")
    page = _write(study, results, made, out)
    print(f"{results.headline()}\nreport: {page}")
    return made


# ----------------------------------------------------------------------------------- the stages


def _load(study: Study, flags: Flags):
    """Trusted training images, the sets to judge, and the null; all or a `DataError`, at once."""
    sizes = study.sizes
    rng = np.random.default_rng(flags.seed)
    trusted, _ = data.load(study.in_dist, "train", flags.data_dir)
    held_out, _ = data.load(study.in_dist, "test", flags.data_dir)
    held_out = rng.permutation(held_out)
    need = sizes.null_images + 2 * sizes.images
    if len(held_out) < need:
        raise UsageError(
            f"{study.in_dist} has {len(held_out)} test images, but calibration, test and control "
            f"need {need}: score fewer images"
        )
    cuts = np.cumsum([sizes.null_images, sizes.images, sizes.images])
    null, test, control, _ = np.split(held_out, cuts)
    sets = {study.in_dist: test, study.control: control}
    for name in study.ood:
        images, _ = data.load(name, "test", flags.data_dir)
        if images.shape[1:] != trusted.shape[1:]:
            raise UsageError(
                f"images of {name} are {images.shape[1:]}, those of {study.in_dist} "
                f"{trusted.shape[1:]}: give sets of one shape"
            )
        sets[name] = rng.permutation(images)[: sizes.images]
    return trusted, sets, null


def _train(study: Study, flags: Flags, trusted, out: Path):
    sizes, model = study.sizes, study.model
    variables = jax.jit(model.init)(jax.random.key(flags.seed), trusted[:1])
    parameters = sum(p.size for p in jax.tree.leaves(variables["params"]))
    losses = np.zeros(sizes.steps, np.float32)
    finished = variables | {"losses": losses, "seconds": np.float32(0)}
    restored = checkpoint.restore(out / "model", finished)
    if restored is None:
        start = time.monotonic()
        resumed = (out / "checkpoints").exists()
        state = train.fit(
            train.neg_log_prob_loss(model),
            variables,
            trusted,
            steps=sizes.steps,
            batch_size=sizes.batch_size,
            seed=flags.seed,
            directory=out / "checkpoints",
        )
        elapsed = np.nan if resumed else time.monotonic() - start
        statistics = train.population_statistics(
            model, state.variables, trusted, batch_size=sizes.batch_size, seed=flags.seed
        )
        restored = {
            "params": state.params,
            "batch_stats": statistics,
            "losses": state.losses,
            "seconds": np.float32(elapsed),
        }
        checkpoint.save(out / "model", sizes.steps, restored)
    row = record.ModelRow(
        name=study.model_name,
        in_dist=study.in_dist,
        parameters=parameters,
        steps=sizes.steps,
        train_seconds=float(restored["seconds"]),
    )
    variables = {k: restored[k] for k in ("params", "batch_stats")}
    return row, variables, bits_per_dim(-np.asarray(restored["losses"]), trusted.shape[1:])


def _score(study: Study, flags: Flags, variables, trusted, sets, out: Path):
    """Log-likelihoods ``{set: (draws, ratios, n)}`` in nats and seconds by set."""
    store = Scores(out / "scores.npz")
    log_probs, seconds = {}, {}
    for i, (name, images) in enumerate(sets.items()):
        start = time.monotonic()

        def compute(i=i, name=name, images=images):
            print(f"scoring {len(images)} images: {label(name)}")
            return scores.mixed_log_prob(
                study.model,
                variables,
                images,
                trusted,
                ratios(study, name),
                key=jax.random.fold_in(jax.random.key(flags.seed), i),
                batch_size=study.sizes.batch_size,
                draws=study.sizes.draws,
                show_progress=True,
            )

        log_probs[name] = store.get(f"log_prob/{name}", compute)
        seconds[name] = float(
            store.get(f"seconds/{name}", lambda start=start: np.array(time.monotonic() - start))
        )
    return log_probs, seconds


def ratios(study: Study, name: str) -> tuple[float, ...]:
    """The ratios r at which a set is scored: the sweep is for sets under test only."""
    sweep = SWEEP_R2 if name in (study.in_dist, *study.ood) else ()
    return tuple(sorted({0.0, R1, R2, 1.0, *sweep}))


def _contaminate(study: Study, flags: Flags, variables, trusted, sets, out: Path):
    """Delta (r1 -> 0) in test sets that hold both: ``{(set, share): (trusted, ood)}``."""
    store = Scores(out / "scores.npz")
    n, mixed = study.sizes.images, {}
    for name in study.ood:
        for share in CONTAMINATION:
            count = round(share * n)
            images = np.concatenate([sets[study.in_dist][: n - count], sets[name][:count]])

            def compute(name=name, share=share, images=images):
                print(f"scoring {len(images)} images: {share:.0%} of them {label(name)}")
                return scores.batch_norm_delta(
                    study.model,
                    variables,
                    images,
                    trusted,
                    r1=0,
                    r2=R2,
                    key=jax.random.key(flags.seed),
                    batch_size=study.sizes.batch_size,
                    draws=study.sizes.draws,
                    show_progress=True,
                ).mean

            values = store.get(f"contaminated/{name}/{share}", compute)
            mixed[name, share] = values[: n - count], values[n - count :]
    return mixed


# --------------------------------------------------------------------------------- the analysis


class _Results:
    """Every number of the report, as functions of the log-likelihoods."""

    def __init__(self, study: Study, image_shape, log_probs):
        self.study, self.image_shape, self.log_probs = study, image_shape, log_probs
        null = self.at("null", 0).mean(0)
        null_delta = self.delta("null", R1, R2).mean
        self.names = [n for n in log_probs if n != "null"]
        self.scores = {
            name: {
                "neg_log_prob": -self.at(name, 0).mean(0),
                "t_perm": scores.t_perm(self.at(name, 0).mean(0), null),
                "typicality": scores.typicality(self.at(name, 0).mean(0), null),
                "batch_norm_delta": self.delta(name, R1, R2).mean,
                "batch_norm_rank": scores.batch_norm_rank(
                    self.delta(name, R1, R2).mean, null_delta
                ),
            }
            for name in self.names
        }
        self.p_values = detector.p_values_of(
            self.scores[study.in_dist]["batch_norm_delta"], null_delta
        )
        self.null_delta = null_delta

    def at(self, name, ratio):
        """Log-likelihoods ``(draws, n)`` at one ratio, nats."""
        return self.log_probs[name][:, ratios(self.study, name).index(ratio)]

    def delta(self, name, r1, r2):
        return scores.batch_norm.delta(self.at(name, r1), self.at(name, r2))

    def bpd(self, name, ratio):
        """Bits per dimension, one an image: ``(n,)``."""
        return bits_per_dim(self.at(name, ratio).mean(0), self.image_shape)

    def auroc(self, name, score):
        in_dist = self.scores[self.study.in_dist][score]
        return metrics.auroc(in_dist, self.scores[name][score])

    def _row(self, name, score, in_dist, ood, params, paper=None, seconds=None):
        return record.ResultRow.from_detection(
            metrics.detection(in_dist, ood),
            model=self.study.model_name,
            in_dist=self.study.in_dist,
            ood=name,
            score=score,
            params=params,
            paper=paper,
            seconds=seconds,
        )

    def rows(self, seconds):
        """One row a set and a score, at the main setting."""
        study, sizes = self.study, self.study.sizes
        batch = {"b": sizes.batch_size, "r1": R1, "r2": R2, "draws": sizes.draws}
        noise, null = {"draws": sizes.draws}, {"null_images": sizes.null_images}
        params = {
            "neg_log_prob": noise,
            "t_perm": noise | null,
            "typicality": noise | null,
            "batch_norm_delta": batch,
            "batch_norm_rank": batch | null,
        }
        # The paper calls the rank "ours"; Delta orders images as the rank does, but for ties.
        same = {"batch_norm_rank": "batch_norm_delta"}
        return [
            self._row(
                name,
                score,
                self.scores[study.in_dist][score],
                values,
                params[score],
                study.paper_auroc.get((name, same.get(score, score))),
                seconds[name],
            )
            for name in (*study.ood, study.control)
            for score, values in self.scores[name].items()
        ]

    def sweep_rows(self):
        """Table 5: Delta with r1 -> 0 against r2."""
        study, sizes = self.study, self.study.sizes
        return [
            self._row(
                name,
                "batch_norm_delta",
                self.delta(study.in_dist, 0, r2).mean,
                self.delta(name, 0, r2).mean,
                {"b": sizes.batch_size, "r1": 0, "r2": r2, "draws": sizes.draws},
                study.paper_auroc.get((name, f"batch_norm_delta@{r2}")),
            )
            for name in study.ood
            for r2 in SWEEP_R2
        ]

    def bpd_rows(self):
        def row(name, mode, ratio):
            bpd = self.bpd(name, ratio)
            stderr = float(bpd.std(ddof=1) / np.sqrt(len(bpd)))
            return record.BpdRow(
                self.study.model_name, name, mode, float(bpd.mean()), stderr, len(bpd)
            )

        modes = (("evaluation", 0), ("training", 1.0))
        sets = (self.study.in_dist, *self.study.ood)
        return [row(name, mode, ratio) for name in sets for mode, ratio in modes]

    def calibration(self):
        """Whether p-values on fresh trusted images are uniform, and what a 5 % rate becomes."""
        fresh = self.scores[self.study.in_dist]["batch_norm_delta"]
        flagged = int((self.p_values <= 0.05).sum())
        interval = scipy.stats.binomtest(flagged, len(fresh)).proportion_ci()
        return {
            # Two samples, since the null is a sample too.
            "ks_p_value": float(scipy.stats.ks_2samp(fresh, self.null_delta).pvalue),
            "chosen_fpr": 0.05,
            "realised_fpr": flagged / len(fresh),
            "realised_fpr_ci": [float(interval.low), float(interval.high)],
            "n": len(fresh),
            "null_images": len(self.null_delta),
        }

    def headline(self):
        """The result in a sentence or two, whichever way it went: on the likelihood's worst set."""
        worst = min(self.study.ood, key=lambda name: self.auroc(name, "neg_log_prob"))
        likelihood = self.auroc(worst, "neg_log_prob")
        verdict = "prefers them to" if likelihood < 0.5 else "cannot be relied on to tell them from"
        if likelihood > 0.9:
            verdict = "tells them from"
        return (
            f"Trained on {label(self.study.in_dist)} and shown {label(worst)}, the likelihood "
            f"{verdict} trusted images: AUROC of −log p(x) is {likelihood:.3f}. The BatchNorm test "
            f"on the same images: AUROC of Δ is {self.auroc(worst, 'batch_norm_delta'):.3f}."
        )


def _contamination_rows(study: Study, mixed):
    return [
        record.ResultRow.from_detection(
            metrics.detection(trusted, ood),
            model=study.model_name,
            in_dist=study.in_dist,
            ood=name,
            score="batch_norm_delta",
            params={
                "b": study.sizes.batch_size,
                "r1": 0,
                "r2": R2,
                "draws": study.sizes.draws,
                "contamination": share,
            },
        )
        for (name, share), (trusted, ood) in mixed.items()
    ]


# ----------------------------------------------------------------------------------- the report


def _draw(study: Study, results: _Results, rows, samples, sets, losses, folder: Path):
    judged = (study.in_dist, *study.ood)

    def by_set(score):
        return {name: results.scores[name][score] for name in judged}

    def curve(name):
        values = [results.bpd(name, r) for r in ratios(study, name)]
        mean = np.array([v.mean() for v in values])
        return mean, np.array([v.std(ddof=1) / np.sqrt(len(v)) for v in values])

    drawings = {
        "detection": figures.auroc_dots(
            [r for r in rows if r.score in ("neg_log_prob", "t_perm", "batch_norm_delta")]
        ),
        "likelihood": figures.log_prob_histograms(
            {name: -results.bpd(name, 0) for name in judged},
            study.in_dist,
            xlabel="log p(x), evaluation mode (bits per dimension)",
        ),
        "delta": figures.score_histograms(
            by_set("batch_norm_delta"), study.in_dist, xlabel="Δ (nats)", log=True
        ),
        "ratio": figures.bpd_against_ratio(
            ratios(study, study.in_dist), {name: curve(name) for name in judged}, study.in_dist
        ),
        "roc": figures.roc_curves(
            {s: by_set(s) for s in ("neg_log_prob", "t_perm", "typicality", "batch_norm_delta")},
            study.in_dist,
        ),
        "p_values": figures.p_value_calibration(results.p_values, (0.05,)),
        "images": figures.image_grid({label(n): sets[n][:8] for n in judged}, rows=1),
        "samples": figures.image_grid(samples, rows=2),
        "training": figures.training_curve(losses),
    }
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def _write(study: Study, results: _Results, made: record.Record, out: Path):
    calibration, sizes = made.extra["calibration"], study.sizes
    low, high = calibration["realised_fpr_ci"]
    table_5 = [row for row in made.sweeps if "contamination" not in row.params]
    mixed = [row for row in made.sweeps if "contamination" in row.params]
    in_dist = label(study.in_dist)
    stderr = np.median([results.delta(n, R1, R2).stderr for n in (study.in_dist, *study.ood)])

    def sweep_table(caption, rows, setting, heads):
        cells = {(r.ood, r.params[setting]): r for r in rows}
        values = sorted({r.params[setting] for r in rows})

        def cell(row):
            low, high = row.auroc_ci
            paper = f"\n(paper {row.paper:.2f})" if row.paper is not None else ""
            return f"{row.auroc:.3f}\n[{low:.3f}, {high:.3f}]{paper}"

        return report.Table(
            caption,
            ["OOD set", *(heads.format(v) for v in values)],
            [[label(ood), *(cell(cells[ood, v]) for v in values)] for ood in study.ood],
        )

    sections = [
        report.Section(
            "Which images do not belong?",
            f"Every set is {sizes.images} images, judged against {sizes.images} test images of "
            f"{in_dist}; higher scores mean more OOD, and 0.5 is guessing. The last line judges "
            f"{in_dist} against itself and should say 0.5. Brackets are 95 % intervals. The "
            "paper's numbers are for its own, longer-trained models.",
            tables=[report.detection_table(made.results, caption="AUROC (paper, Table 2)")],
            figures=[
                report.FigureFile(
                    "detection.png",
                    "AUROC of three scores with 95 % intervals; hollow marks are the paper's.",
                )
            ],
        ),
        report.Section(
            "The likelihood fails",
            "Under evaluation-mode BatchNorm a likelihood should be highest for the images that "
            "the model was trained on. Simple images get more of it.",
            tables=[
                report.bpd_table(
                    made.bpd,
                    caption="Mean bits per dimension in the two modes (paper, Table 1)",
                    paper=study.paper_bpd,
                )
            ],
            figures=[
                report.FigureFile("likelihood.png", "log p(x) of each set (paper, Figure 1 left).")
            ],
        ),
        report.Section(
            "Batch mates give OOD images away",
            "In training mode, BatchNorm normalizes by the batch. As the share r of test images "
            "in a batch of otherwise trusted ones grows, the likelihood of OOD images falls; that "
            f"of trusted images stays. Δ is that fall, here from r = {R1} to r = {R2}, at "
            f"b = {sizes.batch_size}, over {sizes.draws} paired draws of companions and noise "
            f"(median standard error of an image's Δ: {stderr:.1f} nats).",
            figures=[
                report.FigureFile("ratio.png", "Bits per dimension against r (paper, Figure 3)."),
                report.FigureFile("delta.png", "Δ of each set, on a logarithmic axis."),
                report.FigureFile("roc.png", "ROC curves of four scores."),
            ],
            tables=[
                sweep_table(
                    "AUROC of Δ with r1 → 0 against r2 (paper, Table 5)", table_5, "r2", "r2 = {}"
                )
            ],
        ),
        report.Section(
            "Decisions that can be trusted",
            f"p-values compare an image's Δ with those of {calibration['null_images']} held-out "
            f"trusted images. On {calibration['n']} fresh trusted images they should be uniform: "
            f"a Kolmogorov–Smirnov test gives p = {calibration['ks_p_value']:.3f}. At a chosen "
            f"false-positive rate of 5 % the realised one is "
            f"{100 * calibration['realised_fpr']:.1f} % (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %).",
            figures=[
                report.FigureFile(
                    "p_values.png", "p-values of fresh trusted images, and 95 % band."
                )
            ],
        ),
        report.Section(
            "When a test set holds both",
            "Everything above scores trusted images among trusted ones and OOD images among OOD "
            "ones, as the paper does. In a test set that mixes them, trusted images move as well, "
            "and OOD images have fewer of their own kind around them. Here the score has to tell "
            "the two apart inside one mixed set.",
            tables=[
                sweep_table(
                    f"AUROC of Δ (r1 → 0, r2 = {R2}) inside one set, by its share of OOD images",
                    mixed,
                    "contamination",
                    "{:.0%} OOD",
                )
            ],
        ),
        report.Section(
            "What the model saw, and what it draws",
            study.notes,
            figures=[
                report.FigureFile("images.png", "Images of each set."),
                report.FigureFile("samples.png", "Samples of the model at two temperatures."),
                report.FigureFile("training.png", "Training loss, in training mode."),
            ],
        ),
    ]
    return report.write(
        out, record=made, title=study.title, summary=results.headline(), sections=sections
    )
