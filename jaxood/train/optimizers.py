"""Optimizers from optax, as whole recipes: rates rise shortly, then fall to zero along a cosine."""

import jax
import optax
from optax import contrib


def adam(steps, learning_rate=1e-3):
    """Adam.

    Args:
        steps: of the training.
        learning_rate: at its highest, after a twentieth of the steps.

    Returns:
        An optax optimizer.
    """
    return optax.adam(_cosine(steps, learning_rate))


def muon(steps, learning_rate=0.02, other_learning_rate=2e-3):
    """Muon (Jordan et al. 2024) for kernels, NAdam for biases and scales.

    A kernel moves by an orthogonal matrix from its inputs, space and channels, to its outputs: all
    its singular directions at one rate. A neural rendering model uses its kernels both ways, so
    the small directions matter; see `experiments.nrm_ablation` for what Adam makes of it.

    Args:
        steps: of the training.
        learning_rate: of kernels, at its highest, after a twentieth of the steps.
        other_learning_rate: of everything else, likewise.

    Returns:
        An optax optimizer.
    """

    def kernels(params):
        def axes(leaf):
            if leaf.ndim < 2:
                return None
            inputs = tuple(range(leaf.ndim - 1))
            return contrib.MuonDimensionNumbers(reduction_axis=inputs, output_axis=leaf.ndim - 1)

        return jax.tree.map(axes, params)

    return contrib.muon(
        _cosine(steps, learning_rate),
        muon_weight_dimension_numbers=kernels,
        adam_learning_rate=_cosine(steps, other_learning_rate),
    )


def _cosine(steps, highest):
    return optax.warmup_cosine_decay_schedule(0, highest, steps // 20, steps)
