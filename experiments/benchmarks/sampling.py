"""PixelCNN++'s cached sampling, against a whole forward pass for each pixel."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import peers, report, steps
from experiments.benchmarks.cases import Case
from experiments.benchmarks.report import OURS
from experiments.benchmarks.timing import Amount, Run, in_turn


def sampling(case: Case, seed: int, amount: Amount) -> list[report.Line]:
    """Print the time of one batch of samples.

    Of the peers only one pass is timed, and multiplied by the number of pixels: they would take
    minutes. What draws a pixel from the parameters is not part of it.
    """
    model, variables = steps.initial(case, seed)
    x = jnp.asarray(case.images(seed)[: case.batch_size])
    key, pixels = jax.random.key(seed), case.shape[0] * case.shape[1]
    whole_pass = jax.jit(lambda variables, x: model.log_prob(variables, x))

    def ours(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(model.sample(variables, key, len(x)))

    def whole(count: int) -> None:
        for _ in range(count):
            jax.block_until_ready(whole_pass(variables, x))

    programs: dict[str, Run] = {OURS: ours, "whole passes in JAX": whole}
    others = {"whole passes in JAX": ["whole passes in JAX"]}
    if peers.installed():
        found = _peer(case, variables, seed)
        programs |= found
        others["whole passes in PyTorch"] = list(found)
    times = in_turn(programs, amount)
    times = times.multiplied({name: pixels for name in programs if name != OURS})
    title = f"{case.title}: {len(x)} samples"
    lines = report.compare(title, times, others)
    return lines if peers.installed() else lines + report.alone(title, times, peers.ABSENT)


def _peer(case: Case, variables: Any, seed: int) -> dict[str, Run]:
    from experiments.benchmarks.peers import programs

    on = programs.device(jax.default_backend())
    return {
        layout: programs.evaluation(
            case, programs.build(case, variables, layout, on), seed, layout, on
        )
        for layout in programs.FORMATS
    }
