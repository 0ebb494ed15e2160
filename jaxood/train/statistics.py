"""BatchNorm statistics over a whole training set."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxood import compilation, parallel, progress
from jaxood.density import Variables
from jaxood.nn.batch_stats import batch_moments


def population_statistics(
    model: Any,
    variables: Variables,
    images: np.ndarray,
    *,
    batch_size: int = 64,
    seed: int = 0,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Compute BatchNorm statistics over the whole training set (BatchNorm paper, Section 4).

    Running averages after a short training are noisy. One pass in training mode gives the moments
    of every batch, and these are merged: the mean is the mean of the batch means, the variance, by
    the law of total variance, the mean of the batch variances plus the variance of the batch means.
    The last batch is filled up with the first images of the (random) order.

    Args:
        model: a `DensityModel`, `Glow` or `NRM`.
        variables: variables of the model; the devices that they lie on share the work.
        images: uint8 ``(n, h, w, c)``.
        batch_size: number of images in each batch; give that of the training.
        seed: seed of the order and the dequantization noise.
        show_progress: draw a progress bar on stderr.

    Returns:
        ``batch_stats`` that replace those of ``variables``.
    """
    order_key, noise_key = jax.random.split(jax.random.key(seed))
    mesh = parallel.mesh_of(variables)
    batches = -(-len(images) // batch_size)
    order = jax.random.permutation(order_key, len(images))
    order = jnp.resize(order, (batches, batch_size))

    def is_moments(tree: Any) -> bool:
        return tree.keys() == {"mean", "var"}

    @functools.partial(jax.jit, **compilation.sooner(mesh.devices.flat[0]))
    def merge_batches(merged, params, images, order, noise_key, start, stop):
        def merge_batch(i, merged):
            moments = batch_moments(
                model,
                {"params": params, "batch_stats": merged},
                parallel.split_rows(images[order[i]], mesh),
                key=jax.random.fold_in(noise_key, i),
            )

            def merge(so_far, batch):
                weight = 1 / (i + 1)
                gap = batch["mean"] - so_far["mean"]
                return {
                    "mean": so_far["mean"] + weight * gap,
                    "var": so_far["var"]
                    + weight * (batch["var"] - so_far["var"])
                    + weight * (1 - weight) * gap**2,
                }

            return jax.tree.map(merge, merged, moments, is_leaf=is_moments)

        return parallel.whole(lax.fori_loop(start, stop, merge_batch, merged), mesh)

    # The first batch has weight one; a large or infinite start would leave rounding errors.
    merged = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    images = parallel.shard(images, mesh)
    with progress.bar("population statistics", batches, show=show_progress) as advance:
        for start in range(0, batches, 16):
            stop = min(start + 16, batches)
            merged = jax.block_until_ready(
                merge_batches(merged, variables["params"], images, order, noise_key, start, stop)
            )
            advance(stop - start)
    return merged
