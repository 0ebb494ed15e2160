"""Every number of the BatchNorm test's report, as functions of the log-likelihoods."""

import numpy as np
import scipy.stats

from experiments.batch_norm import paper as batch_norm_paper
from experiments.batch_norm.settings import R1, R2, RATIOS, SWEEP_R2, Study
from jaxood import detector, metrics, scores
from jaxood.density import bits_per_dim
from jaxood.report import record
from jaxood.report.labels import label


class Judged:
    """Scores and likelihoods of a trusted set and of others, judged by one model.

    Attributes:
        scores: ``{set: {score: (n,)}}``, higher = more OOD.
        null_delta: Δ of the calibration images.
    """

    def __init__(
        self, model, in_dist, null, ood, *, image_shape, log_probs, ratios, sizes, members=None
    ):
        """Score ``in_dist`` and every name in ``ood``.

        Args:
            model: name of the model.
            in_dist: name of the trusted set.
            null: name of the calibration set.
            ood: names of the sets to judge.
            image_shape: ``(h, w, c)``.
            log_probs: by set ``(draws, ratios, n)``, nats.
            ratios: at which they were taken.
            sizes: how much was scored.
            members: by set ``(members, n)`` of an ensemble, nats; without them no WAIC.
        """
        self.model, self.in_dist, self.ood = model, in_dist, ood
        self.image_shape, self.log_probs, self.ratios = image_shape, log_probs, ratios
        self.sizes = sizes
        self.paper = batch_norm_paper.auroc(in_dist, model)
        trusted = self.at(null, 0).mean(0)
        self.null_delta = self.delta(null).mean

        def judge(name):
            log_prob, delta = self.at(name, 0).mean(0), self.delta(name).mean
            return {
                "neg_log_prob": -log_prob,
                "t_perm": scores.statistics.t_perm(log_prob, trusted),
                "typicality": scores.statistics.typicality(log_prob, trusted),
                **({"waic": scores.statistics.waic(members[name])} if members else {}),
                "batch_norm_delta": delta,
                "batch_norm_rank": scores.statistics.rank(delta, self.null_delta),
            }

        self.scores = {name: judge(name) for name in (in_dist, *ood)}
        noise, null_size = {"draws": sizes.draws}, {"null_images": len(self.null_delta)}
        batch = {"b": sizes.batch_size, "r1": R1, "r2": R2} | noise
        self.params = {
            "neg_log_prob": noise,
            "t_perm": noise | null_size,
            "typicality": noise | null_size,
            "waic": noise | ({"members": len(members[in_dist])} if members else {}),
            "batch_norm_delta": batch,
            "batch_norm_rank": batch | null_size,
        }

    def at(self, name, ratio):
        """Log-likelihoods ``(draws, n)`` at one ratio, nats."""
        return self.log_probs[name][:, self.ratios.index(ratio)]

    def delta(self, name, r1=R1, r2=R2):
        """Δ and its standard error, one an image."""
        return scores.statistics.delta(self.at(name, r1), self.at(name, r2))

    def in_bits(self, log_prob):
        """Nats to bits per dimension."""
        return bits_per_dim(log_prob, self.image_shape)

    def bpd(self, name, ratio=0.0):
        """Bits per dimension, one an image: ``(n,)``."""
        return self.in_bits(self.at(name, ratio).mean(0))

    def detection(self, name, score):
        """How well one score tells a set from the trusted one."""
        return metrics.detection(self.scores[self.in_dist][score], self.scores[name][score])

    def row(self, name, score, found, params, paper=None, seconds=None):
        """Of the record: one set, one score."""
        return record.ResultRow.from_detection(
            found,
            model=self.model,
            in_dist=self.in_dist,
            ood=name,
            score=score,
            params=params,
            paper=paper,
            seconds=seconds,
        )

    def rows_of(self, name, seconds, params=None):
        """One row a score of one set, at the main setting; ``params`` are added to its own."""
        # The paper calls the rank "ours"; Delta orders images as the rank does, but for ties.
        same = {"batch_norm_rank": "batch_norm_delta"}
        return [
            self.row(
                name,
                score,
                self.detection(name, score),
                self.params[score] | (params or {}),
                self.paper.get((name, same.get(score, score))),
                seconds,
            )
            for score in self.scores[name]
        ]

    def bpd_rows_of(self, names):
        """Mean bits per dimension of sets in the two modes."""

        def row(name, mode, ratio):
            bpd = self.bpd(name, ratio)
            stderr = float(bpd.std(ddof=1) / np.sqrt(len(bpd)))
            return record.BpdRow(self.model, name, mode, float(bpd.mean()), stderr, len(bpd))

        modes = (("evaluation", 0), ("training", 1.0))
        return [row(name, mode, ratio) for name in names for mode, ratio in modes]


class Results(Judged):
    """What one study found.

    Attributes:
        p_values: of the fresh trusted images, by −log p(x): ``(n,)``.
    """

    def __init__(self, study: Study, image_shape, log_probs, members):
        super().__init__(
            study.recipe.model,
            study.in_dist,
            study.null,
            (*study.ood, study.control),
            image_shape=image_shape,
            log_probs=log_probs,
            ratios=RATIOS,
            sizes=study.sizes,
            members=members,
        )
        self.study = study
        self.null_score = -self.at(study.null, 0).mean(0)
        fresh = self.scores[study.in_dist]["neg_log_prob"]
        self.p_values = detector.p_values_of(fresh, self.null_score)

    def auroc(self, name, score):
        return self.detection(name, score).auroc

    def rows(self, seconds):
        """One row a set and a score, at the main setting."""
        return [row for name in self.ood for row in self.rows_of(name, seconds[name])]

    def sweep_rows(self):
        """Table 5: Delta with r1 -> 0 against r2."""
        study, sizes = self.study, self.sizes
        return [
            self.row(
                name,
                "batch_norm_delta",
                metrics.detection(
                    self.delta(study.in_dist, 0, r2).mean, self.delta(name, 0, r2).mean
                ),
                {"b": sizes.batch_size, "r1": 0, "r2": r2, "draws": sizes.draws},
                self.paper.get((name, f"batch_norm_delta@{r2}")),
            )
            for name in study.ood
            for r2 in SWEEP_R2
        ]

    def bpd_rows(self):
        return self.bpd_rows_of((self.study.in_dist, *self.study.ood))

    def calibration(self):
        """Measure what p-values of fresh trusted images do, by a per-image and by a batch score.

        Those of −log p(x) are uniform by construction, up to chance. Δ of images of one set move
        together, so the share of a trusted set beyond the calibration set's 95 % quantile may be
        anything; it is given for both trusted sets.
        """
        study = self.study
        fresh = self.scores[study.in_dist]["neg_log_prob"]
        flagged = int((self.p_values <= 0.05).sum())
        interval = scipy.stats.binomtest(flagged, len(fresh)).proportion_ci()

        def beyond(name):
            p_values = detector.p_values_of(self.delta(name).mean, self.null_delta)
            return float((p_values <= 0.05).mean())

        return {
            # Two samples, since the null is a sample too.
            "ks_p_value": float(np.asarray(scipy.stats.ks_2samp(fresh, self.null_score))[1]),
            "chosen_fpr": 0.05,
            "realised_fpr": flagged / len(fresh),
            "realised_fpr_ci": [float(interval.low), float(interval.high)],
            "delta_fpr": {name: beyond(name) for name in (study.in_dist, study.control)},
            "n": len(fresh),
            "null_images": len(self.null_score),
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


def contamination_rows(study: Study, mixed):
    """Rows of mixed test sets; `mixed` is ``{(set, share): (trusted Δ, ood Δ)}``."""
    return [
        record.ResultRow.from_detection(
            metrics.detection(trusted, ood),
            model=study.recipe.model,
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
