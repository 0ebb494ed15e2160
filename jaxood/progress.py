"""Progress bars on stderr."""

import contextlib

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def bar(description, total, *, done=0, show=True):
    """A progress bar for long work.

    Args:
      description: what is being done.
      total: how many units it has.
      done: how many were done before.
      show: False draws nothing.

    Yields:
      ``advance(count, note="")``: ``count`` more units are done; ``note`` is shown beside the bar.
    """
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:
        task = progress.add_task(description, total=total, completed=done, note="")

        def advance(count, note=""):
            progress.update(task, advance=count, note=note)

        yield advance
