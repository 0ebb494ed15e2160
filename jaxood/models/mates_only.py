"""Training mode with statistics of other images only: a true conditional likelihood."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxood.density import DensityModel, builder
from jaxood.nn.batch_stats import batch_moments, move


@builder
def mates_only(model: DensityModel, folds: int = 2) -> DensityModel:
    """Wrap a model so that no image touches its own BatchNorm statistics in training mode.

    Proposition 1 of the BatchNorm paper needs ``exp log p~(x_j | x_-j)`` to integrate to 1 over
    ``x_j``. In plain training mode it does not, because ``x_j`` moves the statistics. They move its
    own log-determinant (flows), or carry its later pixels to its earlier ones (autoregressive
    models).

    Here the batch is dealt into folds. An image is evaluated in *evaluation* mode, with the
    statistics that the images of the other folds have among themselves in training mode. These
    are constants for the image, so whatever holds in evaluation mode holds here: a flow integrates
    to 1 with its usual log-determinant, PixelCNN++ sums to 1, and the bound of a VAE is a bound.

    It is not enough to leave an image out of the statistics inside each layer. The second
    BatchNorm's statistics are those of its batch companions' activations. These depend on the
    image by way of the first BatchNorm, whose statistics for the *companions* contain the image.

    Images are dealt in turn (fold ``i`` holds images ``i, i + folds, …``), so every fold of a
    mixed batch has the same ratio of test images, and the BatchNorm scores take this model as they
    take any other. A batch costs ``folds`` times what it does in plain training mode.

    Args:
        model: a `DensityModel` with BatchNorm.
        folds: 2 or more, a divisor of the size of every training-mode batch. With the size itself,
            one image at a time is left out.

    Returns:
        A `DensityModel`. Evaluation mode, variables and samples are those of ``model``. With
        ``mutable=["batch_stats"]`` the running statistics move towards the mean over folds.

    Raises:
        ValueError: if ``folds`` is less than 2 or, in training mode, does not divide the batch.
    """
    if folds < 2:
        raise ValueError(
            f"an image needs companions in another fold: folds must be >= 2, got {folds}"
        )

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        if not train:
            return model.log_prob(variables, x, key=key, dropout_key=dropout_key, mutable=mutable)
        x, n = jnp.asarray(x), len(x)
        if n % folds:
            raise ValueError(f"{folds} folds do not divide a batch of {n} images evenly")
        # An image has the same noise where it is judged and where it is a companion.
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
