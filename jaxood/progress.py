"""Progress of long work on stderr: a bar on a terminal or in a notebook, otherwise lines."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxood import parallel

SECONDS_A_LINE = 15.0
"""Seconds between lines, where there is no terminal to draw a bar on."""


@contextlib.contextmanager
def bar(
    description: str, total: int, *, done: int = 0, show: bool = True
) -> Iterator[Callable[..., None]]:
    """Show the progress of some work.

    Args:
        description: description of the work.
        total: number of its units.
        done: number of units that were done before.
        show: False shows nothing. Of several processes, only process 0 shows anything.

    Yields:
        A function ``advance(count, note="")`` that adds ``count`` units and shows ``note``.
    """
    console = Console(stderr=True)
    show = show and parallel.is_writer()
    if console.is_terminal or console.is_jupyter:
        columns = (
            TextColumn("{task.description:<21}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, disable=not show) as progress:
            task = progress.add_task(description, total=total, completed=done, note="")

            def update(count: int, note: str = "") -> None:
                progress.update(task, advance=count, note=note)

            yield update
        return

    next_line = time.monotonic() + SECONDS_A_LINE

    def advance(count: int, note: str = "") -> None:
        nonlocal done, next_line
        done += count
        if show and (done == total or time.monotonic() >= next_line):
            console.print(f"{description} {done}/{total} {note}", highlight=False, soft_wrap=True)
            next_line = time.monotonic() + SECONDS_A_LINE

    yield advance
