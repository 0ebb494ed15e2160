"""Proposition 1 of the BatchNorm paper, by numbers: does ``exp l(x_j; x_-j)`` have mass 1?

Models so small that the sum or the integral over one image, with its batch mates held fixed, can
be taken in full. Each is a `DensityModel`, over points or levels in place of uint8 images.
"""

import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxood.density import DensityModel, Variables
from jaxood.models.mates_only import mates_only
from jaxood.models.pixelcnn.network import pixelcnn
from jaxood.nn.batch_norm import BatchNorm
from jaxood.nn.jacobian import own_log_det

LEVELS, PIXELS = 4, 3
"""Levels and pixels of the autoregressive model's images, 64 in all; those of the VAE have two
pixels."""


# ----------------------------------------------------------------------------------- flows in 2-d


class Net(nn.Module):
    """Two hidden layers of 8, smooth, BatchNorm between them; ``outputs`` at the end."""

    outputs: int
    unbiased: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map ``(n, k)`` to ``(n, outputs)``."""
        x = nn.Dense(8)(x)
        x = BatchNorm(use_running_average=not train, use_scale=False, use_bias=False)(x)
        if self.unbiased:  # the paper's proof divides by b - 1, Flax by b
            x *= np.sqrt((len(x) - 1) / len(x))
        return nn.Dense(self.outputs)(nn.tanh(nn.Dense(8)(x)))


class Couplings(nn.Module):
    """x1 conditions x2, then x2 conditions x1, and so on (paper, eq. 9)."""

    count: int
    unbiased: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Map points ``(n, 2)`` to latents ``(n, 2)`` and log-determinants ``(n,)``."""
        log_det = jnp.zeros(len(x), x.dtype)
        for i in range(self.count):
            shown, hidden = x[:, i % 2, None], x[:, (i + 1) % 2, None]
            log_scale, shift = jnp.split(Net(2, self.unbiased)(shown, train=train), 2, axis=1)
            log_scale = jnp.tanh(log_scale)
            hidden = hidden * jnp.exp(log_scale) + shift
            x = jnp.concatenate([shown, hidden] if i % 2 == 0 else [hidden, shown], axis=1)
            log_det += log_scale[:, 0]
        return x, log_det


def couplings(
    count: int, *, jacobian: Literal["usual", "exact"] = "usual", unbiased: bool = False
) -> DensityModel:
    """Make a flow on the plane, for points ``(n, 2)``.

    Args:
        count: number of couplings.
        jacobian: the usual log-determinant, or that of the whole way through the batch.
        unbiased: whether BatchNorm divides by b - 1.
    """
    flow = Couplings(count, unbiased)

    def init(key, x):
        return flow.init(key, x, train=True)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key

        def apply(x):
            return flow.apply(variables, x, train=train, mutable=["batch_stats"])

        (z, log_det), updates = apply(x)
        if train and jacobian == "exact":
            log_det = own_log_det(lambda x: apply(x)[0][0], x)
        result = jax.scipy.stats.norm.logpdf(z).sum(1) + log_det
        return (result, updates["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, _no_sample)


# -------------------------------------------------------------------------- levels, one by one


class Autoregressive(nn.Module):
    """A network that predicts each pixel from those before it.

    BatchNorm is taken over the batch, and over space too if ``over_space``.
    """

    over_space: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map integers ``(n, PIXELS)`` to logits ``(n, PIXELS, LEVELS)``."""
        past = nn.one_hot(x, LEVELS)
        past = [jnp.pad(past, ((0, 0), (k, 0), (0, 0)))[:, :PIXELS] for k in range(1, PIXELS)]
        h = nn.Dense(8)(jnp.concatenate(past, axis=-1))
        features = h if self.over_space else h.reshape(len(h), -1)
        norm = BatchNorm(use_running_average=not train, use_scale=False, use_bias=False)
        return nn.Dense(LEVELS)(nn.tanh(nn.Dense(8)(norm(features).reshape(h.shape))))


def autoregressive(*, over_space: bool) -> DensityModel:
    """Make a density over ``(n, PIXELS)`` integers below ``LEVELS``."""
    net = Autoregressive(over_space)

    def init(key, x):
        return net.init(key, x, train=True)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key
        logits, updates = net.apply(variables, x, train=train, mutable=["batch_stats"])
        result = _log_mass(logits, x)
        return (result, updates["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, _no_sample)


class VAE(nn.Module):
    """A VAE with one latent variable, two pixels, and BatchNorm in encoder and decoder."""

    def setup(self):
        self.encoder = Net(1)
        self.decoder = Net(2 * LEVELS)

    def encode(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map integers ``(n, 2)`` to codes ``(n, 1)``."""
        return self.encoder(nn.one_hot(x, LEVELS).reshape(len(x), -1), train=train)

    def decode(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Map codes ``(n, 1)`` to logits ``(n, 2, LEVELS)``."""
        return self.decoder(z, train=train).reshape(len(z), 2, LEVELS)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Encode and decode integers ``(n, 2)``: logits ``(n, 2, LEVELS)``."""
        return self.decode(self.encode(x, train=train), train=train)


LATENT = np.linspace(-6, 6, 97)
"""A grid for the latent variable; the trapezoidal rule is exact to rounding here."""


def vae(*, codes: jax.Array | None = None) -> DensityModel:
    """Make a density over ``(n, 2)`` integers below ``LEVELS``: its own code is integrated out.

    The paper's footnote 5 assumes that the inference network is optimal, so that the bound is the
    log-likelihood. Here it is. The inference network still gives the codes of the batch
    companions, which the decoder's statistics need.

    Args:
        codes: ``(n, 1)``, codes of the companions in place of encoded ones.
    """
    weight = jax.scipy.stats.norm.logpdf(LATENT) + np.log(LATENT[1] - LATENT[0])

    net = VAE()

    def init(key, x):
        return net.init(key, x, train=True)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key

        def apply(*args, **kwargs):
            return net.apply(variables, *args, **kwargs, train=train, mutable=["batch_stats"])

        mates = codes if codes is not None else apply(x, method="encode")[0]

        def one(j):
            def at(z):
                logits, _ = apply(mates.at[j].set(z), method="decode")
                return _log_mass(logits, x)[j]

            return jax.scipy.special.logsumexp(jax.vmap(at)(LATENT) + weight)

        result = lax.map(one, jnp.arange(len(x)))
        return (result, apply(x)[1]["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, _no_sample)


def _log_mass(logits, x):
    return (jax.nn.log_softmax(logits) * nn.one_hot(x, LEVELS)).sum((1, 2))


def _no_sample(*args, **kwargs):
    raise NotImplementedError("this model is there to be integrated")


# ----------------------------------------------------------------------------------- the integral


def randomize(variables: Variables, seed: int, gain: float) -> Variables:
    """Draw normal weights of spread ``gain / sqrt(inputs)``, and biases of spread ``gain``."""
    rng = np.random.default_rng(seed)

    def leaf(value):
        fan_in = np.prod(value.shape[:-1]) or 1
        return jnp.asarray(gain / np.sqrt(fan_in) * rng.normal(size=value.shape), value.dtype)

    return {**variables, "params": jax.tree.map(leaf, variables["params"])}


@functools.partial(jax.jit, static_argnums=0)
def _conditional(model, variables, x, mates):
    def one(x):
        return model.log_prob(variables, jnp.concatenate([x[None], mates]), train=True)[0]

    return lax.map(jax.vmap(one), x)


CHUNK = 512
"""Number of values of the image that are evaluated at a time."""


def mass(
    model: DensityModel,
    variables: Variables,
    x: np.ndarray,
    mates: np.ndarray,
    cell: float = 1.0,
) -> float:
    """Compute ``sum over x of cell exp l(x; mates)``, in training mode.

    Args:
        model: a `DensityModel`.
        variables: variables of the model.
        x: ``(k, ...)``, every value of one image, or a grid of them.
        mates: ``(b - 1, ...)``, the batch companions, held fixed.
        cell: volume that a point of the grid stands for.

    Returns:
        The mass: 1 where ``exp l`` is a conditional distribution.
    """
    x = np.asarray(x)
    chunks = -(-len(x) // CHUNK)
    filled = np.resize(x, (chunks, -(-len(x) // chunks), *x.shape[1:]))
    values = _conditional(model, variables, filled, jnp.asarray(mates))
    values = np.asarray(values, np.float64).ravel()[: len(x)]
    return float(cell * np.exp(values).sum())


def plane(half_width: float = 12.0, step: float = 0.25) -> tuple[np.ndarray, float]:
    """Return grid points ``(k, 2)`` and their cell, for the trapezoidal rule in the plane."""
    axis = np.arange(-half_width, half_width + step / 2, step, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), step**2


def every_image(levels: int, *shape: int) -> np.ndarray:
    """Return all images of a shape, integers ``(levels ** pixels, *shape)``."""
    pixels = int(np.prod(shape))
    return np.indices((levels,) * pixels).reshape(pixels, -1).T.reshape(-1, *shape)


# ------------------------------------------------------------------------------------- the checks

BATCH_SIZES = (1, 4, 16, 64)
# Seeds and gains of networks whose defects are large enough to see; all have some.
FLOW = {"seed": 28, "gain": 1.2}
SEQUENCE = {"seed": 21, "gain": 1.5}
AUTOENCODER = {"seed": 0, "gain": 2.5}
PIXELCNN = {"seed": 1, "gain": 2.0}


class Check(NamedTuple):
    """One mass.

    Attributes:
        model: the model whose density is integrated.
        likelihood: how its training-mode likelihood is taken.
        b: the batch size.
        mass: found by quadrature or enumeration.
        normalized: whether it is 1 in theory; otherwise ``mass - 1`` is the proposition's defect.
    """

    model: str
    likelihood: str
    b: int
    mass: float
    normalized: bool


def flow_checks() -> list[Check]:
    """Integrate couplings in the plane, at b = 4 and 16."""
    x, cell = plane()
    variables = randomize(couplings(2).init(jax.random.key(0), x[:4]), **FLOW)
    rng = np.random.default_rng(1)
    mates = {4: np.array([[-1.2, 0.3], [-0.4, -1.1], [0.8, 1.0]]), 16: rng.normal(size=(15, 2))}

    def check(count, likelihood, model, b, normalized):
        value = mass(model, variables, x, mates[b].astype(np.float32), cell)
        name = "one coupling" if count == 1 else "two couplings"
        return Check(name, likelihood, b, value, normalized)

    two = couplings(2)
    return [
        check(1, "usual", couplings(1), 4, True),
        check(1, "usual, variance over b − 1", couplings(1, unbiased=True), 4, True),
        check(2, "usual", two, 4, False),
        check(2, "usual, variance over b − 1", couplings(2, unbiased=True), 4, False),
        check(2, "usual", two, 16, False),
        check(2, "exact Jacobian", couplings(2, jacobian="exact"), 4, True),
        check(2, "mates only", mates_only(two), 4, True),
        check(2, "mates only", mates_only(two), 16, True),
        check(2, "mates only, leave one out", mates_only(two, folds=4), 4, True),
    ]


def autoregressive_checks() -> list[Check]:
    """Sum over all 64 images of three pixels with four levels, at b = 1, 4, 16, 64."""
    x = every_image(LEVELS, PIXELS)
    rng = np.random.default_rng(2)
    mates = {b: rng.integers(0, LEVELS, (b - 1, PIXELS)) for b in BATCH_SIZES}
    causal, leaking = autoregressive(over_space=False), autoregressive(over_space=True)

    def check(name, likelihood, model, b, normalized):
        variables = randomize(model.init(jax.random.key(0), x[:4]), **SEQUENCE)
        value = mass(model, variables, x, mates[b])
        return Check(name, likelihood, b, value, normalized)

    per_pixel, over_space = (
        f"autoregressive, BatchNorm {over}" for over in ("per pixel", "over space")
    )
    return [
        *(check(per_pixel, "usual", causal, b, True) for b in (4, 16)),
        *(check(over_space, "usual", leaking, b, False) for b in BATCH_SIZES),
        *(check(over_space, "mates only", mates_only(leaking), b, True) for b in BATCH_SIZES[1:]),
    ]


def vae_checks() -> list[Check]:
    """Sum over all 16 images of two pixels with four levels, at b = 4."""
    x = every_image(LEVELS, 2)
    rng = np.random.default_rng(3)
    mates = rng.integers(0, LEVELS, (3, 2))
    variables = randomize(vae().init(jax.random.key(0), x[:4]), **AUTOENCODER)
    codes = jnp.asarray(rng.normal(size=(4, 1)), jnp.float32)
    return [
        Check("VAE", f"usual, mates' codes {how}", 4, mass(model, variables, x, mates), known)
        for how, model, known in (
            ("held fixed", vae(codes=codes), True),
            ("encoded in the batch", vae(), False),
        )
    ] + [Check("VAE", "mates only", 4, mass(mates_only(vae()), variables, x, mates), True)]


def pixelcnn_checks() -> list[Check]:
    """Sum PixelCNN++ itself over all 65,536 images of two pixels, at b = 1 and 4."""
    model = pixelcnn((1, 2, 1), width=4, depth=1, mixtures=2, levels=1)
    x = every_image(256, 1, 2, 1).astype(np.uint8)
    variables = randomize(model.init(jax.random.key(0), x[:4]), **PIXELCNN)
    mates = np.random.default_rng(4).integers(0, 256, (3, 1, 2, 1)).astype(np.uint8)
    return [
        Check("PixelCNN++", "usual", 1, mass(model, variables, x, mates[:0]), False),
        Check("PixelCNN++", "usual", 4, mass(model, variables, x, mates), False),
        Check("PixelCNN++", "mates only", 4, mass(mates_only(model), variables, x, mates), True),
    ]


def checks(*, quick: bool = False) -> list[Check]:
    """Make every `Check`, or the quick ones, which are those of the flows."""
    if quick:
        return flow_checks()
    return flow_checks() + autoregressive_checks() + pixelcnn_checks() + vae_checks()
