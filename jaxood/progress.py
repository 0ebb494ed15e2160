"""Progress of long work on stderr: a bar on a terminal or in a notebook, else a line at times."""

import contextlib
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxood import parallel

SECONDS_A_LINE = 15.0


@contextlib.contextmanager
def bar(description, total, *, done=0, show=True):
    """Show how far some work is.

    Args:
        description: what is being done.
        total: how many units it has.
        done: how many were done before.
        show: False shows nothing, and of several processes only the first shows anything.

    Yields:
        ``advance(count, note="")``: ``count`` more units are done; ``note`` is shown beside them.
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
            yield lambda count, note="": progress.update(task, advance=count, note=note)
        return

    next_line = time.monotonic() + SECONDS_A_LINE

    def advance(count, note=""):
        nonlocal done, next_line
        done += count
        if show and (done == total or time.monotonic() >= next_line):
            console.print(f"{description} {done}/{total} {note}", highlight=False, soft_wrap=True)
            next_line = time.monotonic() + SECONDS_A_LINE

    yield advance
