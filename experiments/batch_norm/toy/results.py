"""Every number of the toy examples' report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.batch_norm.settings import R2
from experiments.batch_norm.toy import examples
from experiments.batch_norm.toy.detection import EXACT, MATES, USUAL, Outcome
from experiments.batch_norm.toy.examples import (
    DEPENDENT_OPTIMUM,
    PRINTED,
    Descent,
    Expectations,
    Gaussians,
    closed_form,
    dependent_closed_form,
)
from experiments.batch_norm.toy.proposition1 import Check
from jaxood import report
from jaxood.report import Table, label, number
from jaxood.report.record import ResultRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """The results of all examples.

    Attributes:
        gaussians: Section 3.
        descents: the trainings of the paper's coupling, ``independent``, and of the coupling on
            dependent data, ``dependent``.
        checks: Proposition 1.
        outcomes: the BatchNorm test with three likelihoods.
        absent: trusted sets that are not there, and why.
    """

    gaussians: Gaussians
    descents: Mapping[str, Descent]
    checks: Sequence[Check]
    outcomes: Sequence[Outcome]
    absent: Mapping[str, str]

    def headline(self) -> str:
        """Say of Sections 3 and 4.2.1 and of Proposition 1 whether they hold here."""
        highest = {
            score: max(self.gaussians.auroc(score, name) for name in self.gaussians.ood)
            for score in ("neg_log_prob", "waic")
        }
        gamma = float(self.descents["independent"].gamma[-1])
        effect = float(abs(closed_form(gamma).effect))
        usual = [abs(check.mass - 1) for check in self.checks if not check.normalized]
        mended = max(abs(check.mass - 1) for check in self.checks if check.normalized)
        return (
            f"The paper's Section 3 {_holds(max(highest.values()) < 0.5)}: with one Gaussian "
            "fitted to two modes, AUROC on the gap between them is "
            f"{number(highest['neg_log_prob'], 2)} for −log p(x) and {number(highest['waic'], 2)} "
            f"for WAIC. Its Section 4.2.1 {_holds(effect > 0.1)}: maximum likelihood ends at "
            f"γ = {number(gamma, 2)}, where the two BatchNorm modes differ by {number(effect, 2)} "
            "nats (at the paper's γ = 1 by 0.46). Its Proposition 1 "
            f"{_holds(max(usual, default=0) < 1e-3)} for the usual likelihoods of the table below, "
            f"whose masses miss 1 by up to {number(max(usual, default=0))}; those that are "
            f"normalized in theory miss it by up to {number(mended)}."
        )

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that fit no row of the record."""
        gaussians, outcomes = self.gaussians, self.outcomes
        return {
            "misspecified": {
                "mu_sigma": gaussians.closed_form,
                "mu_sigma_trained": gaussians.trained,
                "auroc": {
                    score: {name: gaussians.auroc(score, name) for name in gaussians.ood}
                    for score in gaussians.scores
                },
            },
            "coupling": {
                "printed": PRINTED._asdict(),
                "gamma_1": closed_form(1.0)._asdict(),
                "gamma_1_quadrature": examples.by_quadrature(1.0)._asdict(),
                "gamma_0": closed_form(0.0)._asdict(),
                "gamma_0_quadrature": examples.by_quadrature(0.0)._asdict(),
                "trained": {
                    name: {parameter: path[-1] for parameter, path in descent._asdict().items()}
                    for name, descent in self.descents.items()
                },
                "dependent": dependent_closed_form(*DEPENDENT_OPTIMUM)._asdict(),
            },
            "proposition1": [check._asdict() for check in self.checks],
            "correction_nats": {
                o.case.named(o.case.in_dist): o.correction for o in outcomes if o.correction
            },
            "absent": self.absent,
        }

    # ---------------------------------------------------------------------------------- tables

    def gaussians_table(self) -> Table:
        """Arrange the AUROCs of Section 3."""
        g = self.gaussians
        return Table(
            "AUROC of three scores (paper, Section 3; 0.5 is guessing)",
            ["q(x)", *map(label, g.scores)],
            [[name, *(number(g.auroc(s, name), 3) for s in g.scores)] for name in g.ood],
        )

    def coupling_table(self) -> Table:
        """Arrange the expectations of Appendix D, printed and computed."""
        columns = [
            _cells(PRINTED, 2),
            *(
                _cells(how(gamma))
                for gamma in (1.0, 0.0)
                for how in (closed_form, examples.by_quadrature)
            ),
        ]
        return Table(
            "Expected log-likelihood in nats, printed and computed "
            "(paper, Appendix D; σ → 0, quadrature at σ = 0.001)",
            [
                "",
                "printed",
                "γ = 1, closed form",
                "γ = 1, quadrature",
                "γ = 0, closed form",
                "γ = 0, quadrature",
            ],
            [list(row) for row in zip(_EXPECTATIONS, *columns, strict=True)],
        )

    def dependent_table(self) -> Table:
        """Arrange the expectations where x₂ follows x₁."""
        end = self.descents["dependent"]
        rows = {
            "optimum": dependent_closed_form(*DEPENDENT_OPTIMUM),
            "trained": dependent_closed_form(end.gamma[-1], end.log_scale[-1]),
        }
        return Table(
            "Expected log-likelihood in nats where x₂ follows x₁",
            ["", *_EXPECTATIONS, "training − evaluation"],
            [[name, *_cells(e), number(e.effect, 4)] for name, e in rows.items()],
        )

    def masses_table(self) -> Table:
        """Arrange the masses of Proposition 1; those that miss 1 by less than 1e-4 are called 1."""

        def defect(check: Check) -> str:
            missing = check.mass - 1
            return "0 (to 1e-4)" if abs(missing) < 1e-4 else number(missing, 3, signed=True)

        return Table(
            "Mass of exp ℓ over one image",
            ["model", "likelihood", "b", "mass", "defect", "in theory"],
            [
                [
                    check.model,
                    check.likelihood,
                    check.b,
                    number(check.mass, 5),
                    defect(check),
                    "1" if check.normalized else "not 1",
                ]
                for check in self.checks
            ],
        )

    def detection_table(self) -> Table:
        """Arrange the AUROCs of −log p(x), and of Δ with each likelihood."""
        return report.detection_table(
            self._rows(),
            caption="AUROC with 95 % intervals; Δ with three training-mode likelihoods",
            column=_column,
        )

    def correction_table(self) -> Table:
        """Arrange what the exact Jacobian changes in log-likelihoods."""
        return Table(
            f"What the exact Jacobian changes, beside Δ (nats an image, at r = {R2})",
            ["trained on", "set", "Δ, usual (median)", "mean |exact − usual|"],
            [
                [label(o.case.named(o.case.in_dist)), label(name), o.delta[name], correction]
                for o in self.outcomes
                for name, correction in o.correction.items()
            ],
        )

    def largest_changes(self) -> dict[str, float]:
        """Return by likelihood the largest change of an AUROC from the usual likelihood's."""
        return {how: max(found) for how in (EXACT, MATES) if (found := self._changes(how))}

    def _rows(self) -> list[ResultRow]:
        return [
            *(row for outcome in self.outcomes for row in outcome.results),
            *(row for outcome in self.outcomes for row in outcome.sweeps),
        ]

    def _changes(self, likelihood: str) -> list[float]:
        """List ``|AUROC - the usual likelihood's|`` at equal r1, of every row of a likelihood."""
        aurocs = {
            how: {
                (row.in_dist, row.ood, row.params["r1"]): row.auroc
                for row in self._rows()
                if row.params.get("likelihood") == how
            }
            for how in (USUAL, likelihood)
        }
        usual = aurocs[USUAL]
        return [
            abs(auroc - other)
            for place, auroc in aurocs[likelihood].items()
            if auroc is not None and (other := usual[place]) is not None
        ]


_EXPECTATIONS = ("E_p, evaluation", "E_q, evaluation", "E_q, training")


def _holds(yes: bool) -> str:
    return "holds" if yes else "does not hold"


def _cells(expectations: Expectations, digits: int = 4) -> list[str]:
    return [number(value, digits) for value in expectations]


def _column(row: ResultRow) -> str:
    """Name the column of a result: the score, and of Δ its likelihood and r1."""
    if row.score == "neg_log_prob":
        return label(row.score)
    arrow = "→" if row.params["r1"] == 0 else "="
    return f"Δ, {row.params['likelihood']}, r1 {arrow} {row.params['r1']:g}"
