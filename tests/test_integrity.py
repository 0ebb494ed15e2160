"""A digest depends on every bit, and a lock has one holder."""

import errno
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import integrity


def test_a_digest_sees_every_bit_name_type_and_shape():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {"a": values, "b": np.int32(3)}
    seen = {integrity.digest(tree)}
    for byte in range(values.nbytes):
        for bit in range(8):
            flipped = values.copy()
            flipped.reshape(-1).view(np.uint8)[byte] ^= 1 << bit
            seen.add(integrity.digest(tree | {"a": flipped}))
    assert len(seen) == 1 + 8 * values.nbytes
    others = [
        {"a": values, "c": np.int32(3)},
        {"a": values, "b": np.int64(3)},
        {"a": values.reshape(3, 2), "b": np.int32(3)},
        {"a": values},
    ]
    assert len(seen | {integrity.digest(other) for other in others}) == len(seen) + len(others)


def test_a_digest_does_not_depend_on_where_arrays_lie():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    want = integrity.digest({"a": values, "b": np.zeros((0, 2), np.uint8)})
    for same in (np.asfortranarray(values), jnp.asarray(values), np.flip(np.flip(values))):
        assert integrity.digest({"a": same, "b": np.zeros((0, 2), np.uint8)}) == want


def test_a_digest_is_32_digits_that_stay_the_same():
    """A digest has 128 bits and must not change: files keep digests that later versions read."""
    assert (
        integrity.digest({"a": np.arange(3, dtype=np.int32)}) == "5a0f53a4d8fa089aede9d2286b31a071"
    )


def test_other_values_are_named():
    integrity.check_same({"seed": 1}, {"seed": 1}, "the run", "choose another")
    with pytest.raises(integrity.Changed, match=r"the run .*seed .1, now 2., size .None, now 3."):
        integrity.check_same({"seed": 1}, {"seed": 2, "size": 3}, "the run", "choose another")


@pytest.mark.skipif(integrity.fcntl is None, reason="a system without flock")
def test_a_file_system_without_locks_locks_nothing_and_other_errors_are_raised(
    tmp_path, monkeypatch
):
    def fails(code):
        def flock(descriptor, operation):
            raise OSError(code, "no")

        monkeypatch.setattr(integrity.fcntl, "flock", flock)

    for code in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
        fails(code)
        with integrity.lock(tmp_path):
            pass
    fails(errno.EIO)
    with pytest.raises(OSError, match="no"), integrity.lock(tmp_path):
        pass


HOLD = """
import sys
from jaxood import integrity
with integrity.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_has_one_holder_and_ends_with_it(kind, tmp_path):
    path = tmp_path / "it"
    path.write_text("kept") if kind == "file" else path.mkdir()
    with integrity.lock(path), pytest.raises(integrity.Locked, match="another process writes to"):
        with integrity.lock(path):
            pass
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(integrity.Locked), integrity.lock(path):
        pass
    other.kill()
    other.communicate()
    with integrity.lock(path):
        pass
