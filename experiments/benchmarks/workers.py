"""Processes of the benchmark's own: another environment, or a start from nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.timing import Run


class Worker:
    """A program in a process with another environment, which is a `timing.Run`.

    Args:
        flags: flags of `experiments.speed` with which the process calls `serve`.
        environment: further environment variables.
    """

    def __init__(self, flags: Sequence[str], environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.speed", *flags],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def __call__(self, count: int) -> None:
        """Run the program so many times."""
        to, answers = self._process.stdin, self._process.stdout
        assert to and answers
        to.write(f"{count}\n")
        to.flush()
        if not answers.readline():
            raise RuntimeError("a process of the benchmark ended before its work was done")

    def __enter__(self) -> "Worker":
        """Return the worker."""
        return self

    def __exit__(self, *_: Any) -> None:
        """End the process."""
        self._process.communicate()


def serve(run: Run) -> None:
    """Run a program as often as each line of the standard input says, and answer each."""
    for line in sys.stdin:
        run(int(line))
        print("done", flush=True)


def seconds_until_done(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Start Python, and measure until the time that it prints at the end of its work.

    Args:
        command: arguments of Python.
        environment: further environment variables.

    Returns:
        Seconds.
    """
    line, start = [sys.executable, *command], time.time()
    done = subprocess.run(
        line, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1]) - start
