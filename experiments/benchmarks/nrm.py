"""The NRM's latent likelihood by one forward-mode pass, against rendering and against autograd."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import peers, report, steps
from experiments.benchmarks.cases import Case
from experiments.benchmarks.report import OURS
from experiments.benchmarks.timing import Amount, Run, in_turn
from jaxood import nrm
from jaxood.scores.nrm import latent_log_prob, measure_batch


def score(case: Case, seed: int, amount: Amount) -> list[report.Line]:
    """Print the time of log p(z*|y*) of four batches of images, against other ways to it.

    Rendering is timed alone, and with the terms of all other scores. PyTorch takes the gradient of
    the logit by what enters the ReLUs, whose product with the biases is the same number.
    """
    model, variables = steps.initial(case, seed)
    images = case.images(seed)
    x = jnp.asarray(images)

    def by_rendering(variables, x):
        found = nrm.explain(model, variables, x)
        # The image too: a program that stops above it would have rendered less than the paper.
        return sum(path.sum((1, 2, 3)) for path in found.paths), found.rendered[0]

    def with_all_scores(variables, x):
        return measure_batch(model, variables, x)._replace(sizes=None)

    def timed(function: Any) -> Run:
        compiled = jax.jit(function)

        def run(count: int) -> None:
            for _ in range(count):
                jax.block_until_ready(compiled(variables, x))

        return run

    programs = {
        OURS: timed(lambda variables, x: latent_log_prob(model, variables, x).log_prob),
        "rendering": timed(by_rendering),
        "rendering, all scores": timed(with_all_scores),
    }
    others = {name: [name] for name in programs if name != OURS}
    if peers.installed():
        programs |= _peer(case, variables, images)
        others["autograd in PyTorch"] = [name for name in programs if name not in {OURS, *others}]
    times = in_turn(programs, amount)
    title = f"{case.title}: score of {len(x)} images"
    lines = report.compare(title, times, others)
    return lines if peers.installed() else lines + report.alone(title, times, peers.ABSENT)


def _peer(case: Case, variables: Any, images: Any) -> dict[str, Run]:
    from experiments.benchmarks.peers import programs

    on = programs.device(jax.default_backend())

    def timed(layout: str) -> Run:
        peer = programs.build(case, variables, layout, on)
        x = programs.as_tensor(images, layout, on)

        def run(count: int) -> None:
            for _ in range(count):
                peer.latent_log_prob(x)
            programs.wait(on)

        return run

    return {layout: timed(layout) for layout in programs.FORMATS}
