"""The Colab notebooks: clean sources, executed from a fresh kernel as a reader would.

Executing both takes some 80 seconds of CPU time, most of it compilation. ipywidgets is left out of
what tests install: nbclient sends every change of a progress bar back to the kernel, and on a slow
machine that was seen to stall it.
"""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXECUTE = "from nbclient.cli import main; main()"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    """Cells of one kind, by id."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: cell for cell in found if cell["cell_type"] == kind}


def source(cell):
    return "".join(cell["source"])


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["batchnorm_test", "nrm_cifar"]


@each
def test_sources_are_stripped_and_say_nothing_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    # The one way to write it, so that a change shows as what it is.
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    assert notebook["metadata"] == METADATA
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        # Names that a person gave: an editor that makes them anew is found out.
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cell["id"])
        assert cell["metadata"] == {}
    for cell in cells(path).values():
        assert cell["execution_count"] is None
        assert cell["outputs"] == []


@each
def test_badges_lead_to_the_notebook(path):
    setup = source(cells(path)["setup"])
    repository = re.search(r'REPOSITORY = "https://github\.com/(.+)"', setup)
    assert repository
    link = f"https://colab.research.google.com/github/{repository[1]}/blob/main/colab/{path.name}"
    assert f"]({link})" in source(cells(path, "markdown")["title"])
    assert f"]({link})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_cell_is_the_same():
    first, second = (source(cells(path)["setup"]) for path in NOTEBOOKS)
    assert first == second


@pytest.mark.parametrize(
    ("variables", "gpus", "preset", "runtime", "wanted"),
    [
        ({}, b"", "small", "cpu", ("jax", "[colab,tfds]")),
        ({}, b"GPU 0: one\n", "small", "gpu", ("jax[cuda12]", "[colab,tfds]")),
        ({"COLAB_TPU_1VM": "1"}, b"", "smoke", "tpu", ("jax[tpu]", "[colab]")),
        ({"COLAB_TPU_1VM": ""}, b"", "smoke", "cpu", ("jax", "[colab]")),
        ({"JAXOOD_DATA_DIR": "data"}, b"", "small", "cpu", ("jax", "[colab]")),
    ],
)
def test_first_cell_installs_what_the_runtime_needs(
    variables, gpus, preset, runtime, wanted, monkeypatch, tmp_path, capsys
):
    """The cell on a bare machine, all it starts replaced by a list of what it would start."""
    started = []

    def run(command, **_):
        started.append([str(word) for word in command])
        return SimpleNamespace(stdout=gpus)

    for name in ("JAX_PLATFORMS", "JAXOOD_DATA_DIR", "TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"JAXOOD_PRESET": preset}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    cell = tmp_path / "setup.py"
    cell.write_text(source(cells(ROOT / "colab" / "nrm_cifar.ipynb")["setup"]))
    runpy.run_path(str(cell))

    assert capsys.readouterr().out == f"runtime: {runtime}, preset: {preset}\n"
    clone, pip = started[-2:]
    assert clone[:2] == ["git", "clone"]
    jax, extras = wanted
    assert pip[-2:] == [f"{tmp_path / 'jaxood-clone'}{extras}", jax]
    assert sys.path[0] == str(tmp_path / "jaxood-clone")


@each
def test_runs_from_a_clean_kernel_and_shows_its_figures(path, tmp_path, environment):
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, "--inplace", "--timeout=300", str(copy)],
        check=False,
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT), "JAXOOD_PRESET": "smoke"},
    )
    assert done.returncode == 0, done.stderr
    for name, cell in cells(copy).items():
        # A cell that asks for a figure by its name shows it.
        wanted = len(re.findall(r'^ *show\(f?"', source(cell), re.M))
        shown = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
        assert len(shown) >= wanted, name
