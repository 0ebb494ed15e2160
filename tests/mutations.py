"""A check that the tests of the models fail when a model is wrong: python -m tests.mutations.

Each entry of `tests.mutation_table` changes one line of the library, in a copy of the tree, and
names the tests that ought to notice. The entries were written down before any of them was run; an
entry that its tests do not notice is a reason to write a better test, and stays in the table. The
first run noticed 38 of them. A run takes five minutes on one core.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers import ROOT
from tests.mutation_table import MUTATIONS, Mutation

TREE = ("jaxood", "experiments", "tests", "pyproject.toml")
LIMIT = 300
"""Seconds that the tests of one mutation may take; a program that never ends counts as noticed."""


def arguments(mutation: Mutation) -> list[str]:
    """Make the arguments of pytest: files, and the expression after -k as one argument."""
    files, _, chosen = mutation.tests.partition(" -k ")
    paths = [f"tests/{name}" for name in files.split()]
    return paths + (["-k", chosen] if chosen else [])


def mutated(mutation: Mutation, root: Path) -> str:
    """Return the text of the file with the wrong line.

    Raises:
        ValueError: if the old text is not found exactly once.
    """
    text = (root / "jaxood" / mutation.file).read_text()
    count = text.count(mutation.old)
    if count != 1:
        raise ValueError(
            f"{mutation.file} holds the text {mutation.old!r} {count} times, not once: "
            f'bring the mutation "{mutation.what}" up to date'
        )
    return text.replace(mutation.old, mutation.new)


def noticed_by(mutation: Mutation, tree: Path, environment) -> str:
    """Return the first test that fails, or an empty string.

    Raises:
        RuntimeError: if the tests could not be run.
    """
    file = tree / "jaxood" / mutation.file
    text, wrong = file.read_text(), mutated(mutation, tree)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", *arguments(mutation)]
    try:
        file.write_text(wrong)
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "the limit of time"
    finally:
        file.write_text(text)
    if done.returncode not in (0, 1):  # passed, or failed
        raise RuntimeError(f"pytest could not run {mutation.tests}:\n{done.stdout}{done.stderr}")
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutations, from 1 on")
    numbers = parser.parse_args().only or range(1, len(MUTATIONS) + 1)
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for name in TREE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONDONTWRITEBYTECODE": "1",  # a file may change twice within a second
            "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "compiled"),
            "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        for number in numbers:
            mutation = MUTATIONS[number - 1]
            start = time.monotonic()
            test = noticed_by(mutation, tree, environment)
            caught += bool(test)
            seconds = time.monotonic() - start
            print(f"{number:2} {seconds:3.0f} s  {mutation.file}: {mutation.what}", flush=True)
            print(f"         caught by {test}" if test else "         SURVIVED", flush=True)
    print(f"{caught} of {len(numbers)} caught")


if __name__ == "__main__":
    main()
