"""Sets of images judged by one model: every score, from the log-likelihoods alone."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from experiments.batch_norm import paper
from experiments.batch_norm.settings import R1, R2, Sizes
from jaxood import metrics
from jaxood.density import bits_per_dim
from jaxood.metrics import Detection
from jaxood.report.record import BpdRow, ResultRow
from jaxood.scores import Estimate, statistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """Log-likelihoods of sets of images under one model, and what the scores make of them.

    Attributes:
        model: name of the model.
        in_dist: name of the trusted set.
        null: name of the calibration set.
        ood: names of the sets to judge.
        image_shape: ``(h, w, c)``.
        sizes: the amount of scoring.
        ratios: the ratios r at which the log-likelihoods were taken.
        log_probs: by set ``(draws, ratios, n)``, nats.
        seconds: by set, the time that it took to take them.
        members: by set ``(members, n)`` log-likelihoods under an ensemble, nats; without them
            there is no WAIC.
        titles: titles of sets by name, where `label` does not give them.
    """

    model: str
    in_dist: str
    null: str
    ood: tuple[str, ...]
    image_shape: tuple[int, ...]
    sizes: Sizes
    ratios: tuple[float, ...]
    log_probs: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]
    members: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def at(self, name: str, ratio: float) -> np.ndarray:
        """Return the log-likelihoods of a set at one ratio, ``(draws, n)`` in nats."""
        return self.log_probs[name][:, self.ratios.index(ratio)]

    def delta(self, name: str, r1: float = R1, r2: float = R2) -> Estimate:
        """Compute Δ of each image of a set, with its standard error."""
        return statistics.delta(self.at(name, r1), self.at(name, r2))

    def in_bits(self, log_prob: Any) -> Any:
        """Turn log-likelihoods in nats, a number or an array, into bits per dimension."""
        return bits_per_dim(log_prob, self.image_shape)

    def bpd(self, name: str, ratio: float = 0.0) -> np.ndarray:
        """Return the bits per dimension of each image of a set, ``(n,)``."""
        return self.in_bits(self.at(name, ratio).mean(0))

    @cached_property
    def null_log_prob(self) -> np.ndarray:
        """Log-likelihoods of the calibration set in evaluation mode, ``(N,)`` in nats."""
        return self.at(self.null, 0).mean(0)

    @cached_property
    def null_delta(self) -> np.ndarray:
        """Δ of the calibration set, ``(N,)``."""
        return self.delta(self.null).mean

    @cached_property
    def scores(self) -> dict[str, dict[str, np.ndarray]]:
        """Scores of each set by name, ``(n,)``, higher = more OOD; the trusted set comes first."""
        return {name: self._scores(name) for name in (self.in_dist, *self.ood)}

    def _scores(self, name: str) -> dict[str, np.ndarray]:
        log_prob, delta = self.at(name, 0).mean(0), self.delta(name).mean
        return {
            "neg_log_prob": -log_prob,
            "t_perm": statistics.t_perm(log_prob, self.null_log_prob),
            "typicality": statistics.typicality(log_prob, self.null_log_prob),
            **({"waic": statistics.waic(self.members[name])} if self.members else {}),
            "batch_norm_delta": delta,
            "batch_norm_rank": statistics.rank(delta, self.null_delta),
        }

    def by_set(self, score: str, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return one score of several sets, by their titles."""
        return {self.titles.get(name, name): self.scores[name][score] for name in names}

    def detection(self, name: str, score: str) -> Detection:
        """Measure how well a score tells a set from the trusted one."""
        return metrics.detection(self.scores[self.in_dist][score], self.scores[name][score])

    # ------------------------------------------------------------------ rows of the results record

    def row(
        self,
        name: str,
        score: str,
        found: Detection,
        params: Mapping[str, Any],
        *,
        paper: float | None = None,
        seconds: float | None = None,
    ) -> ResultRow:
        """Make the row of one set and one score."""
        return ResultRow.from_detection(
            found,
            model=self.model,
            in_dist=self.in_dist,
            ood=name,
            score=score,
            params=params,
            paper=paper,
            seconds=seconds,
        )

    def rows_of(self, name: str, params: Mapping[str, Any] | None = None) -> list[ResultRow]:
        """Make a row of one set for each score, at the main setting.

        Args:
            name: name of the set.
            params: settings of the set, added to those of the scores.
        """
        reported = paper.auroc(self.in_dist, self.model)
        # The paper calls the rank "ours"; Delta orders images as the rank does, but for ties.
        same = {"batch_norm_rank": "batch_norm_delta"}
        return [
            self.row(
                name,
                score,
                self.detection(name, score),
                self._params[score] | dict(params or {}),
                paper=reported.get((name, same.get(score, score))),
                seconds=self.seconds[name],
            )
            for score in self.scores[name]
        ]

    @property
    def _params(self) -> dict[str, dict[str, Any]]:
        noise, null_size = {"draws": self.sizes.draws}, {"null_images": len(self.null_delta)}
        batch = {"b": self.sizes.batch_size, "r1": R1, "r2": R2} | noise
        members = {"members": len(self.members[self.in_dist])} if self.members else {}
        return {
            "neg_log_prob": noise,
            "t_perm": noise | null_size,
            "typicality": noise | null_size,
            "waic": noise | members,
            "batch_norm_delta": batch,
            "batch_norm_rank": batch | null_size,
        }

    def bpd_rows_of(self, names: Iterable[str]) -> list[BpdRow]:
        """Make the rows of mean bits per dimension of sets, in evaluation and training mode."""
        modes = (("evaluation", 0), ("training", 1.0))
        return [self._bpd_row(name, mode, ratio) for name in names for mode, ratio in modes]

    def _bpd_row(self, name: str, mode: str, ratio: float) -> BpdRow:
        bpd = self.bpd(name, ratio)
        stderr = float(bpd.std(ddof=1) / np.sqrt(len(bpd)))
        return BpdRow(self.model, name, mode, float(bpd.mean()), stderr, len(bpd))
