"""Training steps, evaluations and first steps of models, compared with others."""

import contextlib
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import jax

from experiments.benchmarks import peers, report, steps
from experiments.benchmarks.cases import Case
from experiments.benchmarks.report import OURS, PRODUCT
from experiments.benchmarks.timing import Amount, Run, in_turn
from experiments.benchmarks.workers import Worker, seconds_until_done
from jaxood.parallel import cpu_fusion

Part = Literal["training", "evaluation", "first_step"]
Other = Literal["torch", "nn.Conv", "fusion", "xla"]

STEPS = 3
"""Training steps of a sample, at least: a training takes several in each call, too."""

ENVIRONMENTS: dict[Other, dict[str, str]] = {
    "fusion": {"XLA_FLAGS": f"{cpu_fusion.FLAG}={','.join(map(str, cpu_fusion.FUSED.values()))}"},
    "xla": {"JAXOOD_NATIVE": "0"},
}
"""The environments of those others that are jaxood itself, by name."""


def step_or_evaluation(
    case: Case, part: Part, against: Other, worker: Sequence[str], seed: int, amount: Amount
) -> list[report.Line]:
    """Print the time of a training step, or of an evaluation of a batch.

    Args:
        case: the model.
        part: "training" or "evaluation".
        against: what it is compared with.
        worker: flags of `experiments.speed` for a process that does the same.
        seed: seed of weights and images.
        amount: how much to measure.
    """
    title = f"{case.title}: {part}"
    amount = amount._replace(fewest=STEPS) if part == "training" else amount
    model, variables = steps.initial(case, seed)
    ours: dict[str, Run] = {OURS: steps.PARTS[part](case, model, variables, seed)}
    if against == "torch":
        if reason := _no_peer(case):
            return report.alone(title, in_turn(ours, amount), reason)
        return _with_torch(title, case, part, ours, variables, seed, amount)
    if against == "nn.Conv":
        ours[against] = steps.with_plain_conv(case, part, variables, seed)
        return report.compare(title, in_turn(ours, amount), {against: [against]})
    with Worker(worker, ENVIRONMENTS[against]) as other:
        times = in_turn({**ours, against: other}, amount, children=[other.pid])
    return report.compare(title, times, {against: [against]})


def _no_peer(case: Case) -> str:
    """Say why there is no peer to compare with, or nothing."""
    if not case.has_peer:
        return "the peer has the cross-entropy alone"
    return "" if peers.installed() else peers.ABSENT


def _with_torch(title, case, part, ours, variables, seed, amount) -> list[report.Line]:
    from experiments.benchmarks.peers import programs

    on = programs.device(jax.default_backend())
    others = {
        layout: programs.PARTS[part](
            case, programs.build(case, variables, layout, on), seed, layout, on
        )
        for layout in programs.FORMATS
    }
    product, operations = programs.product(on)
    times = in_turn({**ours, **others, PRODUCT: product}, amount)
    work = report.Work(programs.operations(others["NCHW"]), operations)
    return report.compare(title, times, {"PyTorch": list(others)}, work)


def first_step(
    case: Case, worker: Sequence[str], peer: Sequence[str], amount: Amount
) -> list[report.Line]:
    """Print the time from the start of a process to the end of its first training step.

    A first start finds no compiled programs, a second start those that the first has kept.

    Args:
        case: the model.
        worker: flags of `experiments.speed` for a process that does a step.
        peer: arguments of `experiments.benchmarks.peers.first_step`.
        amount: how much to measure.
    """
    command, again = ["-m", "experiments.speed", *worker], "second start"
    title, cache = f"{case.title}: first step", ""
    with contextlib.ExitStack() as stack:

        def start(count: int) -> float:
            nonlocal cache
            del count  # a process ends after its first step
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            return seconds_until_done(command, {"JAX_COMPILATION_CACHE_DIR": cache})

        def start_again(count: int) -> float:
            del count
            return seconds_until_done(command, {"JAX_COMPILATION_CACHE_DIR": cache})

        def start_peer(count: int) -> float:
            del count
            return seconds_until_done(["-m", "experiments.benchmarks.peers.first_step", *peer], {})

        programs: dict[str, Any] = {OURS: start, again: start_again}
        if not _no_peer(case):
            programs["PyTorch"] = start_peer
        times = in_turn(programs, amount, warm=False)
    if reason := _no_peer(case):
        lines = report.alone(title, times, reason)
    else:
        lines = report.compare(title, times, {"PyTorch": ["PyTorch"]})
    return lines + report.compare(f"{title}, {again}", times, {"first start": [OURS]}, ours=again)
