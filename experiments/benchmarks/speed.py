"""The speed of jaxood: ratios of its times to those of PyTorch, or of another way in JAX.

A line is one comparison: the median seconds of both, jaxood's divided by the other's (below 1,
jaxood is faster), the lowest and the highest ratio of a round, and the shares of the peak of a
product of matrices that both reach. The programs of a line take turns. Rounds in which other
processes ran are repeated. The peers are the same models written in PyTorch, with weights copied
and log-likelihoods that are equal (pip install 'jaxood[peer]'); of PyTorch's two layouts of images
in memory the faster one counts.
"""

import dataclasses
import time
from collections.abc import Callable

import jax

from experiments import lab
from experiments.benchmarks import delta, models, nrm, report, sampling, steps
from experiments.benchmarks.cases import PRESETS, Case, Preset
from experiments.benchmarks.models import Other, Part
from experiments.benchmarks.timing import Amount
from experiments.benchmarks.workers import serve
from jaxood.parallel import cpu_fusion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(lab.Flags):
    """Flags of the benchmark; --data-dir and --out are not used."""

    preset: Preset = "standard"
    """standard: sizes for a CPU. paper: the sizes of the papers, for an accelerator. smoke: checks
    that everything runs."""
    only: tuple[str, ...] = ()
    """Models, and "delta", "sampling" and "score"; all by default."""
    parts: tuple[Part, ...] = ("training", "evaluation", "first_step")
    """The parts of each model that are timed: a training step, an evaluation of a batch, and the
    time from the start of a process to the end of its first training step."""
    against: Other = "torch"
    """The programs that models are compared with: PyTorch; Flax's own convolution (RealNVP alone);
    XLA's fusions with YNNPACK; or XLA's operations in place of native ones."""
    rounds: int = 7
    """Rounds that count."""
    sample: float = 0.3
    """Seconds that a sample lasts at least."""
    budget: float = 60.0
    """Seconds after which three rounds of a line are enough."""
    worker: Part | None = None
    """The benchmark gives this flag to processes that it starts: they do this part of one model."""

    def start_worker(self, name: str, part: Part) -> list[str]:
        """Return the flags of a process that does a part of a model."""
        kept = [f"--preset={self.preset}", f"--platform={self.platform}", f"--seed={self.seed}"]
        return [*kept, f"--worker={part}", "--only", name]


def main(config: Config) -> list[report.Line]:
    """Print the lines, and return them.

    Raises:
        UsageError: if there is no such model, or nothing to compare it with.
    """
    lab.start(config)
    cases, others = PRESETS[config.preset], _others(config)
    if unknown := sorted(set(config.only) - {*cases, *others}):
        raise lab.UsageError(f"--only {unknown[0]}: there are {', '.join([*cases, *others])}")
    if config.worker:
        _work(config, cases[config.only[0]])
        return []
    chosen, lines = config.only or (*cases, *others), []
    _check_against(config, chosen)
    amount = Amount(config.rounds, config.sample, config.budget)
    platform = jax.default_backend()
    report.head()
    for part in config.parts:
        for name, case in cases.items():
            if name not in chosen:
                continue
            worker = config.start_worker(name, part)
            if part == "first_step":
                lines += models.first_step(case, worker, [config.preset, name, platform], amount)
            else:
                lines += models.step_or_evaluation(
                    case, part, config.against, worker, config.seed, amount
                )
    for name, measure in others.items():
        if name in chosen:
            lines += measure(config.seed, amount)
    return lines


def _others(config: Config) -> dict[str, Callable[[int, Amount], list[report.Line]]]:
    """Return what is measured besides the models' steps and evaluations, by name."""
    cases = PRESETS[config.preset]
    small, sizes = cases["realnvp"], delta.Sizes(16, 32, 1)
    if config.preset != "smoke":
        small = small.at("28x28x1, 16 channels, 2 blocks", small.shape, 64, width=16, depth=2)
        sizes = delta.Sizes(200, 1000, 4)
    classifier = next(case for case in cases.values() if case.builder == "all_cnn_c")
    return {
        "delta": lambda seed, amount: delta.delta(small, sizes, seed, amount),
        "sampling": lambda seed, amount: sampling.sampling(cases["pixelcnn"], seed, amount),
        "score": lambda seed, amount: nrm.score(classifier, seed, amount),
    }


def _check_against(config: Config, chosen: tuple[str, ...]) -> None:
    if config.against == "nn.Conv" and not all(name.startswith("realnvp") for name in chosen):
        raise lab.UsageError("--against nn.Conv is for RealNVP: add --only realnvp")
    if config.against == "fusion" and (jax.default_backend() != "cpu" or not cpu_fusion.fuses()):
        raise lab.UsageError("there are no such fusions here: leave --against fusion out")


def _work(config: Config, case: Case) -> None:
    """Do what the benchmark, which started this process, asks for."""
    model, variables = steps.initial(case, config.seed)
    part = config.worker or "training"
    if part == "first_step":
        steps.training(case, model, variables, config.seed)(1)
        print(time.time())
    else:
        serve(steps.PARTS[part](case, model, variables, config.seed))
