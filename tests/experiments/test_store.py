"""Stored scores come back to the bit, or are refused in one sentence; never as something else."""

import io
import json
import zipfile

import numpy as np
import pytest

from experiments.lab import Scores
from jaxood import integrity


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    store = Scores(tmp_path / "scores.npz", identity={"model": "abc"})
    store.put(
        {
            "log_prob/digits": rng.normal(size=(2, 3, 20)).astype(np.float32),
            "samples/0.7": rng.integers(0, 256, (4, 4, 4, 1), dtype=np.uint8),
            "seconds/log_prob/digits": np.array(1.5),
            "none": np.zeros((0, 3)),
        }
    )
    return store.path


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


def test_one_flipped_bit_is_refused_or_harmless(path):
    want, content = Scores(path).arrays, path.read_bytes()
    places = np.random.default_rng(1).choice(8 * len(content), 200, replace=False)
    refused = 0
    for place in map(int, places):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert same(Scores(path).arrays, want), place
        except integrity.Damaged as error:
            assert str(path) in str(error)
            assert "delete it" in str(error)
            refused += 1
    assert refused > 100  # dates and attributes of the archive's members are harmless


def test_a_part_of_a_file_is_refused(path):
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(integrity.Damaged, match="delete it"):
            Scores(path)


@pytest.mark.parametrize("missing", ["digest", "identity", "samples/0.7"])
def test_a_file_that_lacks_an_array_is_refused(path, missing):
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file if name != missing}
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(integrity.Damaged, match="delete it, and the same command scores again"):
        Scores(path)


def test_an_intact_archive_of_other_values_is_refused(path):
    """The checksums of the archive do not notice this change."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = np.load(io.BytesIO(members["log_prob/digits.npy"]), allow_pickle=False)
    changed[1, 2, 3] = np.nextafter(changed[1, 2, 3], np.float32(np.inf))
    buffer = io.BytesIO()
    np.save(buffer, changed, allow_pickle=False)
    members["log_prob/digits.npy"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(integrity.Damaged, match="does not fit the digest in it"):
        Scores(path)


def test_arrays_are_computed_once_and_the_file_holds_all(path):
    store = Scores(path)
    assert "digest" not in store.arrays
    assert "identity" not in store.arrays
    store.get("new", lambda: np.arange(3))
    again = Scores(path)
    assert same(again.arrays, store.arrays)
    assert again.arrays.keys() == {
        "log_prob/digits", "samples/0.7", "seconds/log_prob/digits", "none", "new",
    }  # fmt: skip
    assert list(again.get("new", lambda: pytest.fail("computed again"))) == [0, 1, 2]


def test_another_model_or_other_images_are_refused(path):
    before = path.read_bytes()
    Scores(path, identity={"model": "abc"})
    with pytest.raises(integrity.Changed, match=r"scores.npz .*model .abc, now abd.*delete it"):
        Scores(path, identity={"model": "abd"})
    assert path.read_bytes() == before
    # The identity of later inputs is added to that of the first ones.
    Scores(path, identity={"images": "0"}).put({"more": np.zeros(2)})
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["identity"])) == {"model": "abc", "images": "0"}
    with pytest.raises(integrity.Changed, match=r"images .0, now 1"):
        Scores(path, identity={"model": "abc", "images": "1"})
    Scores(path).put({"still": np.zeros(1)})  # without an identity, the kept one stays
    with pytest.raises(integrity.Changed, match="model"):
        Scores(path, identity={"model": "abd"})


def test_arrays_of_unknown_origin_are_refused_to_those_who_name_theirs(tmp_path):
    Scores(tmp_path / "scores.npz").put({"a": np.zeros(2)})
    with pytest.raises(integrity.Changed, match="None, now abc"):
        Scores(tmp_path / "scores.npz", identity={"model": "abc"})
