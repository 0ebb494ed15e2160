"""The figures of the fooling experiment."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.batch_norm.figures import deltas, likelihoods
from experiments.batch_norm.fooling.results import Results
from jaxood.report import figures
from jaxood.report.figures.style import (
    DASHED,
    IN_DIST,
    LINE,
    OOD,
    STYLE,
    new_figure,
    plain_text,
)

_SHOWN = 8
"""Number of images in a group."""


def drawings(
    results: Results, p_losses: np.ndarray, q_losses: np.ndarray
) -> dict[str, Callable[[], Figure]]:
    """List the figures of the page.

    Args:
        results: the results.
        p_losses: ``(steps,)``, training loss of the trusted model in bits per dimension.
        q_losses: ``(steps,)``, that of the model that fools.

    Returns:
        By name, functions that draw.
    """
    attack = results.attack
    judged = (attack.in_dist, attack.other, attack.fooling)
    curves = ("t_perm", "neg_log_prob", "typicality", "batch_norm_delta")
    by_temperature = sorted(attack.temperatures, key=lambda name: attack.temperatures[name])
    dots = [row for row in results.main_rows if row.score != "batch_norm_rank"]
    return {
        "detection": partial(figures.auroc_dots, dots, titles=results.titles),
        "roc": lambda: figures.roc_curves(
            {score: results.by_set(score, judged) for score in curves}, attack.in_dist
        ),
        "search": partial(temperature_search, results),
        "likelihood": partial(likelihoods, results, judged),
        "look_alike": lambda: _with_bpd(results, _look_alikes(results)),
        "samples": lambda: _with_bpd(
            results, {name: range(_SHOWN) for name in (attack.other, *by_temperature)}
        ),
        "delta": partial(deltas, results, judged),
        "training": partial(figures.training_curve, p_losses),
        "training_attacker": partial(figures.training_curve, q_losses),
    }


def _look_alikes(results: Results) -> dict[str, list[int]]:
    """Choose samples from likely to unlikely, and for each a trusted image that is as likely."""
    attack = results.attack
    bpd, trusted = results.bpd(attack.fooling), results.bpd(attack.in_dist).copy()
    chosen = sorted(range(_SHOWN), key=lambda i: bpd[i])
    matches = []
    for i in chosen:
        matches.append(int(np.argmin(np.abs(trusted - bpd[i]))))
        trusted[matches[-1]] = np.inf  # none serves twice
    return {attack.fooling: chosen, attack.in_dist: matches}


def _with_bpd(results: Results, groups: Mapping[str, Iterable[int]]) -> Figure:
    """Draw images by set and indices, with their bits per dimension under p."""
    titled = {results.titles.get(name, name): (name, list(i)) for name, i in groups.items()}
    return figures.image_grid(
        {title: results.sets[name][indices] for title, (name, indices) in titled.items()},
        columns=_SHOWN,
        captions={
            title: [f"{bpd:.2f}" for bpd in results.bpd(name)[indices]]
            for title, (name, indices) in titled.items()
        },
    )


def temperature_search(results: Results) -> Figure:
    """Draw the median bits per dimension of samples at every temperature that the search tried."""
    attack = results.attack
    temperatures = np.array(sorted(attack.tried))
    quartiles = results.in_bits(
        np.array([np.quantile(attack.tried[t], [0.75, 0.5, 0.25]) for t in temperatures]).T
    )
    target = results.in_bits(attack.target)
    with rc_context(STYLE):
        figure, ((axes,),) = new_figure(7, 3.4)
        axes.fill_between(
            temperatures, quartiles[0], quartiles[2], color=OOD[1], alpha=0.15, linewidth=0
        )
        axes.plot(temperatures, quartiles[1], "o-", color=OOD[1], markersize=4)
        axes.axhline(target, color=IN_DIST, linewidth=1.4)
        axes.axvline(attack.temperature, **DASHED)
        axes.annotate(
            f"T = {attack.temperature:.2f}", (attack.temperature, 1), xytext=(5, -4),
            xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
        )  # fmt: skip
        # The name of the line stands at the end that is far from the crossing, where no curve is.
        right = attack.temperature < temperatures[[0, -1]].mean()
        above = right == (quartiles[1, 0] > quartiles[1, -1])
        axes.annotate(
            f"median of {plain_text(attack.in_dist)}",
            (1 if right else 0, target),
            xytext=(-5 if right else 5, 4 if above else -4),
            xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right" if right else "left", va="bottom" if above else "top",
            color=IN_DIST, fontweight="bold",
        )  # fmt: skip
        axes.set(xlabel="temperature T of the samples", ylabel="bits per dimension under p")
        axes.grid(axis="y", color=LINE, linewidth=0.6)
    return figure
