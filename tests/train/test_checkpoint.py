"""A checkpoint comes back to the bit, or is refused; never as something else."""

import os
import shutil
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.train import checkpoint


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "scalar": jnp.int32(rng.integers(100)),
        "tuple": (jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), {}),
        "empty": {},
        "nested": {"a": {"b": jnp.asarray(rng.normal(size=4), jnp.bfloat16)}},
        "flag": jnp.bool_(True),
    }


def test_round_trip(tmp_path):
    saved = tree()
    checkpoint.save(tmp_path / "run", 3, saved)
    for like in (tree(seed=1), jax.eval_shape(tree)):
        restored = checkpoint.restore(tmp_path / "run", like)
        chex.assert_trees_all_equal(restored, saved)
        chex.assert_trees_all_equal_dtypes(restored, saved)


def test_a_relative_directory_is_the_working_directorys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("run", 1, tree())
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path / "run", tree(1)), tree())
    chex.assert_trees_all_equal(checkpoint.restore("run", tree(1)), tree())


def test_only_the_newest_checkpoint_is_kept(tmp_path):
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, tree(seed=step))
        chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree()), tree(seed=step))
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["10"]


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.restore(tmp_path, tree()) is None
    assert checkpoint.restore(tmp_path / "absent", tree()) is None
    assert not (tmp_path / "absent").exists()


def test_a_half_written_newer_checkpoint_is_ignored(tmp_path):
    checkpoint.save(tmp_path, 3, tree())
    half = tmp_path / "unfinished" / "arrays.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "3" / "arrays", half)
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree())
    checkpoint.save(tmp_path, 8, tree(8))
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree(8))
    assert [p.name for p in tmp_path.iterdir()] == ["8"]


def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """The newest step appears by one rename, after everything else was written."""
    checkpoint.save(tmp_path, 3, tree())

    rename = os.rename

    def fails(source, target):
        if Path(target) != tmp_path / "7":
            return rename(source, target)  # orbax's own
        assert {p.name for p in source.iterdir()} == {"arrays", "digests.json"}
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", fails)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save(tmp_path, 7, tree(7))
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree())


def test_a_step_that_does_not_follow_is_refused(tmp_path):
    checkpoint.save(tmp_path, 3, tree())
    for step in (2, 3):
        with pytest.raises(ValueError, match=f"holds step 3: step {step} does not follow"):
            checkpoint.save(tmp_path, step, tree(1))
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree())


@pytest.mark.parametrize(
    "like",
    [
        {**tree(), "more": jnp.zeros(2)},
        {k: v for k, v in tree().items() if k != "nested"},
        {**tree(), "tuple": (jnp.zeros((2, 4)), {})},
        {**tree(), "tuple": (jnp.zeros((2, 3), jnp.int32), {})},
        {**tree(), "empty": {"a": jnp.zeros(2)}},
    ],
    ids=["an array more", "an array less", "another shape", "another dtype", "not empty"],
)
def test_another_structure_is_refused(tmp_path, like):
    checkpoint.save(tmp_path, 3, tree())
    with pytest.raises(ValueError, match="cannot be read as this model") as caught:
        checkpoint.restore(tmp_path, like)
    assert str(tmp_path / "3") in str(caught.value)


# -------------------------------------------------------------------------------------- damage


@pytest.fixture
def whole(tmp_path):
    checkpoint.save(tmp_path, 3, tree())
    return tmp_path


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def assert_refused_or_harmless(folder):
    """Restore it: return True if it is refused, and assert that it is whole otherwise."""
    try:
        restored = checkpoint.restore(folder, tree(1))
    except checkpoint.Unreadable as error:
        assert str(folder / "3") in str(error)
        assert "delete the folder" in str(error)
        return True
    chex.assert_trees_all_equal(restored, tree())
    return False


def test_one_flipped_bit_is_refused_or_harmless(whole):
    """200 bits are flipped in all files: those of the arrays, of orbax and of the digests."""
    rng, refused = np.random.default_rng(0), 0
    files = files_of(whole)
    for i in range(200):
        file = files[i % len(files)]
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(flipped)
        refused += assert_refused_or_harmless(whole)
        file.write_bytes(content)
    assert refused > 190
    assert not assert_refused_or_harmless(whole)


@pytest.mark.parametrize("damage", ["cut in half", "removed", "empty"])
def test_a_file_that_is_not_whole_is_refused(whole, damage):
    for file in files_of(whole):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "cut in half" else b"")
        if damage == "removed":
            file.unlink()
        assert assert_refused_or_harmless(whole), file
        file.write_bytes(content)
    assert not assert_refused_or_harmless(whole)


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", '{"a": 1}', "[[1, 2]]", "\0"])
def test_digests_of_something_else_are_refused(whole, text):
    (whole / "3" / "digests.json").write_text(text)
    assert assert_refused_or_harmless(whole)
