"""Figures, numbers and text of `toy`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.batch_norm.toy import (
    detection as toy_detection,
)
from experiments.batch_norm.toy import (
    examples as toy_examples,
)
from experiments.batch_norm.toy import (
    figures as toy_figures,
)
from experiments.batch_norm.toy.detection import Outcome
from experiments.batch_norm.toy.examples import (
    MEMBERS,
    NOISE,
    PRINTED,
    SLOPE,
    Gaussians,
    Trained,
    closed_form,
    dependent_closed_form,
)
from experiments.batch_norm.toy.proposition1 import Check
from jaxood import report
from jaxood.report import figures, record
from jaxood.report.labels import label

DEPENDENT_OPTIMUM = (-SLOPE, -np.log(NOISE))
"""Maximum-likelihood (gamma, s) of the dependent example as sigma -> 0."""
TITLE = "The argument for the BatchNorm test, checked"


def numbers(
    gaussians: Gaussians,
    paths: Mapping[str, Trained],
    checks: Sequence[Check],
    outcomes: Sequence[Outcome],
    absent: Mapping[str, str],
) -> dict:
    """What fits no row of the record."""
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
            "gamma_1_quadrature": toy_examples.by_quadrature(1.0)._asdict(),
            "gamma_0": closed_form(0.0)._asdict(),
            "gamma_0_quadrature": toy_examples.by_quadrature(0.0)._asdict(),
            "trained": {
                name: {parameter: path[-1] for parameter, path in trained._asdict().items()}
                for name, trained in paths.items()
            },
            "dependent": dependent_closed_form(*DEPENDENT_OPTIMUM)._asdict(),
        },
        "proposition1": [check._asdict() for check in checks],
        "correction_nats": {
            o.case.named(o.case.in_dist): o.correction for o in outcomes if o.correction
        },
        "absent": absent,
    }


def draw(gaussians: Gaussians, paths: Mapping[str, Trained], checks, seed: int, folder: Path):
    """Draw every figure into ``folder``."""
    gamma = np.linspace(-1.5, 1.5, 301)
    independent = closed_form(gamma)
    negative = np.linspace(-1.75, 0.25, 301)
    dependent = dependent_closed_form(negative, DEPENDENT_OPTIMUM[1])

    def curves(expectations):
        return {
            "p": expectations.p,
            "q, evaluation": expectations.q_evaluation,
            "q, training": expectations.q_training,
        }

    def path(trained, names):
        return {symbol: getattr(trained, name) for name, symbol in names.items()}

    names = {"gamma": "γ", "beta": "β"}
    drawings = {
        "misspecified": toy_figures.misspecified(
            gaussians.data, gaussians.ood, *gaussians.closed_form
        ),
        "coupling": _scatter(seed, gamma=1.0, log_scale=0.0),
        "coupling_gamma": toy_figures.against_gamma(
            gamma, curves(independent), {"the paper's γ = 1": 1.0, "maximum likelihood": 0.0}
        ),
        "dependent": _scatter(
            seed, *DEPENDENT_OPTIMUM, slope=SLOPE, noise=NOISE, limit=3.5
        ),
        "dependent_gamma": toy_figures.against_gamma(
            negative, curves(dependent), {"maximum likelihood": -SLOPE}
        ),
        "training": toy_figures.training_paths(
            {
                "the paper's example": path(paths["independent"], names),
                "x₂ follows x₁": path(paths["dependent"], names | {"log_scale": "s"}),
            }
        ),
        "proposition1": toy_figures.masses(checks),
    }  # fmt: skip
    for name, figure in drawings.items():
        figures.save(figure, folder / f"{name}.png")


def _scatter(seed, gamma, log_scale, *, slope=0.0, noise=0.0, limit=2.3, n=250):
    """Samples through the coupling, with the statistics of p or with their own."""
    rng = np.random.default_rng(seed)
    samples = {
        "p": toy_examples.sample_p(rng, n, slope=slope, noise=noise),
        "q": toy_examples.sample_q(rng, n, slope=slope, noise=noise),
    }
    statistics = {"p": (0.0, 1.0), "q": (0.0, 1 / 12)}

    def through(name, whose):
        x1, x2 = samples[name].T
        z2 = toy_examples.coupling(x1, x2, gamma, 0.0, *statistics[whose]) * np.exp(log_scale)
        return np.stack([x1, z2], 1)

    return toy_figures.coupling_scatter(
        samples["p"],
        samples["q"],
        {
            "z, evaluation mode": lambda name: through(name, "p"),
            "z, training mode": lambda name: through(name, name),
        },
        limit=limit,
    )


def write(
    made: record.Record,
    gaussians: Gaussians,
    paths: Mapping[str, Trained],
    checks: Sequence[Check],
    outcomes: Sequence[Outcome],
    absent: Mapping[str, str],
    out: Path,
) -> Path:
    """Write record and report; returns the path of the page."""
    sections = [
        _misspecified(gaussians),
        *_coupling(paths),
        _proposition(checks),
        toy_detection.section(made, outcomes, absent),
    ]
    summary = headline(gaussians, paths, checks)
    return report.write(out, record=made, title=TITLE, summary=summary, sections=sections)


def headline(gaussians: Gaussians, paths: Mapping[str, Trained], checks: Sequence[Check]) -> str:
    """Say of Sections 3 and 4.2.1 and of Proposition 1 whether they hold here, with the numbers."""
    highest = {
        score: max(gaussians.auroc(score, name) for name in gaussians.ood)
        for score in ("neg_log_prob", "waic")
    }
    gamma = float(paths["independent"].gamma[-1])
    effect = float(abs(toy_examples.closed_form(gamma).effect))
    usual = [abs(c.mass - 1) for c in checks if not c.normalized]
    mended = max(abs(c.mass - 1) for c in checks if c.normalized)
    return (
        f"The paper's Section 3 {_holds(max(highest.values()) < 0.5)}: with one Gaussian fitted to "
        f"two modes, AUROC on the gap between them is {highest['neg_log_prob']:.2f} for −log p(x) "
        f"and {highest['waic']:.2f} for WAIC. Its Section 4.2.1 {_holds(effect > 0.1)}: maximum "
        f"likelihood ends at γ = {gamma:.2f}, where the two BatchNorm modes differ by "
        f"{effect:.2f} nats (at the paper's γ = 1 by 0.46). Its Proposition 1 "
        f"{_holds(max(usual, default=0) < 1e-3)} for the usual likelihoods of the table below, "
        f"whose masses miss 1 by up to {max(usual, default=0):.0e}; those that are normalized in "
        f"theory miss it by up to {mended:.0e}."
    )


def _holds(yes: bool) -> str:
    return "holds" if yes else "does not hold"


def _misspecified(g: Gaussians) -> report.Section:
    (mu, sigma), (mu_trained, sigma_trained) = g.closed_form, g.trained
    return report.Section(
        "A misspecified model prefers what is not there",
        "p(x) is an even mixture of N(−1, 0.01) and N(1, 0.01), where 0.01 is the variance, and "
        f"the model one Gaussian. Maximum likelihood gives μ = {mu:.3f}, σ = {sigma:.3f} in "
        f"closed form, {mu_trained:.3f} and {sigma_trained:.3f} by gradient descent (in the limit "
        "of much data 0 and √1.01). Its likelihood is highest at the gap.\n\n"
        f"WAIC is that of {MEMBERS} Gaussians, each fitted to a sample of its own. They agree at "
        "the gap as well as anywhere, so their variance gives nothing away. T_perm, which also "
        "suspects likelihoods that are too high, does see the gap: in one dimension no point off "
        "the modes has the likelihood of a typical one. Section B of the paper makes such points "
        "in many.",
        tables=[
            report.Table(
                "AUROC of three scores (paper, Section 3; 0.5 is guessing)",
                ["q(x)", *map(label, g.scores)],
                [[name, *(f"{g.auroc(s, name):.3f}" for s in g.scores)] for name in g.ood],
            )
        ],
        figures=[
            report.FigureFile(
                "misspecified.png",
                "Samples and fitted density; log-likelihood, with the middle 90 % of each set "
                "marked under the curve (paper, Figure 1 right).",
            )
        ],
    )


def _coupling(paths: Mapping[str, Trained]) -> list[report.Section]:
    one, zero = closed_form(1.0), closed_form(0.0)
    quadrature = toy_examples.by_quadrature(1.0), toy_examples.by_quadrature(0.0)
    as_printed = closed_form(1.0, variance=1 / np.sqrt(12))
    heads = ("E_p, evaluation", "E_q, evaluation", "E_q, training")

    def cells(values):
        return [f"{value:.4f}".replace("-", "−") for value in values]

    rows = zip(
        heads,
        [f"{v:.2f}".replace("-", "−") for v in PRINTED],
        cells(one),
        cells(quadrature[0]),
        cells(zero),
        cells(quadrature[1]),
        strict=True,
    )
    end, free = paths["independent"], paths["dependent"]
    dependent = dependent_closed_form(*DEPENDENT_OPTIMUM)
    trained = dependent_closed_form(free.gamma[-1], free.log_scale[-1])
    return [
        report.Section(
            "One coupling, and its optimum",
            "z₁ = x₁, z₂ = x₂ + γ (x₁ − E) / √V + β; x₁ is ±1 under p and uniform on (−½, ½) under "
            "q, x₂ = 0. The determinant is 1, so the log-likelihood has no log γ term, and "
            "nothing holds γ up (footnote 4 has −s²/2 + log s, which is that of a scale): "
            "E_p = −log 2π − (1 + γ²)/2 is largest at **γ = 0**. Training-mode "
            "BatchNorm lowers the likelihood of q by 11 γ²/24: 0.458 nats at the paper's γ = 1, "
            "**nothing at the optimum**. Gradient descent from γ = 1 ends at "
            f"γ = {abs(end.gamma[-1]):.1e}, β = {abs(end.beta[-1]):.1e}.\n\n"
            "In equation 19 the variance of q is 1/12, not 1/√12, which would give "
            f"{as_printed.q_training:.2f}; the printed −2.38 is that of 1/12.".replace(
                "give -", "give −"
            ),
            tables=[
                report.Table(
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
                    [list(row) for row in rows],
                )
            ],
            figures=[
                report.FigureFile(
                    "coupling.png",
                    "The paper's Figure 2, at its γ = 1: p and q, and their latents in both modes, "
                    "with circles of the standard Gaussian at one and two standard deviations.",
                ),
                report.FigureFile("coupling_gamma.png", "What the effect is at other γ."),
            ],
        ),
        report.Section(
            "Where the effect is real",
            "Give the coupling a use for what BatchNorm normalizes: let x₂ follow x₁, "
            f"x₂ = x₁ + {NOISE} ε, under p and under q alike, and let the coupling have a scale, "
            "z₂ = eˢ (x₂ + γ (x₁ − E) / √V + β). Now maximum likelihood wants γ = −1, s = log 2, "
            f"and finds γ = {free.gamma[-1]:.2f}, s = {free.log_scale[-1]:.2f} (the mean "
            "of a batch of 64 is noisy: it adds 1/64 to the residual's variance, and s = 0.66 is "
            "best in training mode). In evaluation mode q is likelier than p, because its x₁ is "
            "nearer to 0; in training mode its x₁ is stretched by √12, x₂ no longer fits it, and "
            "the likelihood falls below that of p. "
            "What the batch statistics betray is a change that the model has learnt to "
            "use.".replace("= -", "= −"),
            tables=[
                report.Table(
                    "Expected log-likelihood in nats where x₂ follows x₁",
                    ["", *heads, "training − evaluation"],
                    [
                        ["optimum", *cells(dependent), *cells([dependent.effect])],
                        ["trained", *cells(trained), *cells([trained.effect])],
                    ],
                )
            ],
            figures=[
                report.FigureFile("dependent.png", "As above, where x₂ follows x₁."),
                report.FigureFile("dependent_gamma.png", "Against γ, at s = log 2."),
                report.FigureFile("training.png", "Both couplings while they are trained."),
            ],
        ),
    ]


def _proposition(checks: Sequence[Check]) -> report.Section:
    return report.Section(
        "Proposition 1 as it is",
        "The proposition says that exp ℓ(xⱼ; x₋ⱼ) integrates to 1 over xⱼ, the batch mates held "
        "fixed. Here the integral is taken, by quadrature in the plane or over every image, of "
        "small random networks.\n\n"
        "It **holds** where nothing of xⱼ flows back through the batch: one coupling; a "
        "pixel-by-pixel model with statistics per pixel; a decoder, the mates' "
        "codes given. It **fails** where something does. In a second coupling the statistics have "
        "moved with xⱼ, and the usual log-determinant leaves that out. With statistics over "
        "space, pixels see those to come. In a VAE the mates' own codes move with xⱼ, through "
        "the encoder's statistics. The defect fades as the batch grows, and whether the variance "
        "is over b or b − 1, in which the proof and Flax differ, is a factor of the scale: it "
        "mends nothing.\n\n"
        "Two things **mend** it. For flows, the exact Jacobian ∂fⱼ/∂xⱼ, mates and all "
        '(`realnvp(…, jacobian="exact")`). For every model, statistics of the batch mates '
        "alone (`jaxood.mates_only`): a fold of the batch is evaluated with the statistics that "
        "the other folds have among themselves.",
        tables=[
            report.Table(
                "Mass of exp ℓ over one image",
                ["model", "likelihood", "b", "mass", "defect", "in theory"],
                [
                    [
                        c.model,
                        c.likelihood,
                        c.b,
                        f"{c.mass:.5f}",
                        "0 (to 1e-4)"
                        if abs(c.mass - 1) < 1e-4
                        else f"{c.mass - 1:+.3f}".replace("-", "−"),
                        "1" if c.normalized else "not 1",
                    ]
                    for c in checks
                ],
            )
        ],
        figures=[report.FigureFile("proposition1.png", "The same masses.")],
    )
