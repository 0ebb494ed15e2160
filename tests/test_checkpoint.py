import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import checkpoint


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
    (name,) = (p for p in (tmp_path / "3").iterdir() if p.is_dir())
    half = tmp_path / "7.orbax-checkpoint-tmp-123"
    shutil.copytree(name, half / f"{name.name}.orbax-checkpoint-tmp-124")
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree())
    checkpoint.save(tmp_path, 8, tree(8))
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, tree(1)), tree(8))


def test_an_interrupted_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """The newest step appears by one rename, after everything else was written."""
    checkpoint.save(tmp_path, 3, tree())

    def fails(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", fails)
        patch.setattr("os.rename", fails)
        with pytest.raises(OSError, match="no space left"):
            checkpoint.save(tmp_path, 7, tree(7))
    assert any(p.name.startswith("7") for p in tmp_path.iterdir())
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


def test_damage_is_refused_or_harmless(tmp_path):
    """Whatever file is cut in half: the array comes back exactly, or not at all."""
    # One array: of several, orbax abandons the others' reads, which ends in warnings.
    saved, like = ({"a": jax.random.normal(jax.random.key(i), (64, 64))} for i in (0, 1))
    whole = tmp_path / "whole"
    checkpoint.save(whole, 3, saved)
    files = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
    refused = []
    for i, file in enumerate(files):
        run = tmp_path / str(i)
        shutil.copytree(whole, run)
        content = (run / file).read_bytes()
        (run / file).write_bytes(content[: len(content) // 2])
        try:
            restored = checkpoint.restore(run, like)
        except ValueError as error:
            assert str(run / "3") in str(error)
            refused.append(file)
        else:
            chex.assert_trees_all_equal(restored, saved)
    assert max(files, key=lambda file: (whole / file).stat().st_size) in refused
