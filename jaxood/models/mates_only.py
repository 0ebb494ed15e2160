"""A true conditional likelihood for any model with BatchNorm: statistics of the mates only."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxood.density import DensityModel, builder
from jaxood.nn.batch_stats import batch_moments, move


@builder
def mates_only(model, folds=2):
    """The same model, in whose training mode no image touches its own BatchNorm statistics.

    The BatchNorm paper's Proposition 1 wants ``exp log p~(x_j | x_-j)`` to integrate to 1 over
    ``x_j``. In plain training mode it does not: ``x_j`` moves the statistics, which move its own
    log-determinant (flows) or carry its later pixels to its earlier ones (autoregressive models).
    Here the batch is dealt into folds, and an image is evaluated in *evaluation* mode, with the
    statistics that the images of the other folds have among themselves in training mode. For an
    image those are constants, so whatever holds in evaluation mode holds here: a flow integrates
    to 1 with its usual log-determinant, PixelCNN++ sums to 1, a VAE's bound is one.

    To leave an image out of the statistics inside each layer would not do: at the second
    BatchNorm the statistics are those of the mates' activations, and these have seen the image
    through the first, whose statistics for the *mates* do hold it.

    Images are dealt in turn (fold ``i`` holds images ``i, i + folds, …``), so every fold of a
    mixed batch has its ratio of test images, and `mixed_log_prob` and `batch_norm_delta` serve
    this model as any other. A batch costs ``folds`` times what it does in plain training mode.

    Args:
        model: a `DensityModel` with BatchNorm.
        folds: 2 or more, a divisor of the size of every training-mode batch; the size itself
            leaves out one image at a time.

    Returns:
        A `DensityModel`; evaluation mode, variables and samples are those of ``model``. With
        ``mutable=["batch_stats"]`` the running statistics move towards the mean over folds.

    Raises:
        ValueError: if ``folds`` is less than 2 or, in training mode, does not divide the batch.
    """
    if folds < 2:
        raise ValueError(f"an image needs mates in another fold: folds must be >= 2, got {folds}")

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        if not train:
            return model.log_prob(variables, x, key=key, dropout_key=dropout_key, mutable=mutable)
        n = len(x)
        if n % folds:
            raise ValueError(f"{folds} folds do not divide a batch of {n} images evenly")
        # One noise an image, the same where it is judged and where it is a mate.
        keys = jax.random.split(key, n) if key is not None and jnp.ndim(key) == 0 else key
        own = jnp.arange(n).reshape(-1, folds).T
        mates = jnp.stack([jnp.delete(own, i, axis=0).ravel() for i in range(folds)])

        def fold(indices):
            own, mates = indices
            own_key, mates_key = (None, None) if keys is None else (keys[own], keys[mates])
            moments = batch_moments(model, variables, x[mates], key=mates_key)
            held = {**variables, "batch_stats": moments}
            return model.log_prob(held, x[own], key=own_key, dropout_key=dropout_key), moments

        values, moments = lax.map(fold, (own, mates))
        values = values.T.reshape(n)
        if not mutable:
            return values
        mean = jax.tree.map(lambda leaf: leaf.mean(0), moments)
        return values, move(variables["batch_stats"], mean)

    return DensityModel(model.init, log_prob, model.sample)
