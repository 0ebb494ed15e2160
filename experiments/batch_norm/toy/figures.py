"""The figures of the toy examples, in the style of `jaxood.report.figures`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import norm

from experiments.batch_norm.toy import examples
from experiments.batch_norm.toy.examples import (
    DEPENDENT_OPTIMUM,
    NOISE,
    SLOPE,
    Descent,
    Expectations,
    closed_form,
    dependent_closed_form,
)
from experiments.batch_norm.toy.proposition1 import Check
from experiments.batch_norm.toy.results import Results
from jaxood.report.figures.style import (
    BAND,
    DASHED,
    IN_DIST,
    INK,
    LINE,
    MARKERS,
    OOD,
    QUIET,
    SCORES,
    STYLE,
    cycle,
    label_ends,
    legend_above,
    new_figure,
)


def drawings(results: Results, seed: int) -> dict[str, Callable[[], Figure]]:
    """List the figures of the page.

    Args:
        results: the results.
        seed: seed of the samples that are drawn through the couplings.

    Returns:
        By name, functions that draw.
    """
    gaussians, descents = results.gaussians, results.descents
    gamma, negative = np.linspace(-1.5, 1.5, 301), np.linspace(-1.75, 0.25, 301)
    slope, log_scale = DEPENDENT_OPTIMUM
    independent, dependent = closed_form(gamma), dependent_closed_form(negative, log_scale)
    return {
        "misspecified": partial(
            misspecified, gaussians.data, gaussians.ood, *gaussians.closed_form
        ),
        "coupling": partial(_scatter, seed, gamma=1.0, log_scale=0.0),
        "coupling_gamma": partial(
            against_gamma,
            gamma,
            _curves(independent),
            {"the paper's γ = 1": 1.0, "maximum likelihood": 0.0},
        ),
        "dependent": partial(
            _scatter, seed, gamma=slope, log_scale=log_scale, slope=SLOPE, noise=NOISE, limit=3.5
        ),
        "dependent_gamma": partial(
            against_gamma, negative, _curves(dependent), {"maximum likelihood": slope}
        ),
        "training": partial(
            training_paths,
            {
                "the paper's example": _paths(descents["independent"], scale=False),
                "x₂ follows x₁": _paths(descents["dependent"], scale=True),
            },
        ),
        "proposition1": partial(masses, results.checks),
    }


def _curves(expectations: Expectations) -> dict[str, np.ndarray]:
    names = ("p", "q, evaluation", "q, training")
    return dict(zip(names, expectations, strict=True))


def _paths(descent: Descent, *, scale: bool) -> dict[str, np.ndarray]:
    paths = {"γ": descent.gamma, "β": descent.beta}
    return paths | ({"s": descent.log_scale} if scale else {})


def _scatter(
    seed: int,
    *,
    gamma: float,
    log_scale: float,
    slope: float = 0.0,
    noise: float = 0.0,
    limit: float = 2.3,
    n: int = 250,
) -> Figure:
    """Draw samples through the coupling, with the statistics of p or with their own."""
    rng = np.random.default_rng(seed)
    samples = {
        "p": examples.sample_p(rng, n, slope=slope, noise=noise),
        "q": examples.sample_q(rng, n, slope=slope, noise=noise),
    }
    statistics = {"p": (0.0, 1.0), "q": (0.0, 1 / 12)}

    def through(name: str, whose: str) -> np.ndarray:
        x1, x2 = samples[name].T
        z2 = examples.coupling(x1, x2, gamma, 0.0, *statistics[whose]) * np.exp(log_scale)
        return np.stack([x1, z2], 1)

    return coupling_scatter(
        {
            "x": samples,
            "z, evaluation mode": {name: through(name, "p") for name in samples},
            "z, training mode": {name: through(name, name) for name in samples},
        },
        limit=limit,
    )


def misspecified(
    data: np.ndarray, ood: Mapping[str, np.ndarray], mu: float, sigma: float
) -> Figure:
    """Draw the paper's Figure 1, right: two modes, one Gaussian, and its log-likelihood.

    Args:
        data: ``(n,)`` samples of p.
        ood: by name of q, ``(n,)`` samples.
        mu: mean of the fitted Gaussian.
        sigma: its standard deviation.

    Returns:
        Histograms over x with the fitted density, and under them the log-likelihood.
    """
    x = np.linspace(-1.6, 1.6, 400)
    bins = np.linspace(-1.6, 1.6, 65)
    with rc_context(STYLE):
        figure, grid = new_figure(7, 5, 2, 1, sharex=True, height_ratios=[1.5, 1])
        top, bottom = grid.flat
        handles = []
        for k, (name, values) in enumerate({"p(x), the data": data, **ood}.items()):
            colour = IN_DIST if k == 0 else cycle(OOD, k - 1)
            density = np.histogram(values, bins, density=True)[0]
            top.stairs(density, bins, fill=True, color=colour, alpha=0.3 if k == 0 else 0.07)
            name = name if k == 0 else f"q(x) = {name}"
            handles.append(top.stairs(density, bins, color=colour, linewidth=1.6, label=name))
        handles += top.plot(
            x, norm.pdf(x, mu, sigma), color=SCORES[3], label="fitted Gaussian", linewidth=2
        )
        top.set(ylabel="density", ylim=(0, None))
        legend_above(top, handles)
        bottom.plot(x, norm.logpdf(x, mu, sigma), color=SCORES[3], linewidth=2)
        for k, values in enumerate((data, *ood.values())):
            # Where the sets lie on the curve: the middle 90 % of each mode.
            colour = IN_DIST if k == 0 else cycle(OOD, k - 1)
            modes = (values[values < 0], values[values >= 0]) if k == 0 else (values,)
            for mode in modes:
                low, high = np.quantile(mode, [0.05, 0.95])
                part = np.linspace(low, high, 50)
                bottom.plot(
                    part, norm.logpdf(part, mu, sigma) - 0.09 * (k + 1), color=colour, linewidth=3
                )
        bottom.set(xlabel="x", ylabel="log-likelihood (nats)", xlim=(x[0], x[-1]))
        bottom.grid(axis="y", color=LINE, linewidth=0.6)
    return figure


def coupling_scatter(
    panels: Mapping[str, Mapping[str, np.ndarray]], *, limit: float = 2.3
) -> Figure:
    """Draw the paper's Figure 2: p and q before the flow, and after it in both modes.

    Args:
        panels: by title, points ``(n, 2)`` of the sets ``p`` and ``q``; the first panel is of x,
            the others are of latents.
        limit: end of all axes.

    Returns:
        One panel each; circles are contours of the Gaussian prior.
    """
    angle = np.linspace(0, 2 * np.pi, 200)
    with rc_context(STYLE):
        figure, grid = new_figure(3.1 * len(panels), 3.7, 1, len(panels), sharey=True, sharex=True)
        for k, (axes, (title, sets)) in enumerate(zip(grid.flat, panels.items(), strict=True)):
            if k > 0:
                for radius in (1, 2):
                    axes.plot(
                        radius * np.cos(angle), radius * np.sin(angle), color=LINE, linewidth=1
                    )
            for name, colour, size in (("p", IN_DIST, 9), ("q", OOD[0], 7)):
                axes.scatter(
                    *sets[name].T, s=size, color=colour, alpha=0.5, linewidths=0,
                    label={"p": "p(x), the data", "q": "q(x), OOD"}[name],
                )  # fmt: skip
            axes.set_title(title)
            axes.set(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
            axes.set(xticks=[-2, -1, 0, 1, 2], yticks=[-2, -1, 0, 1, 2])
            axes.set(xlabel="z₁" if k else "x₁", ylabel="" if k else "x₂  or  z₂")
        handles, names = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=2, markerscale=2)
    return figure


def against_gamma(
    gamma: np.ndarray,
    curves: Mapping[str, np.ndarray],
    marks: Mapping[str, float],
) -> Figure:
    """Draw expected log-likelihoods against the coupling's weight.

    Args:
        gamma: ``(k,)``.
        curves: by name, ``(k,)`` nats; the first is of the data.
        marks: by name, values of gamma to point out.

    Returns:
        Curves, labelled at their ends, over vertical lines at the marks.
    """
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7.4, 3.8)
        for k, (name, values) in enumerate(curves.items()):
            axes.plot(
                gamma, values, color=IN_DIST if k == 0 else cycle(OOD, k - 1), label=name,
                linestyle="-" if k < 2 else (0, (5, 1.5)),
            )  # fmt: skip
        axes.set(xlabel="γ", ylabel="expected log-likelihood (nats)")
        axes.set_xlim(gamma[0], gamma[-1])
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        label_ends(axes)
        for name, value in marks.items():
            axes.axvline(value, **DASHED)
            axes.annotate(
                name, (value, 1), xycoords=("data", "axes fraction"), xytext=(4, 4),
                textcoords="offset points", color=QUIET, fontsize=9,
                ha="left" if value < gamma[-1] else "right",
            )  # fmt: skip
    return figure


def training_paths(paths: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw the parameters of couplings while they are trained.

    Args:
        paths: for each panel, its title and by parameter name ``(steps + 1,)`` values.

    Returns:
        A panel for each training.
    """
    with rc_context(STYLE):
        figure, grid = new_figure(4.2 * len(paths), 3.0, 1, len(paths), sharey=True)
        for axes, (title, parameters) in zip(grid.flat, paths.items(), strict=True):
            for k, (name, values) in enumerate(parameters.items()):
                axes.plot(values, color=cycle(SCORES, k + 2), label=name)
            axes.set_title(title)
            axes.set(xlabel="training step")
            axes.margins(x=0)
            label_ends(axes)
            axes.axhline(0, **DASHED, zorder=0)  # after the names, since it has none
        grid.flat[0].set_ylabel("parameter")
    return figure


def masses(checks: Sequence[Check]) -> Figure:
    """Draw the mass of every conditional "distribution" of Proposition 1.

    Args:
        checks: masses of any models, likelihoods and batch sizes.

    Returns:
        A band for each model and likelihood, and a mark for each batch size.
    """
    lines: dict[str, list[Check]] = {}
    for check in checks:
        lines.setdefault(f"{check.model}; {check.likelihood}", []).append(check)
    with rc_context(STYLE):
        height = 0.32 * len(lines) + 1.0
        figure, ((axes,),) = new_figure(8, height)
        sizes = sorted({check.b for check in checks})
        for position, members in enumerate(lines.values()):
            if position % 2 == 0:
                axes.axhspan(position - 0.5, position + 0.5, color=BAND, zorder=0)
            for check in members:
                k = sizes.index(check.b)
                axes.plot(
                    check.mass, position, marker=cycle(MARKERS, k), markersize=7, zorder=3,
                    linestyle="", color=cycle(SCORES, k + 1), alpha=0.9,
                )  # fmt: skip
        axes.axvline(1, **DASHED, zorder=1)
        axes.set_yticks(range(len(lines)), list(lines), fontsize=9.5)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("mass of exp ℓ(x; mates) over x (1: a distribution)")
        handles = [
            axes.plot([], [], marker=cycle(MARKERS, k), color=cycle(SCORES, k + 1), linestyle="",
                      label=f"b = {b}")[0]
            for k, b in enumerate(sizes)
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper right", ncols=len(sizes), labelcolor=INK)
    return figure
