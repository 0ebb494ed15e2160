import json
import os
from typing import Any

import numpy as np
import pytest

from jaxood import integrity
from jaxood.integrity import write_file
from jaxood.metrics import detection
from jaxood.report.record import Record, ResultRow
from tests.report.helpers import example_record, result_row


@pytest.fixture
def record():
    return example_record()


def test_the_record_comes_back_as_it_went(record):
    assert Record.from_json(record.to_json()) == record


def test_the_record_has_the_keys_of_schema_1(record):
    values = json.loads(record.to_json())
    assert values["schema"] == 1
    assert set(values) == {
        "schema", "experiment", "seed", "preset", "environment", "models", "bpd", "results",
        "sweeps", "digest",
    }  # fmt: skip
    assert set(values["models"][0]) == {"name", "in_dist", "parameters", "steps", "train_seconds"}
    assert set(values["bpd"][0]) == {"model", "dataset", "mode", "bpd", "stderr", "n"}
    assert (
        set(values["results"][0])
        == set(values["sweeps"][0])
        == {
            "model", "in_dist", "ood", "score", "auroc", "auroc_ci", "ap", "fpr95", "n_in", "n_ood",
            "params", "paper", "seconds",
        }
    )  # fmt: skip


def test_a_result_row_carries_the_detection_and_its_names():
    found = detection([0, 1, 2], [1, 3, 4, 5])
    names: dict[str, Any] = {"model": "m", "in_dist": "i", "ood": "o", "score": "s"}
    row = ResultRow.from_detection(found, **names)
    assert row == ResultRow(**names, **found._asdict(), params={}, paper=None, seconds=None)
    more = {"params": {"b": 64}, "paper": 0.5, "seconds": 1.5}
    row = ResultRow.from_detection(found, **names, **more)
    assert row == ResultRow(**names, **found._asdict(), **more)
    assert (row.auroc, row.n_in, row.n_ood) == (found.auroc, 3, 4)


def test_the_text_is_for_people_too(record):
    text = Record("e", 0, "smoke", {"note": "−log p(x)"}).to_json()
    assert '\n "environment": {\n  "note": "−log p(x)"\n },\n' in text
    assert text.startswith('{\n "schema": 1,\n "experiment": "e",')
    assert text.endswith("\n}\n")


def test_numpy_values_become_plain_and_what_is_not_finite_null(record):
    extra = {"nan": np.nan, "inf": [np.inf], "array": np.arange(2), "scalar": np.float32(0.5)}
    values = json.loads(Record("e", 0, "smoke", {}, extra=extra).to_json())
    assert values["extra"] == {"nan": None, "inf": [None], "array": [0, 1], "scalar": 0.5}
    row = result_row(seconds=float("nan"))
    again = Record.from_json(Record("e", 0, "smoke", {}, results=[row]).to_json())
    assert again.results[0].seconds is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 2}', "not a results record of schema 1"),
        ("[]", "not a results record of schema 1"),
        ('{"experiment": "e"}', "not a results record of schema 1"),
        ('{"schema": 1}', "does not fit the digest"),
        ("no JSON", "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_no_record_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Record.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["results"][0].update(accuracy=1), "malformed.*accuracy"),
        (lambda values: values.update(more=1), "malformed.*more"),
        (lambda values: values.pop("bpd"), "malformed.*bpd"),
        (lambda values: values["models"][0].pop("steps"), "malformed.*steps"),
    ],
)
def test_another_key_than_the_schema_has_is_refused(record, change, message):
    values = json.loads(record.to_json())
    del values["digest"]
    change(values)
    text = json.dumps(values, sort_keys=True)
    values["digest"] = integrity.digest(np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(ValueError, match=message):
        Record.from_json(json.dumps(values))


def test_one_flipped_bit_is_refused_or_harmless(record):
    content = record.to_json().encode()
    places = np.random.default_rng(0).choice(8 * len(content), 200, replace=False)
    refused = 0
    for place in map(int, places):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert Record.from_json(bytes(damaged)) == record, place
        except ValueError as error:
            assert isinstance(error, integrity.Damaged) or "of schema 1" in str(error)
            refused += 1
    assert refused > 100  # between the words of JSON, a space may be another


@pytest.mark.parametrize(
    ("old", "new"),
    [("realnvp", "realnvq"), ("3.27", "3.28"), ('"seed": 0', '"seed": 1'), ('"digest"', '"digit"')],
)
def test_an_edited_record_is_refused(record, old, new):
    text = record.to_json()
    assert old in text
    with pytest.raises(integrity.Damaged, match=r"digest.*run the experiment again"):
        Record.from_json(text.replace(old, new))


def test_the_digest_is_of_what_is_said_not_of_its_layout(record):
    values = json.loads(record.to_json())
    assert Record.from_json(json.dumps(dict(reversed(values.items())))) == record


def test_a_write_makes_the_folder_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "new" / "folder" / "results.json"
    for content in (b"one", b"two"):
        write_file(str(path), content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_write_goes_by_a_hidden_file_of_this_process(tmp_path, monkeypatch):
    moved = []
    monkeypatch.setattr("os.replace", lambda old, new: moved.append((old, new)))
    write_file(tmp_path / "a.json", b"x")
    assert moved == [(tmp_path / f".a.json.{os.getpid()}", tmp_path / "a.json")]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_file(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
