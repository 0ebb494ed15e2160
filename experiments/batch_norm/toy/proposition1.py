"""Proposition 1 of the BatchNorm paper, by numbers: does ``exp l(x_j; x_-j)`` have mass 1?

Models so small that the sum or the integral over one image, with its batch mates held fixed, can
be taken in full. Each is a `DensityModel`, over points or levels in place of uint8 images.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxood.density import DensityModel
from jaxood.models.mates_only import mates_only
from jaxood.models.pixelcnn.network import pixelcnn
from jaxood.nn.jacobian import own_log_det
from jaxood.nn.layers import BatchNorm

LEVELS, PIXELS = 4, 3
"""Of the images of the autoregressive model: 64 images in all. The VAE's have two pixels."""


# ----------------------------------------------------------------------------------- flows in 2-d


class Net(nn.Module):
    """Two hidden layers of 8, smooth, BatchNorm between them; ``outputs`` at the end."""

    outputs: int
    train: bool
    unbiased: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        norm = BatchNorm(use_running_average=not self.train, use_scale=False, use_bias=False)
        x = norm(x)
        if self.unbiased:  # the paper's proof divides by b - 1, Flax by b
            x *= np.sqrt((len(x) - 1) / len(x))
        return nn.Dense(self.outputs)(nn.tanh(nn.Dense(8)(x)))


class Couplings(nn.Module):
    """x1 conditions x2, then x2 conditions x1, and so on (paper, eq. 9)."""

    count: int
    train: bool
    unbiased: bool = False

    @nn.compact
    def __call__(self, x):
        log_det = jnp.zeros(len(x), x.dtype)
        for i in range(self.count):
            shown, hidden = x[:, i % 2, None], x[:, (i + 1) % 2, None]
            log_scale, shift = jnp.split(Net(2, self.train, self.unbiased)(shown), 2, axis=1)
            log_scale = jnp.tanh(log_scale)
            hidden = hidden * jnp.exp(log_scale) + shift
            x = jnp.concatenate([shown, hidden] if i % 2 == 0 else [hidden, shown], axis=1)
            log_det += log_scale[:, 0]
        return x, log_det


def couplings(count, *, jacobian="usual", unbiased=False):
    """A flow on the plane of ``count`` couplings; ``x`` is ``(n, 2)``."""

    def init(key, x):
        return Couplings(count, True).init(key, x)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key
        flow = Couplings(count, train, unbiased)

        def apply(x):
            return flow.apply(variables, x, mutable=["batch_stats"])

        (z, log_det), updates = apply(x)
        if train and jacobian == "exact":
            log_det = own_log_det(lambda x: apply(x)[0][0], x)
        result = jax.scipy.stats.norm.logpdf(z).sum(1) + log_det
        return (result, updates["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, _no_sample)


# -------------------------------------------------------------------------- levels, one by one


class Autoregressive(nn.Module):
    """Each pixel's levels from those before it; BatchNorm over the batch, and over space or not."""

    over_space: bool
    train: bool

    @nn.compact
    def __call__(self, x):
        past = nn.one_hot(x, LEVELS)
        past = [jnp.pad(past, ((0, 0), (k, 0), (0, 0)))[:, :PIXELS] for k in range(1, PIXELS)]
        axis: Any = -1 if self.over_space else (-2, -1)
        h = nn.Dense(8)(jnp.concatenate(past, axis=-1))
        h = BatchNorm(
            use_running_average=not self.train, use_scale=False, use_bias=False, axis=axis
        )(h)
        return nn.Dense(LEVELS)(nn.tanh(nn.Dense(8)(h)))


def autoregressive(*, over_space):
    """A density over ``(n, PIXELS)`` integers below ``LEVELS``."""

    def init(key, x):
        return Autoregressive(over_space, True).init(key, x)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key
        net = Autoregressive(over_space, train)
        logits, updates = net.apply(variables, x, mutable=["batch_stats"])
        result = _log_mass(logits, x)
        return (result, updates["batch_stats"]) if mutable else result

    return DensityModel(init, log_prob, _no_sample)


class VAE(nn.Module):
    """One latent variable, two pixels, BatchNorm in encoder and decoder."""

    train: bool

    def setup(self):
        self.encoder = Net(1, self.train)
        self.decoder = Net(2 * LEVELS, self.train)

    def encode(self, x):
        return self.encoder(nn.one_hot(x, LEVELS).reshape(len(x), -1))

    def decode(self, z):
        return self.decoder(z).reshape(len(z), 2, LEVELS)

    def __call__(self, x):
        return self.decode(self.encode(x))


LATENT = np.linspace(-6, 6, 97)
"""A grid for the latent variable; the trapezoidal rule is exact to rounding here."""


def vae(*, codes=None):
    """A density over ``(n, 2)`` integers below ``LEVELS``: its own code is integrated out.

    The paper's footnote 5 takes the inference network to be optimal, so the bound is taken to be
    the log-likelihood: here it is. What is left of the inference network are the codes of the
    batch mates, which the decoder's statistics need.

    Args:
        codes: ``(n, 1)`` codes of the mates in the place of encoded ones.
    """
    weight = jax.scipy.stats.norm.logpdf(LATENT) + np.log(LATENT[1] - LATENT[0])

    def init(key, x):
        return VAE(True).init(key, x)

    def log_prob(variables, x, *, train=False, key=None, dropout_key=None, mutable=False):
        del key, dropout_key
        net = VAE(train)

        def apply(*args, **kwargs):
            return net.apply(variables, *args, **kwargs, mutable=["batch_stats"])

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


def randomize(variables, seed, gain):
    """Random weights of ``gain / sqrt(inputs)``, biases of ``gain``: away from initialization."""
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
"""Values of the image that are evaluated at a time."""


def mass(model, variables, x, mates, cell=1.0):
    """``sum over x of cell exp l(x; mates)``, in training mode.

    Args:
        model: a `DensityModel`.
        variables: of the model.
        x: ``(k, ...)``, every value of one image, or a grid of them.
        mates: ``(b - 1, ...)``, held fixed.
        cell: volume that a point of the grid stands for.

    Returns:
        A float: 1 where ``exp l`` is a conditional distribution.
    """
    x = np.asarray(x)
    chunks = -(-len(x) // CHUNK)
    filled = np.resize(x, (chunks, -(-len(x) // chunks), *x.shape[1:]))
    values = _conditional(model, variables, filled, jnp.asarray(mates))
    values = np.asarray(values, np.float64).ravel()[: len(x)]
    return float(cell * np.exp(values).sum())


def plane(half_width=12.0, step=0.25):
    """Grid points ``(k, 2)`` and their cell, for the trapezoidal rule in the plane."""
    axis = np.arange(-half_width, half_width + step / 2, step, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), step**2


def every_image(levels, *shape):
    """All images of a shape, integers ``(levels ** pixels, *shape)``."""
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
        model: what is integrated.
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


def flow_checks():
    """Couplings in the plane, at b = 4 and 16."""
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


def autoregressive_checks():
    """All 64 images of three pixels with four levels, at b = 1, 4, 16, 64."""
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


def vae_checks():
    """All 16 images of two pixels with four levels, at b = 4."""
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


def pixelcnn_checks():
    """PixelCNN++ itself, over all 65,536 images of two pixels, at b = 1 and 4."""
    model = pixelcnn((1, 2, 1), width=4, depth=1, mixtures=2, levels=1)
    x = every_image(256, 1, 2, 1).astype(np.uint8)
    variables = randomize(model.init(jax.random.key(0), x[:4]), **PIXELCNN)
    mates = np.random.default_rng(4).integers(0, 256, (3, 1, 2, 1)).astype(np.uint8)
    return [
        Check("PixelCNN++", "usual", 1, mass(model, variables, x, mates[:0]), False),
        Check("PixelCNN++", "usual", 4, mass(model, variables, x, mates), False),
        Check("PixelCNN++", "mates only", 4, mass(mates_only(model), variables, x, mates), True),
    ]


def checks(*, quick=False):
    """Every `Check`; the quick ones are those of the flows."""
    if quick:
        return flow_checks()
    return flow_checks() + autoregressive_checks() + pixelcnn_checks() + vae_checks()
