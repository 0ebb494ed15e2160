"""Optimizers of optax, with the course of their learning rates."""

from typing import Any, Literal

import jax
import optax
from optax import contrib

Schedule = Literal["constant", "cosine"]
"""The course of a learning rate after it has risen from zero: constant, or down along a cosine."""


def adam(
    steps: int,
    learning_rate: float = 1e-3,
    *,
    schedule: Schedule = "cosine",
    warmup: int | None = None,
) -> optax.GradientTransformation:
    """Make Adam (Kingma & Ba 2014).

    Args:
        steps: number of updates of the training, after which a cosine has fallen to zero.
        learning_rate: the highest learning rate.
        schedule: schedule of the learning rate.
        warmup: updates over which the rate rises from zero; by default a twentieth of ``steps``
            before a cosine, and none before a constant rate.

    Returns:
        An optax optimizer.
    """
    return optax.adam(_rate(learning_rate, steps, schedule, warmup))


def muon(
    steps: int,
    learning_rate: float = 0.02,
    other_learning_rate: float = 2e-3,
    *,
    schedule: Schedule = "cosine",
    warmup: int | None = None,
) -> optax.GradientTransformation:
    """Make Muon (Jordan et al. 2024) for kernels, with NAdam for biases and scales.

    A kernel moves by an orthogonal matrix from its inputs (space and channels) to its outputs: all
    its singular directions move at one rate. A neural rendering model uses its kernels both ways,
    so the small directions matter.

    Args:
        steps: as for `adam`.
        learning_rate: the highest learning rate of kernels.
        other_learning_rate: the highest learning rate of everything else.
        schedule: schedule of both rates.
        warmup: as for `adam`.

    Returns:
        An optax optimizer.
    """

    def kernels(params: Any) -> Any:
        def axes(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
            if leaf.ndim < 2:
                return None
            inputs = tuple(range(leaf.ndim - 1))
            return contrib.MuonDimensionNumbers(reduction_axis=inputs, output_axis=leaf.ndim - 1)

        return jax.tree.map(axes, params)

    return contrib.muon(
        _rate(learning_rate, steps, schedule, warmup),
        muon_weight_dimension_numbers=kernels,
        adam_learning_rate=_rate(other_learning_rate, steps, schedule, warmup),
    )


def _rate(
    highest: float, steps: int, schedule: Schedule, warmup: int | None
) -> optax.ScalarOrSchedule:
    if schedule == "cosine":
        rise = steps // 20 if warmup is None else warmup
        return optax.warmup_cosine_decay_schedule(0, highest, rise, steps)
    return optax.linear_schedule(0.0, highest, warmup) if warmup else highest
