"""Every number of the BatchNorm test's report, as functions of the log-likelihoods."""

import numpy as np
import scipy.stats

from experiments import batch_norm_paper
from experiments.batch_norm_study import R1, R2, RATIOS, SWEEP_R2, Study
from jaxood import detector, metrics, record, scores
from jaxood.density import bits_per_dim
from jaxood.record import label


class Results:
    """Scores, likelihoods and calibration of one study.

    Attributes:
        scores: ``{set: {score: (n,)}}``, higher = more OOD.
        p_values: of the fresh trusted images, by Δ: ``(n,)``.
        null_delta: Δ of the calibration images.
    """

    def __init__(self, study: Study, image_shape, log_probs, members, own_batch):
        self.study, self.image_shape, self.log_probs = study, image_shape, log_probs
        self.own_batch = own_batch
        self.model = study.recipe.model
        self.paper = batch_norm_paper.auroc(study.in_dist, self.model)
        null, null_delta = self.at(study.null, 0).mean(0), self.delta(study.null, R1, R2).mean
        self.scores = {
            name: {
                "neg_log_prob": -self.at(name, 0).mean(0),
                "t_perm": scores.t_perm(self.at(name, 0).mean(0), null),
                "typicality": scores.typicality(self.at(name, 0).mean(0), null),
                **({"waic": scores.waic(members[name])} if members else {}),
                "batch_norm_delta": self.delta(name, R1, R2).mean,
                "batch_norm_rank": scores.batch_norm_rank(
                    self.delta(name, R1, R2).mean, null_delta
                ),
            }
            for name in (study.in_dist, study.control, *study.ood)
        }
        self.null_delta = null_delta
        self.p_values = self.p_values_of(self.scores[study.in_dist]["batch_norm_delta"])

    def p_values_of(self, delta):
        return detector.p_values_of(delta, self.null_delta)

    def at(self, name, ratio):
        """Log-likelihoods ``(draws, n)`` at one ratio, nats."""
        return self.log_probs[name][:, RATIOS.index(ratio)]

    def delta(self, name, r1, r2):
        return scores.delta(self.at(name, r1), self.at(name, r2))

    def bpd(self, name, ratio):
        """Bits per dimension, one an image: ``(n,)``."""
        return bits_per_dim(self.at(name, ratio).mean(0), self.image_shape)

    def auroc(self, name, score):
        in_dist = self.scores[self.study.in_dist][score]
        return metrics.auroc(in_dist, self.scores[name][score])

    def _row(self, name, score, in_dist, ood, params, paper=None, seconds=None):
        return record.ResultRow.from_detection(
            metrics.detection(in_dist, ood),
            model=self.model,
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
        noise, null = {"draws": sizes.draws}, {"null_images": len(self.null_delta)}
        params = {
            "neg_log_prob": noise,
            "t_perm": noise | null,
            "typicality": noise | null,
            "batch_norm_delta": batch,
            "batch_norm_rank": batch | null,
        }
        if study.ensemble is not None:
            params["waic"] = noise | {"members": study.ensemble.members}
        # The paper calls the rank "ours"; Delta orders images as the rank does, but for ties.
        same = {"batch_norm_rank": "batch_norm_delta"}
        return [
            self._row(
                name,
                score,
                self.scores[study.in_dist][score],
                values,
                params[score],
                self.paper.get((name, same.get(score, score))),
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
                self.paper.get((name, f"batch_norm_delta@{r2}")),
            )
            for name in study.ood
            for r2 in SWEEP_R2
        ]

    def bpd_rows(self):
        def row(name, mode, ratio):
            bpd = self.bpd(name, ratio)
            stderr = float(bpd.std(ddof=1) / np.sqrt(len(bpd)))
            return record.BpdRow(self.model, name, mode, float(bpd.mean()), stderr, len(bpd))

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
            "ks_p_value": float(np.asarray(scipy.stats.ks_2samp(fresh, self.null_delta))[1]),
            "chosen_fpr": 0.05,
            "realised_fpr": flagged / len(fresh),
            "realised_fpr_ci": [float(interval.low), float(interval.high)],
            "own_batch_fpr": float((self.p_values_of(self.own_batch) <= 0.05).mean()),
            "own_batch_auroc": metrics.auroc(fresh, self.own_batch),
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
