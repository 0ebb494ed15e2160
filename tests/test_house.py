"""The order of the house, read from the source: rooms, imports, sizes of files, public signatures.

Nothing is imported or computed here. CONTRIBUTING.md describes the rooms in words.
"""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from tests.helpers import ROOT

LONGEST = 400
"""Lines of a file."""

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for part in ("jaxood", "experiments", "tests")
    for path in sorted((ROOT / part).rglob("*.py"))
}
"""Every module of the repository, by the name under which it is imported."""

MAY_IMPORT = {
    "jaxood": "jaxood",
    "jaxood.integrity": "",
    "jaxood.density": "",
    "jaxood.metrics": "",
    "jaxood.data": "density",
    "jaxood.compilation": "",
    "jaxood.parallel": "compilation integrity",
    "jaxood.progress": "parallel",
    "jaxood.nn": "density parallel",
    "jaxood.models": "compilation density nn",
    "jaxood.train": (
        "compilation data.augment density integrity models.ensemble models.nrm nn parallel progress"
    ),
    "jaxood.scores": "density models nn parallel progress",
    "jaxood.detector": "density integrity progress",
    "jaxood.results": "data integrity",
    "jaxood.stream": "data detector integrity parallel progress results scores",
    "jaxood.report": "data integrity metrics",
    "experiments.lab": "jaxood",
    "experiments.batch_norm": "jaxood lab",
    "experiments.nrm": "jaxood lab",
    "experiments.screening": "jaxood lab batch_norm",
    "experiments.benchmarks": "jaxood lab",
}
"""The rooms that a room may import; commands, which lie in no room, may import anything."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Modules of the repository that a module imports, anywhere in it, and the name it takes."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [
                (inner, "")
                if (inner := f"{node.module}.{alias.name}") in FILES
                else (str(node.module), alias.name)
                for alias in node.names
            ]
        else:
            continue
        yield from ((name, taken) for name, taken in found if name in FILES)


def room(module: str) -> str:
    """The folder below jaxood or experiments that a module lies in, or the module itself."""
    return ".".join(module.split(".")[:2])


def within(module: str, places: str) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places.split())


# ----------------------------------------------------------------------------------- the imports


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {to for to, _ in imports(name)} - {name} for name in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # or CycleError, which names the circle


def test_jaxood_imports_neither_experiments_nor_tests():
    assert not [
        (name, to)
        for name in FILES
        for to, _ in imports(name)
        if (within(name, "jaxood") and not within(to, "jaxood"))
        or (within(name, "experiments") and within(to, "tests"))
    ]


def test_every_room_has_its_place_in_the_order():
    rooms = {room(name) for name in FILES if within(name, "jaxood")}
    folders = {f"experiments.{path.parent.name}" for path in ROOT.glob("experiments/*/__init__.py")}
    assert rooms | folders == {*MAY_IMPORT}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_rooms_below_it(name):
    whole = name.partition(".")[0]
    below = [p if p == "jaxood" else f"{whole}.{p}" for p in MAY_IMPORT[name].split()]
    assert not {
        (module, to)
        for module in FILES
        if room(module) == name
        for to, _ in imports(module)
        if not within(to, " ".join([name, *below]))
    }


def test_what_is_private_stays_in_its_folder():
    assert not [
        (name, to, taken)
        for name in FILES
        for to, taken in imports(name)
        if taken.startswith("_") and FILES[to].parent != FILES[name].parent
    ]


# ------------------------------------------------------------------------------------- the files


def test_no_file_is_too_long():
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert not {name: size for name, size in sizes.items() if size > LONGEST}


def test_a_file_is_named_like_a_test_where_it_holds_tests_and_nowhere_else():
    def named(path: Path) -> bool:
        return path.name.startswith("test_") or path.stem.endswith("_test")

    def holds(name: str) -> bool:
        defined = (n for n in tree(name).body if isinstance(n, ast.FunctionDef))
        return within(name, "tests") and any(n.name.startswith("test_") for n in defined)

    assert not [name for name, path in FILES.items() if named(path) != holds(name)]


def test_every_package_and_its_data_are_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns, data = settings["packages"]["find"]["include"], settings["package-data"]
    for path in (ROOT / "jaxood").rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts or path.suffix == ".so":
            continue
        package = ".".join(path.parent.relative_to(ROOT).parts)
        if path.suffix == ".py":
            assert (path.parent / "__init__.py").is_file(), path
            assert any(fnmatch(package, pattern) for pattern in patterns), path
        elif path.suffix not in (".cc", ".h"):  # sources are compiled, see MANIFEST.in
            owner = max((name for name in data if within(package, name)), key=len)
            inside = path.relative_to(ROOT.joinpath(*owner.split("."))).as_posix()
            assert any(fnmatch(inside, pattern) for pattern in data[owner]), path


# ------------------------------------------------------------------------------------ signatures

Definition = ast.FunctionDef | ast.ClassDef


def definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Functions and classes of a body, without the private ones and Flax's ``setup``."""
    for node in body:
        if isinstance(node, Definition) and not re.match(r"_(?!_call__)|setup$", node.name):
            yield node


def public(module: str) -> Iterator[tuple[str, Definition]]:
    """Public functions and classes of a module, and public methods of these classes."""
    for node in definitions(tree(module).body):
        yield node.name, node
        for inner in definitions(node.body) if isinstance(node, ast.ClassDef) else []:
            yield f"{node.name}.{inner.name}", inner


def untyped(function: ast.FunctionDef, method: bool) -> list[str]:
    """Parameters without a type, and "return" where the result has none."""
    arguments = function.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
    named = [*arguments.posonlyargs, *arguments.args][method and not static :]
    named += arguments.kwonlyargs
    named += [a for a in (arguments.vararg, arguments.kwarg) if a]
    return [a.arg for a in named if not a.annotation] + ["return"] * (not function.returns)


LIBRARY = [name for name in FILES if within(name, "jaxood")]


@pytest.mark.parametrize("name", LIBRARY)
def test_public_signatures_have_types(name):
    found = {
        title: untyped(node, "." in title)
        for title, node in public(name)
        if isinstance(node, ast.FunctionDef)
    }
    assert not {title: missing for title, missing in found.items() if missing}


FRAGMENT = re.compile(r"(Of|What|As|Where|Which|How|Whether|In)\b")


@pytest.mark.parametrize("name", LIBRARY)
def test_public_docstrings_begin_with_a_sentence_or_the_name_of_a_thing(name):
    found = [("", tree(name)), *public(name)]
    texts = {title: ast.get_docstring(node) or "" for title, node in found}
    wrong = {
        title: text[:60]
        for title, text in texts.items()
        if not title.endswith("__call__")
        and (not re.match(r"[A-Z0-9`]", text) or FRAGMENT.match(text))
    }
    assert not wrong
