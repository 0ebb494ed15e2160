import json

import numpy as np
import pytest

from jaxood.metrics import detection
from jaxood.record import BpdRow, ModelRow, Record, ResultRow, label, write_file


def result_row(**changes):
    fields = {
        "model": "realnvp",
        "in_dist": "fashion_mnist",
        "ood": "mnist",
        "score": "batch_norm_delta",
        "params": {"b": 64, "r1": 0.1, "r2": 0.9, "draws": 4},
        "paper": 1.0,
        "seconds": 12.3,
    }
    return ResultRow.from_detection(detection([0, 1, 2], [1, 3, 4]), **fields | changes)


@pytest.fixture
def record():
    return Record(
        experiment="batch_norm_table2",
        seed=0,
        preset="smoke",
        environment={"jax": "0.10.2", "devices": "cpu"},
        models=(ModelRow("realnvp", "fashion_mnist", 294739, 300, 1.5),),
        bpd=(BpdRow("realnvp", "mnist", "evaluation", 3.27, 0.01, 5000),),
        results=(result_row(),),
        sweeps=(result_row(params={"r2": 0.5}, paper=None),),
    )


def test_the_record_comes_back_as_it_went(record):
    assert Record.from_json(record.to_json()) == record


def test_the_record_has_the_keys_of_schema_1(record):
    values = json.loads(record.to_json())
    assert values["schema"] == 1
    assert set(values) == {
        "schema", "experiment", "seed", "preset", "environment", "models", "bpd", "results",
        "sweeps",
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


def test_a_result_row_carries_the_detection():
    expected = detection([0, 1, 2], [1, 3, 4])
    row = result_row()
    assert (row.auroc, row.auroc_ci, row.n_in) == (expected.auroc, expected.auroc_ci, 3)


def test_numpy_values_become_plain_and_what_is_not_finite_null(record):
    extra = {"nan": np.nan, "inf": [np.inf], "array": np.arange(2), "scalar": np.float32(0.5)}
    values = json.loads(Record("e", 0, "smoke", {}, extra=extra).to_json())
    assert values["extra"] == {"nan": None, "inf": [None], "array": [0, 1], "scalar": 0.5}
    row = result_row(seconds=float("nan"))
    again = Record.from_json(Record("e", 0, "smoke", {}, results=[row]).to_json())
    assert again.results[0].seconds is None


@pytest.mark.parametrize("text", ['{"schema": 2}', "[]", '{"schema": 1}', "no JSON"])
def test_another_schema_is_refused(text):
    with pytest.raises(ValueError):
        Record.from_json(text)


def test_an_unknown_key_is_refused(record):
    values = json.loads(record.to_json())
    values["results"][0]["accuracy"] = 1
    with pytest.raises(ValueError, match=r"malformed.*accuracy"):
        Record.from_json(json.dumps(values))


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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fashion_mnist/rotated", "Fashion-MNIST, rotated"),
        ("celeb_a/scaled_0.8", "CelebA × 0.8"),
        ("celeb_a/unit_scaled_0.8", "CelebA × 0.8 in [−1, 1]"),
        ("fashion_mnist (control)", "Fashion-MNIST (control)"),
        ("svhn_cropped/contrast_0.5 (control)", "SVHN, contrast × 0.5 (control)"),
        ("digits", "digits"),
        ("digits/contrast_2/rotated/scaled_0.5", "digits, contrast × 2, rotated × 0.5"),
        ("downsampled_imagenet", "ImageNet 32×32"),
        ("rotated", "rotated"),
        ("nrm_reconstruction_3", "reconstruction, layer 3"),
        ("my_own_photos", "my own photos"),
    ],
)
def test_labels(name, text):
    assert label(name) == text
