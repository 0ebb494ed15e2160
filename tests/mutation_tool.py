"""Small changes of modules: python -m tests.mutation_tool [--sample 40] [module].

Cosmic Ray (pip install cosmic-ray) makes small changes to a module, one at a time in a copy of the
tree, and runs the module's tests; a change that they do not notice is a survivor and is printed.
From each module a seeded sample is taken. Some survivors change nothing that can be seen, such as a
buffer's size; others are a reason to write a better test. `tests.mutations` does the same with
chosen changes of the models.
"""

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.helpers import ROOT
from tests.mutations import TREE

MODULES = {
    "detector": "test_detector.py",
    "metrics": "test_metrics.py test_metrics_interval.py",
    "report/record": "report/test_record.py",
    "results": "test_results.py test_stream.py -k not.killed",
    "stream": "test_stream.py test_results.py -k not.killed",
    "integrity": "test_integrity.py experiments/test_store.py",
    "data/files": "data/test_files.py data/test_damage.py data/test_open.py",
    "data/image_files": "data/test_files.py data/test_damage.py data/test_open.py",
    "data/array_files": "data/test_files.py data/test_damage.py data/test_data.py",
    "parallel/batches": "scores/test_scores.py",
    "scores/batch_norm": "scores/test_batch_norm.py scores/test_scores.py",
    "scores/plain": "scores/test_contract.py -k plain.or.damaged.or.written.or.types",
    "scores/score": "scores/test_contract.py",
    "scores/statistics": "scores/test_scores.py scores/test_nrm.py models/test_ensemble.py",
}
"""Modules of jaxood/, and the tests that ought to notice."""

# Binary operators that a person could have meant; others fail at once, or stand in annotations.
_KEPT = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_FloorDiv", "Pow_Mul")

# For small integers, "is" does the same as "==".
_SAME = ("_Is", "_IsNot")


def survivors(module: str, sample: int, seed: int) -> tuple[int, list[str]]:
    """Change a module, and return the number of changes and the difference of each survivor."""
    file, *options = MODULES[module].split(" -k ")
    tests = [f"tests/{name}" for name in file.split()]
    chosen = ["-k", options[0].replace(".", " ")] if options else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in TREE:
            whole = ROOT / part
            (shutil.copytree if whole.is_dir() else shutil.copy)(whole, copy / part)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", *tests, *chosen]
        lines = ("import subprocess, sys", f"sys.exit(subprocess.call({command}))")
        (copy / "run.py").write_text("\n".join(lines))
        (copy / "session.toml").write_text(
            f'[cosmic-ray]\nmodule-path = "jaxood/{module}.py"\ntimeout = 120.0\n'
            f'excluded-modules = []\ntest-command = "{sys.executable} run.py"\n'
            '[cosmic-ray.distributor]\nname = "local"\n'
        )

        def run(*arguments):
            tool = Path(sys.executable).with_name("cosmic-ray")
            environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
            subprocess.run([tool, *arguments], cwd=copy, env=environment, check=True)

        subprocess.run(command, cwd=copy, check=True, stdout=subprocess.DEVNULL)  # they pass
        run("init", "session.toml", "session.sqlite")
        with sqlite3.connect(copy / "session.sqlite") as session:
            jobs = session.execute("SELECT job_id, operator_name FROM mutation_specs").fetchall()
            jobs = [
                job
                for job, name in jobs
                if not name.endswith(_SAME) and ("Binary" not in name or name.endswith(_KEPT))
            ]
            jobs = random.Random(seed).sample(jobs, min(sample, len(jobs)))
            for table in ("mutation_specs", "work_items"):
                marks = ",".join("?" * len(jobs))
                session.execute(f"DELETE FROM {table} WHERE job_id NOT IN ({marks})", jobs)
        run("exec", "session.toml", "session.sqlite")
        with sqlite3.connect(copy / "session.sqlite") as session:
            left = session.execute(
                "SELECT diff FROM work_results WHERE test_outcome = 'SURVIVED'"
            ).fetchall()
        return len(jobs), [diff for (diff,) in left]


def main():
    """Run, and print the survivors and the share of changes that is noticed."""
    parser = argparse.ArgumentParser(description="Which small changes go unnoticed?")
    parser.add_argument("modules", nargs="*", default=list(MODULES), help=", ".join(MODULES))
    parser.add_argument("--sample", type=int, default=40, help="number of changes of each module")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    arguments = parser.parse_args()
    tried = survived = 0
    for module in arguments.modules:
        count, left = survivors(module, arguments.sample, arguments.seed)
        for difference in left:
            print(difference)
        print(f"{module}: {count - len(left)} of {count} are noticed", flush=True)
        tried, survived = tried + count, survived + len(left)
    print(f"all: {tried - survived} of {tried} are noticed ({1 - survived / tried:.0%})")


if __name__ == "__main__":
    main()
