"""The numbers of the BatchNorm paper, against a second transcription in another layout."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.batch_norm import paper as batch_norm_paper
from experiments.batch_norm.fooling.results import Results
from experiments.batch_norm.studies import CIFAR10, FASHION_MNIST

FASHION = ("fashion_mnist/rotated", "mnist", "omniglot", "kmnist")
CIFAR = ("cifar10/rotated", "svhn_cropped", "downsampled_imagenet", "lsun")

# Read from the paper column by column, where the module has rows: hundredths of the AUROC on the
# four sets. Behind them what the column-major list sums to, once plain, once weighted by 1 to 16.
TABLE_2 = {  # log p, T_perm, WAIC, ours
    ("fashion_mnist", "realnvp"): (
        "76 10 5 47 | 64 78 86 45 | 99 24 97 63 | 99 100 100 100", 1093, 10790,
    ),
    ("fashion_mnist", "vae"): (
        "73 13 0 55 | 61 73 99 50 | 94 56 90 84 | 97 100 100 100", 1145, 11320,
    ),
    ("cifar10", "realnvp"): (
        "87 7 51 70 | 79 86 50 58 | 99 16 58 60 | 100 100 98 99", 1118, 10422,
    ),
    ("cifar10", "pixelcnn"): (
        "77 10 51 72 | 67 86 49 60 | 90 9 66 78 | 99 99 89 98", 1100, 10350,
    ),
}  # fmt: skip
TABLE_5 = {  # r2 = 0.15, 0.3, 0.5, 0.9
    ("fashion_mnist", "realnvp"): (
        "93 92 96 86 | 91 100 95 100 | 98 100 100 100 | 99 100 100 100", 1550, 13398,
    ),
    ("fashion_mnist", "vae"): (
        "88 86 93 85 | 94 99 98 99 | 94 56 90 84 | 97 100 100 100", 1463, 12586,
    ),
    ("cifar10", "realnvp"): (
        "100 92 74 77 | 100 100 92 98 | 100 100 98 100 | 100 100 98 99", 1528, 13274,
    ),
    ("cifar10", "pixelcnn"): (
        "87 76 62 72 | 97 95 74 80 | 100 100 87 98 | 99 99 89 98", 1413, 12535,
    ),
}  # fmt: skip
COLUMNS = {
    "Table 2": ("neg_log_prob", "t_perm", "waic", "batch_norm_delta"),
    "Table 5": tuple(f"batch_norm_delta@{r2}" for r2 in ("0.15", "0.3", "0.5", "0.9")),
}
MISPRINT = ("fashion_mnist", "vae"), "batch_norm_delta@0.5"
"""A column of Table 5 that repeats one of Table 2."""

# Table 1: bits per dimension in evaluation mode, and how much more it is in training mode.
TABLE_1 = [
    ("fashion_mnist", "realnvp", "fashion_mnist", "2.92", "0.02"),
    ("fashion_mnist", "realnvp", "mnist", "1.74", "7.73"),
    ("fashion_mnist", "vae", "fashion_mnist", "3.19", "0.01"),
    ("fashion_mnist", "vae", "mnist", "1.97", "6.53"),
    ("cifar10", "realnvp", "cifar10", "3.48", "0.03"),
    ("cifar10", "realnvp", "svhn_cropped", "2.44", "8.66"),  # printed as 8.56
    ("cifar10", "pixelcnn", "cifar10", "3.21", "0.12"),
    ("cifar10", "pixelcnn", "svhn_cropped", "2.16", "1.88"),
]


def transcribed(table):
    """``{(trusted, model): (column, set) -> hundredths}``."""
    return {
        key: np.array([column.split() for column in text.split("|")], int)
        for key, (text, *_) in table.items()
    }


@pytest.mark.parametrize("table", [TABLE_2, TABLE_5], ids=["2", "5"])
def test_the_second_transcription_has_the_sums_of_the_paper(table):
    for key, values in transcribed(table).items():
        plain, weighted = table[key][1:]
        assert values.shape == (4, 4)
        assert values.sum() == plain, key
        assert values.ravel() @ np.arange(1, 17) == weighted, key


def test_every_cell_is_that_of_the_paper():
    seen = 0
    for title, table in (("Table 2", TABLE_2), ("Table 5", TABLE_5)):
        for key, values in transcribed(table).items():
            found = batch_norm_paper.auroc(*key)
            sets = FASHION if key[0] == "fashion_mnist" else CIFAR
            for column, of_sets in zip(COLUMNS[title], values, strict=True):
                if (key, column) == MISPRINT:
                    waic = transcribed(TABLE_2)[key][2]
                    assert list(of_sets) == list(waic)
                    assert not {name for name, score in found if score == column}
                    continue
                for name, hundredths in zip(sets, of_sets, strict=True):
                    assert found[name, column] == hundredths / 100, (key, column, name)
                    seen += 1
    assert seen == 2 * 4 * 16 - 4 == sum(len(batch_norm_paper.auroc(*key)) for key in TABLE_2)


def test_table_1_has_the_likelihoods_and_their_differences():
    for trusted, model, name, evaluation, more in TABLE_1:
        found = batch_norm_paper.bpd(trusted, model)
        assert len(found) == 4
        assert found[model, name, "evaluation"] == float(evaluation)
        assert found[model, name, "training"] == pytest.approx(float(evaluation) + float(more))


def test_table_4_has_the_likelihoods_and_their_differences():
    """Printed: 325, 315 and 10.57 more in training mode; the first two are rounded."""
    more = {1.0: (2.88, 325, 0.5), 0.7: (1.51, 315, 0.6), 1.3: (5.43, 10.57, 0.005)}
    assert batch_norm_paper.TABLE_4.keys() == more.keys()
    for temperature, (evaluation, difference, rounding) in more.items():
        found = batch_norm_paper.TABLE_4[temperature]
        assert found[0] == evaluation
        assert found[1] - found[0] == pytest.approx(difference, abs=rounding)


def test_table_4_is_beside_the_sets_that_the_paper_has():
    def table(model, in_dist):
        attack = SimpleNamespace(
            model=model,
            in_dist=in_dist,
            fooling="found",
            temperatures={"found": 1.1, "cold": 0.7, "warm": 1.0, "hot": 1.3},
        )
        results: Any = SimpleNamespace(attack=attack)
        return Results.table_4.fget(results)  # pyright: ignore[reportOptionalCall]

    found = table("realnvp", "cifar10")
    first = batch_norm_paper.bpd("cifar10", "realnvp")
    assert found == first | {
        ("realnvp", name, mode): value
        for name, values in {"cold": (1.51, 317), "warm": (2.88, 328), "hot": (5.43, 16.0)}.items()
        for mode, value in zip(("evaluation", "training"), values, strict=True)
    }
    assert table("pixelcnn", "cifar10") == table("realnvp", "digits") == {}


def test_the_names_are_those_that_the_experiments_use():
    for (in_dist, model), sets in {
        ("fashion_mnist", "realnvp"): FASHION_MNIST.ood,
        ("fashion_mnist", "vae"): FASHION_MNIST.ood,
        ("cifar10", "realnvp"): CIFAR10.ood,
        ("cifar10", "pixelcnn"): CIFAR10.ood,
    }.items():
        found = batch_norm_paper.auroc(in_dist, model)
        assert {name for name, _ in found} <= set(sets)
        # Table 5 at r2 = 0.9 is Table 2's "ours", with r1 -> 0 in place of 0.1.
        for name in {name for name, _ in found}:
            assert found[name, "batch_norm_delta@0.9"] == found[name, "batch_norm_delta"]


def test_what_the_paper_does_not_report_is_empty():
    assert batch_norm_paper.auroc("cifar10", "vae") == {}
    assert batch_norm_paper.bpd("fashion_mnist", "pixelcnn") == {}
