"""The message of a process that ends before it can write one."""

import subprocess


class LastWords:
    """An error message that a shell writes if this process ends without having taken it back.

    JAX aborts a process when it learns that another process of the run is gone, and no Python code
    runs then. The shell waits for a line on its standard input: where the input ends without one,
    this process is gone.
    """

    message = (
        "error: this process ended in the middle of its work: another process of this run is "
        "gone, or it was killed. Start all of them again: they go on from the last checkpoint."
    )

    def __init__(self) -> None:
        self._shell: subprocess.Popen | None = None

    def leave(self) -> None:
        """Have the message written if this process ends."""
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["sh", "-c", 'read -r _ || echo "$0" >&2', self.message],
                stdin=subprocess.PIPE,
                start_new_session=True,  # a signal to the whole group is for this process
            )

    def take_back(self) -> None:
        """Have nothing written."""
        if self._shell is not None:
            self._shell.communicate(b"\n")
            self._shell = None


LAST_WORDS = LastWords()
"""The last words of this process."""
