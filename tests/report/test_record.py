import json
import os
import re
from typing import Any

import numpy as np
import pytest

from jaxood import integrity
from jaxood.integrity import write_file
from jaxood.metrics import detection
from jaxood.report.labels import _LABELS, label
from jaxood.report.record import BpdRow, ModelRow, Record, ResultRow, _digest


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
    values["digest"] = _digest(values)
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
        ("nrm_reconstruction_12_mean", "reconstruction, layer 12, mean"),
        ("nrm_reconstruction_x", "nrm reconstruction x"),
        ("realnvp(svhn_cropped), T = 1.0", "RealNVP (SVHN, T = 1.0)"),
        ("my_own_photos", "my own photos"),
        ("/data/my_photos/", "data, my photos"),
        ("scaled_x", "scaled x"),
    ],
)
def test_labels(name, text):
    assert label(name) == text


def test_labels_of_the_data_sets_models_and_scores():
    """Every name that is not its label without underscores."""
    names = """
        celeb_a CelebA | cifar10 CIFAR-10 | cifar100 CIFAR-100 | fashion_mnist Fashion-MNIST
        downsampled_imagenet ImageNet 32×32 | imagenet ImageNet | kmnist KMNIST | lsun LSUN
        mnist MNIST | omniglot Omniglot | svhn SVHN | svhn_cropped SVHN
        tiny_imagenet32 Tiny-ImageNet | glow Glow | nrm NRM | pixelcnn PixelCNN++
        realnvp RealNVP | vae VAE | batch_norm_delta BatchNorm Δ | batch_norm_rank BatchNorm T
        glow_neg_log_pz −log p(z), Glow | neg_log_prob −log p(x) | nrm_latent −log p(z*|y*)
        nrm_latent_class_centred −log p(z*|y*), class-centred
        nrm_latent_mean −log p(z*|y*), mean | nrm_latent_per_energy −log p(z*|y*) / |x|²
        nrm_latent_two_sided −log p(z*|y*), two-sided | nrm_latent_waic WAIC of log p(z*|y*)
        nrm_neg_log_prob −log p(x), NRM | nrm_neg_log_prob_mean −log p(x), NRM, mean
        nrm_profile NRM profile | nrm_switches NRM switches | t_perm Tₚₑᵣₘ | waic WAIC
    """
    # One an entry: on one line they are separated by " | ".
    entries = re.split(r"\s*\n\s*| \| ", names.strip())
    assert {f"{name} {label(name)}" for name in _LABELS} == set(entries)
