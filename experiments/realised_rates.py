"""The rates at which detectors really report trusted images, and sets of them.

This command takes the model of a finished run (bn_fashion_mnist or bn_cifar) and trusted test
images, which it splits again and again into images to calibrate on and fresh ones. It prints a
table of the rates that a detector realises, each with the interval in which it lies 99 times in 100
if the detector keeps the rate that was asked for:

- scores of one image, at three rates;
- sets by Δ, of images that arrive shuffled and of images that arrive sorted by class, both dealt by
  a shuffle, in three sizes;
- for comparison, uses of Δ that promise nothing: sets that are cut as the images arrive, sorted by
  class, and single images beside OOD ones.

Example: python -m experiments.realised_rates --run runs/bn_fashion_mnist-realnvp-small --ood mnist
"""

from rich.console import Console
from rich.table import Table

from experiments import lab
from experiments.screen import RUNS
from experiments.screening import realised_rates
from experiments.screening.realised_rates import Config
from experiments.screening.runs import finished_run


def main(flags: Config) -> Table:
    """Measure, and print the table."""
    lab.start(flags)
    table = realised_rates.measure(flags, finished_run(flags.run, RUNS))
    Console().print(table)
    return table


if __name__ == "__main__":
    lab.main(main, Config, __doc__)
