"""The BatchNorm paper's two examples that fit on a page: Section 3, and Section 4.2.1 with D."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.integrate import quad
from scipy.stats import norm

from jaxood import metrics, scores

# ----------------------------------------------------------- Section 3: a misspecified Gaussian

VARIANCE = 0.01
"""Variance of each component: the paper writes N(-1, 0.01) beside N(mu, sigma^2)."""
MEMBERS = 5
"""Number of members of the ensemble (paper: M = 5)."""


class Gaussians(NamedTuple):
    """Section 3 in numbers.

    Attributes:
        closed_form, trained: maximum-likelihood ``(mu, sigma)``, by moments and by descent.
        members: ``(M, 2)``, those of the ensemble.
        data: ``(n,)``, held-out samples of p.
        ood: by name of q, ``(n,)`` samples.
        scores: by score, then by set (``p`` or a name of q), ``(n,)``, higher = more OOD.
    """

    closed_form: tuple[float, float]
    trained: tuple[float, float]
    members: np.ndarray
    data: np.ndarray
    ood: dict[str, np.ndarray]
    scores: dict[str, dict[str, np.ndarray]]

    def auroc(self, score: str, name: str) -> float:
        """Return how well a score tells samples of q from those of p, as AUROC."""
        return metrics.auroc(self.scores[score]["p"], self.scores[score][name])


def sample_mixture(rng: np.random.Generator, n: int) -> np.ndarray:
    """Sample the even mixture of N(-1, 0.01) and N(1, 0.01): ``(n,)``."""
    return rng.choice([-1.0, 1.0], n) + np.sqrt(VARIANCE) * rng.normal(size=n)


def fit_by_descent(x: np.ndarray, steps: int = 500) -> tuple[float, float]:
    """Fit ``(mu, sigma)`` of a Gaussian to ``x`` ``(n,)`` by maximum likelihood.

    Adam starts at (1, 0.5).
    """
    values = jnp.asarray(x, jnp.float32)

    def loss(params):
        mu, log_sigma = params
        return -jax.scipy.stats.norm.logpdf(values, mu, jnp.exp(log_sigma)).mean()

    mu, log_sigma = _descend(loss, (jnp.float32(1), jnp.log(jnp.float32(0.5))), steps)
    return float(mu[-1]), float(np.exp(log_sigma[-1]))


def gaussians(seed: int = 0, n: int = 1000) -> Gaussians:
    """Fit one Gaussian and an ensemble, each member to its own sample; score p and two q."""
    rng = np.random.default_rng(seed)
    train, null, data = (sample_mixture(rng, n) for _ in range(3))
    ood = {"N(0, 0.01)": 0.1 * rng.normal(size=n), "U(−0.5, 0.5)": rng.uniform(-0.5, 0.5, n)}
    closed = float(train.mean()), float(train.std())
    samples = [sample_mixture(rng, n) for _ in range(MEMBERS)]
    members = np.array([(s.mean(), s.std()) for s in samples])

    def log_prob(x):
        return norm.logpdf(x, *closed)

    table = {
        "neg_log_prob": lambda x: -log_prob(x),
        "t_perm": lambda x: scores.statistics.t_perm(log_prob(x), log_prob(null)),
        "waic": lambda x: scores.statistics.waic(norm.logpdf(x, members[:, :1], members[:, 1:])),
    }
    sets = {"p": data} | ood
    scored = {score: {k: f(x) for k, x in sets.items()} for score, f in table.items()}
    return Gaussians(closed, fit_by_descent(train), members, data, ood, scored)


# ----------------------------------------------------------------- Section 4.2.1 and Appendix D

LOG_2PI = np.log(2 * np.pi)


class Expectations(NamedTuple):
    """Mean log-likelihoods in nats, each a number or an array.

    Attributes:
        p: log-likelihood of p, in evaluation mode.
        q_evaluation: log-likelihood of q, in evaluation mode.
        q_training: log-likelihood of q, in training mode.
    """

    p: Any
    q_evaluation: Any
    q_training: Any

    @property
    def effect(self) -> Any:
        """The change that training mode makes to the log-likelihood of q."""
        return self.q_training - self.q_evaluation


PRINTED = Expectations(-2.84, -1.92, -2.38)
"""Appendix D, equations 17 to 19."""


def coupling(x1: Any, x2: Any, gamma: float, beta: float, mean: float, variance: float) -> Any:
    """Compute ``z2`` of equation 13, of numbers or arrays; ``z1 = x1``, the determinant is 1."""
    return x2 + (x1 - mean) / np.sqrt(variance) * gamma + beta


def closed_form(gamma: float | np.ndarray, variance: float = 1 / 12) -> Expectations:
    """Compute the three expectations at ``beta = 0`` and sigma -> 0, where p is two points.

    Args:
        gamma: weight of the coupling; an array gives arrays.
        variance: V(x1) of q that training mode divides by. That of U(-1/2, 1/2) is 1/12; with
            the 1/sqrt(12) of equation 19's text the third value would be -2.02.
    """
    gamma = np.square(gamma)
    return Expectations(
        -LOG_2PI - (1 + gamma) / 2,
        -LOG_2PI - (1 + gamma) / 24,
        -LOG_2PI - (1 + gamma / variance) / 24,
    )


def by_quadrature(gamma: float, sigma: float = 1e-3) -> Expectations:
    """Compute the three expectations by integration over x1, in double precision; x2 is 0."""

    def p(x1: float) -> float:
        return float(norm.pdf(x1, -1, sigma) + norm.pdf(x1, 1, sigma)) / 2

    def q(x1: float) -> float:
        return 1.0

    def integrate(f, density, edges):
        parts = zip(edges[::2], edges[1::2], strict=True)
        return sum(
            quad(lambda x: f(x) * density(x), a, b, epsabs=1e-12, epsrel=1e-12)[0] for a, b in parts
        )

    wide = 10 * sigma
    p_edges, q_edges = (-1 - wide, -1, -1, -1 + wide, 1 - wide, 1, 1, 1 + wide), (-0.5, 0.5)

    def moments(density, edges):
        mean = integrate(lambda x: x, density, edges)
        return mean, integrate(lambda x: (x - mean) ** 2, density, edges)

    of_p, of_q = moments(p, p_edges), moments(q, q_edges)

    def log_prob(statistics):
        return lambda x: norm.logpdf(x) + norm.logpdf(coupling(x, 0, gamma, 0, *statistics))

    return Expectations(
        integrate(log_prob(of_p), p, p_edges),
        integrate(log_prob(of_p), q, q_edges),
        integrate(log_prob(of_q), q, q_edges),
    )


# The effect is real where maximum likelihood has a use for what BatchNorm normalizes: let x2 follow
# x1, and let the coupling have a scale.
SLOPE, NOISE = 1.0, 0.5
"""The dependent example: ``x2 = SLOPE x1 + NOISE e`` with standard normal ``e``, for p and for q;
``z2 = (x2 + (x1 - E) / sqrt(V) gamma + beta) exp(s)``."""


DEPENDENT_OPTIMUM = (-SLOPE, -float(np.log(NOISE)))
"""Maximum-likelihood (gamma, s) of the dependent example as sigma -> 0."""


def dependent_closed_form(gamma: float | np.ndarray, log_scale: float | np.ndarray) -> Expectations:
    """Compute the three expectations of the dependent example at ``beta = 0``, sigma -> 0."""
    scale = np.exp(2 * log_scale)

    def expectation(second_moment, factor):
        residual = (SLOPE + factor * gamma) ** 2 * second_moment + NOISE**2
        return -LOG_2PI - second_moment / 2 - scale * residual / 2 + log_scale

    return Expectations(expectation(1, 1), expectation(1 / 12, 1), expectation(1 / 12, np.sqrt(12)))


def sample_p(
    rng: np.random.Generator, n: int, *, slope: float = 0, noise: float = 0, sigma: float = 0.05
) -> np.ndarray:
    """Sample p, ``(n, 2)``: x1 of the mixture, with a sigma that one can see, and x2."""
    x1 = rng.choice([-1.0, 1.0], n) + sigma * rng.normal(size=n)
    return np.stack([x1, slope * x1 + noise * rng.normal(size=n)], 1)


def sample_q(rng: np.random.Generator, n: int, *, slope: float = 0, noise: float = 0) -> np.ndarray:
    """Sample q, ``(n, 2)``: x1 uniform on (-1/2, 1/2), and x2."""
    x1 = rng.uniform(-0.5, 0.5, n)
    return np.stack([x1, slope * x1 + noise * rng.normal(size=n)], 1)


class Descent(NamedTuple):
    """The parameters of a coupling while it is fitted, in training mode.

    Attributes:
        gamma, beta, log_scale: ``(steps + 1,)``, from the start to the end.
    """

    gamma: np.ndarray
    beta: np.ndarray
    log_scale: np.ndarray


def train_coupling(
    data: np.ndarray, *, scale: bool, steps: int = 600, batch_size: int = 64, seed: int = 0
) -> Descent:
    """Fit the coupling by Adam, in training mode, from gamma = 1 and s = 0.

    Args:
        data: ``(n, 2)``.
        scale: whether the coupling may multiply ``x2`` by ``exp(s)``; the paper's may not.
        steps: number of updates.
        batch_size: rows of ``data`` in an update.
        seed: seed of the batches.
    """
    x = jnp.asarray(data, jnp.float32)
    key = jax.random.key(seed)

    def loss(params, step):
        rows = jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, len(x))
        x1, x2 = x[rows].T
        gamma, beta, log_scale = params
        log_scale = scale * log_scale
        z2 = (x2 + (x1 - x1.mean()) / x1.std() * gamma + beta) * jnp.exp(log_scale)
        log_prob = jax.scipy.stats.norm.logpdf(x1) + jax.scipy.stats.norm.logpdf(z2) + log_scale
        return -log_prob.mean()

    start = jnp.float32(1), jnp.float32(0.5), jnp.float32(0)
    return Descent(*_descend(loss, start, steps, noisy=True))


def _descend(loss: Callable, params: tuple, steps: int, noisy: bool = False) -> tuple:
    """Run Adam with a rate that falls to zero; returns each parameter's path ``(steps + 1,)``."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, steps))
    gradient = jax.grad(loss if noisy else lambda params, _: loss(params))

    def step(carry, i):
        params, state = carry
        updates, state = optimizer.update(gradient(params, i), state)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    _, path = jax.jit(lambda params: jax.lax.scan(step, params, jnp.arange(steps)))(
        (params, optimizer.init(params))
    )
    return jax.tree.map(lambda a, b: np.append(np.asarray(a), np.asarray(b)), params, path)
