"""Samples at a temperature, and the search for the one that makes them as likely as is asked."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from experiments.lab import UsageError
from jaxood import progress
from jaxood.density import DensityModel, Variables

_LOWEST = float(np.finfo(np.float32).min)


Sampler = Callable[[jax.Array, int, float], np.ndarray]
"""``(key, n, temperature)`` to uint8 ``(n, h, w, c)``."""


def sampler(model: DensityModel, variables: Variables, chunk: int) -> Sampler:
    """Make a function that draws samples at any temperature by one program.

    Args:
        model: a `DensityModel`.
        variables: variables of the model.
        chunk: number of samples drawn at a time.

    Returns:
        A function whose random numbers depend on the key alone, not on the temperature.
    """
    program = jax.jit(
        lambda variables, key, temperature: model.sample(
            variables, key, chunk, temperature=temperature
        )
    )

    def draw(key: jax.Array, n: int, temperature: float) -> np.ndarray:
        chunks = -(-n // chunk)
        parts = []
        with progress.bar("sampling", chunks, show=chunks > 1) as advance:
            for i in range(chunks):
                part = program(variables, jax.random.fold_in(key, i), temperature)
                parts.append(np.asarray(part))
                advance(1)
        return np.concatenate(parts)[:n]

    return draw


class Search(NamedTuple):
    """A temperature and how it was found.

    Attributes:
        temperature: the temperature that was looked for.
        tried: by temperature that was tried, log-likelihoods ``(n,)`` of samples, nats, all finite.
    """

    temperature: float
    tried: dict[float, np.ndarray]


def find_temperature(
    log_prob: Callable[[float], np.ndarray],
    target: float,
    *,
    tolerance: float = 0.005,
    factor: float = 1.25,
    limits: tuple[float, float] = (0.05, 20.0),
) -> Search:
    """Find the temperature at which the median log-likelihood of samples is ``target``.

    Steps by ``factor`` from T = 1 find a bracket, and bisection narrows it down: it needs no more
    than the sign of a noisy difference. Samples of a trained model grow less likely with
    temperature, those of an untrained one may grow likelier (a PixelCNN++ then prefers black and
    white to grey); either way the median has to be monotone.

    Args:
        log_prob: temperature to log-likelihoods ``(n,)`` of samples, nats; best with the same
            random numbers at every temperature.
        target: the median to reach, nats.
        tolerance: width of the last bracket, whose middle is returned.
        factor: ratio of the steps that look for a bracket.
        limits: lowest and highest temperature to try.

    Raises:
        UsageError: if no temperature within the limits reaches the target, or the median both
            rises and falls with temperature, by more than noise.
    """
    tried: dict[float, np.ndarray] = {}

    def median(temperature: float) -> float:
        if temperature not in tried:
            values = np.asarray(log_prob(temperature), np.float64)
            # An exploded likelihood is an unlikely one, and must have quartiles.
            tried[temperature] = np.nan_to_num(values, nan=_LOWEST, neginf=_LOWEST)
            _check_monotone(tried)
        return float(np.median(tried[temperature]))

    def too_likely(temperature: float) -> bool:
        return median(temperature) > target

    low, high = 1.0, factor
    falls = median(high) < median(low)
    while too_likely(low) == too_likely(high):
        low, high = (high, high * factor) if too_likely(low) == falls else (low / factor, low)
        if low < limits[0] or high > limits[1]:
            medians = [median(t) for t in tried]
            raise UsageError(
                f"no temperature between {min(tried):.3g} and {max(tried):.3g} makes samples as "
                f"likely as is asked for, a median of {target:,.1f} nats: theirs is "
                f"{min(medians):,.1f} to {max(medians):,.1f}. Train for more --steps"
            )
    falls = too_likely(low)
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if too_likely(middle) == falls else (low, middle)
    return Search((low + high) / 2, tried)


def _check_monotone(tried: Mapping[float, np.ndarray]) -> None:
    """Refuse medians that rise and fall with temperature by more than three standard errors."""
    temperatures = sorted(tried)
    values = [tried[t] for t in temperatures]
    medians = np.array([np.median(v) for v in values])
    # Of a normal sample the median has variance pi/2 s^2 / n, and the quartiles lie 1.349 s apart.
    spread = np.array([np.subtract(*np.quantile(v, [0.75, 0.25])) / 1.349 for v in values])
    variance = np.pi / 2 * spread**2 / [len(v) for v in values]
    steps, noise = np.diff(medians), 3 * np.sqrt(variance[1:] + variance[:-1])
    if (steps > noise).any() and (steps < -noise).any():
        course = ", ".join(
            f"{m:,.1f} at T = {t:.3g}" for t, m in zip(temperatures, medians, strict=True)
        )
        raise UsageError(
            "the samples' median log-likelihood both rises and falls with temperature, so that no "
            f"search makes sense: in nats, {course}. Train for more --steps"
        )
