"""Nothing that is read from a file or comes over the network is run as code."""

import contextlib
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import integrity
from jaxood.parallel import messages
from tests.helpers import ROOT

# ------------------------------------------------------------------------------------ the source

# The brackets keep the search from finding this line.
RUNS_CODE = re.compile(r"(?<![\w.])([e]val|[e]xec)\(|\b[p]ickle\b|[a]llow_pickle *= *True")


def test_no_file_of_the_project_runs_code_that_it_read():
    git = ["git", "ls-files", "*.py", "*.ipynb"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.splitlines()]
    assert Path(__file__) in files
    found = [
        f"{file.relative_to(ROOT)}:{i}: {line.strip()}"
        for file in files
        for i, line in enumerate(file.read_text().splitlines(), 1)
        if RUNS_CODE.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("x = e*val(text)", True),
        ("e*xec(code, {})", True),
        ("from p*ickle import loads", True),
        ("np.load(file, a*llow_pickle=True)", True),
        ("np.load(file, a*llow_pickle=False)", False),
        ("jax.e*val_shape(f)", False),
    ],
)
def test_the_search_finds_lines_that_run_code(line, found):
    assert bool(RUNS_CODE.search(line.replace("*", ""))) == found


# ---------------------------------------------------------------------------------- the messages

VALUES = [
    None,
    {"a": [1, -2.5, True, "ä\n", None], "b": (Path("x/y"), []), "": {}},
    float("inf"),
    [np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1], np.float32(3), np.zeros((0, 4))],
    {"w": jnp.full((3, 2), 0.1, jnp.bfloat16), "n": np.array([2**60]), "ok": np.array(True)},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_decoded_message_equals_the_value_that_was_encoded(value):
    """Arrays are equal to the bit, and so are their types and shapes."""
    heard = messages.decode(messages.encode(value))
    assert integrity.digest(arrays(heard)) == integrity.digest(arrays(value))
    assert skeleton(heard) == skeleton(value)


def is_array(value):
    return isinstance(value, np.ndarray | np.generic | jnp.ndarray)


def arrays(value):
    """The arrays in a value, in their order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [array for part in value for array in arrays(part)]
    return [value] if is_array(value) else []


def skeleton(value):
    """The value without its arrays."""
    if isinstance(value, dict):
        return {k: skeleton(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(skeleton, value))
    return "array" if is_array(value) else value


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a": np.array([None])}, [np.array("text")], b"bytes", print]
)
def test_values_that_no_message_can_hold_are_refused(value):
    with pytest.raises(TypeError, match="cannot be told to other processes"):
        messages.encode(value)


@pytest.mark.parametrize(
    ("error", "heard", "said"),
    [
        (ValueError("no"), ValueError, "no"),
        (FileNotFoundError(2, "gone", "x"), FileNotFoundError, r"\[Errno 2\] gone: 'x'"),
        (integrity.Changed("other"), integrity.Changed, "other"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), ValueError, "UnicodeDecodeError: .* bad"),
        (ZeroDivisionError("none"), RuntimeError, "ZeroDivisionError: none"),
    ],
)
def test_an_error_arrives_as_the_nearest_that_is_known(error, heard, said):
    with pytest.raises(Exception, match=f"^{said}$") as caught:
        messages.decode(messages.encode_error(error))
    assert type(caught.value) is heard


def hostile(folder):
    """Bytes that would make a file if they were run, or whose header claims too much."""
    whole = messages.encode({"a": np.arange(4.0)})
    header = b'{"value": {"array": ["%s", %s]}}\n'
    return {
        "protocol 0": b"cos\nmkdir\n(V%s\ntR." % bytes(folder),
        "an error that is none": b'{"error": ["SystemExit", "1"]}\n',
        "a class by its path": b'{"error": ["subprocess.Popen", "touch"]}\n',
        "objects": header % (b"object", b"1") + bytes(8),
        "petabytes": header % (b"float32", b"1000000000000000"),
        "a shape below zero": header % (b"float32", b"-1, -4") + bytes(16),
        "a shape of text": header % (b"float32", b'"4"') + bytes(16),
        "deep": b"[" * 100_000,
        "deep values": b'{"value": %s1%s}\n' % (b"[" * 5000, b"]" * 5000),
        "not an object": b"[1]\n",
        "two kinds": b'{"value": {"path": "a", "tuple": []}}\n',
        "another kind": b'{"value": {"set": []}}\n',
        "no bytes": b"",
        "cut short": whole[:-1],
        "too long": whole + b"\0",
    }


@pytest.mark.parametrize("name", hostile(Path("unused")))
def test_bytes_that_are_no_message_run_nothing(name, tmp_path):
    made = tmp_path / "made"
    with pytest.raises(messages.Malformed, match="no message"):
        messages.decode(hostile(made)[name])
    assert not made.exists()


# ------------------------------------------------------------------------------- the coordinator

PROCESS = """
import sys
import time
from pathlib import Path
from jaxood import parallel
from jaxood.parallel import messages

folder, coordinator, i = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
parallel.start(coordinator, 2, i)
(folder / f"joined{i}").touch()
while not (folder / "go on").exists():
    time.sleep(0.02)
value = parallel.on_writer(lambda: {"said": [i]})
try:
    parallel.on_writer(lambda: (folder / "absent").read_text())
except FileNotFoundError:
    value["error"] = True
if i == 0:
    messages.encode = lambda value: b"cos\\nmkdir\\n(V%s\\ntR." % bytes(folder / "made")
try:
    parallel.on_writer(lambda: 0)
except messages.Malformed:
    print(value)
"""


def reaches(host, port):
    with socket.socket() as stranger:
        stranger.settimeout(5)
        with contextlib.suppress(OSError):
            stranger.connect((host, port))
            return True
    return False


def test_a_stranger_reaches_no_coordinator_and_runs_nothing(environment, tmp_path):
    """Two processes meet at 127.0.0.1; 127.0.0.2 is another address of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [sys.executable, "-c", PROCESS, tmp_path, f"127.0.0.1:{port}"]
    processes = [
        subprocess.Popen(
            [*map(str, arguments), str(i)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        while not all((tmp_path / f"joined{i}").exists() for i in range(2)):
            assert [p.poll() for p in processes] == [None, None], processes[0].communicate()
            time.sleep(0.05)
        assert reaches("127.0.0.1", port)
        assert not reaches("127.0.0.2", port)
        (tmp_path / "go on").touch()
        said = [p.communicate(timeout=60) for p in processes]
    finally:
        for p in processes:
            p.kill()
    expected = "{'said': [0], 'error': True}"
    assert [out.splitlines()[-1:] for out, _ in said] == [[expected]] * 2, said
    assert not (tmp_path / "made").exists()
