import json
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxood import report
from jaxood.metrics import detection
from jaxood.report import BpdRow, FigureFile, ModelRow, Record, ResultRow, Section, Table

# The smallest PNG: one grey pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
EVIL = "<script>alert('x')</script>|`*"


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
        environment={"jax": "0.10.2", "devices": EVIL},
        models=(ModelRow("realnvp", "fashion_mnist", 294739, 300, 1.5),),
        bpd=(BpdRow("realnvp", "mnist", "evaluation", 3.27, 0.01, 5000),),
        results=(result_row(),),
        sweeps=(result_row(params={"r2": 0.5}, paper=None),),
    )


class Page(HTMLParser):
    """The tags, attributes and text of a page; refuses what is not well nested."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.cells, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def write(out, record, sections=(), title="A report", summary="It **works**."):
    path = report.write(out, record=record, title=title, summary=summary, sections=sections)
    return path.read_text(), (out / "report.md").read_text()


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


def test_the_html_stands_alone(record, tmp_path):
    report.write_file(tmp_path / "figures" / "a.png", PNG)
    sections = [
        Section("One", "Seen at https://example.org ![x](https://example.org/x.png)"),
        Section("Two", "[link](https://example.org)", figures=[FigureFile("a.png", "A figure")]),
        Section("Three", "- a list"),
    ]
    html, markdown = write(tmp_path, record, sections)
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/png;base64,", "#section-")) for value in references)
    assert len([value for value in references if value.startswith("data:")]) == 1
    assert "url(" not in html
    assert "@import" not in html
    assert "![A figure](<figures/a.png>)" in markdown
    assert "<strong>works</strong>" in html


def test_names_cannot_become_markup(record, tmp_path):
    table = Table(EVIL, [EVIL], [[EVIL]])
    sections = [Section(EVIL, f"text {EVIL}", tables=[table])]
    html, markdown = write(tmp_path, record, sections, title=EVIL, summary=EVIL)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert EVIL in Page(html).cells
    assert not re.search(r"(?<!\\)<script", markdown)
    assert r"</script>\|\`\* |" in markdown


def test_tables_render_numbers(record, tmp_path):
    table = Table(
        "Numbers", ["set", "value", "count"], [["mnist", -0.123456, 12345], ["svhn", np.nan, None]]
    )
    assert table.numeric == [False, True, True]
    html, markdown = write(tmp_path, record, [Section("Numbers", tables=[table])])
    assert "| mnist | −0.1235 | 12,345 |" in markdown
    assert "| svhn | – | – |" in markdown
    assert "| :--- | ---: | ---: |" in markdown
    assert '<td class="number">−0.1235</td>' in html
    # The models of the record are shown without being asked for.
    assert "| RealNVP | Fashion-MNIST | 294,739 | 300 | 1.5 |" in markdown


def test_large_and_small_numbers_stay_legible():
    assert report.format_cell(123456.7) == "123,457"
    assert report.format_cell(0.00012345) == "0.0001234"
    assert report.format_cell(7) == "7"


def test_a_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match="2 cells"):
        Table("", ["a", "b"], [["1"]])


def test_an_empty_table_and_record_render(tmp_path):
    sections = [Section("Empty", tables=[Table("Nothing", ["a"], [])])]
    html, _ = write(tmp_path, Record("e", 0, "smoke", {}), sections)
    assert "Nothing" in html


def test_writing_leaves_just_the_files(record, tmp_path):
    for _ in range(2):
        write(tmp_path, record)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"results.json", "report.md", "report.html"}
    assert Record.from_json((tmp_path / "results.json").read_text()) == record


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    report.write_file(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_figure_is_an_error_and_writes_nothing(record, tmp_path):
    sections = [Section("One", figures=[FigureFile("absent.png", "")])]
    with pytest.raises(FileNotFoundError, match=r"absent\.png.*save it first"):
        write(tmp_path, record, sections)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="file name"):
        FigureFile("../../secret.png", "")


def test_detection_table():
    row = partial(ResultRow, "realnvp", "digits")
    rows = [
        row("mnist", "neg_log_prob", 0.1, (0.05, 0.2), 0.3, 1.0, 9, 9),
        row("mnist", "waic", 0.98, (0.9, 0.99), 1.0, 0.0, 9, 9, paper=0.5),
        row("svhn", "waic", None, (None, None), None, None, 9, 9),
    ]
    table = report.detection_table(rows, caption="AUROC")
    assert table.columns == ["OOD set", "−log p(x)", "WAIC"]
    assert table.rows == [
        ["MNIST", "0.100\n[0.050, 0.200]", "0.980\n[0.900, 0.990]\n(paper 0.50)"],
        ["SVHN", None, "–\n[–, –]"],
    ]
    with pytest.raises(ValueError, match="Two rows"):
        report.detection_table([rows[0], rows[0]], caption="")


def test_detection_table_tells_models_and_trusted_sets_apart():
    rows = [result_row(), result_row(model="vae"), result_row(in_dist="cifar10")]
    table = report.detection_table(rows, caption="")
    assert table.columns == ["model", "trained on", "OOD set", "BatchNorm Δ"]
    assert [row[:2] for row in table.rows] == [
        ["RealNVP", "Fashion-MNIST"],
        ["VAE", "Fashion-MNIST"],
        ["RealNVP", "CIFAR-10"],
    ]


def test_bpd_table_is_the_papers_table_1():
    rows = [
        BpdRow("realnvp", "mnist", "evaluation", 1.74, 0.01, 9),
        BpdRow("realnvp", "mnist", "training", 9.47, None, 9),
        BpdRow("realnvp", "svhn", "training", 5.0, 0.02, 9),
        BpdRow("realnvp", "kmnist", "evaluation", None, None, 9),
    ]
    table = report.bpd_table(rows, caption="", paper={("realnvp", "mnist", "training"): 9.5})
    assert table.columns == ["evaluated on", "BatchNorm mode", "bits/dim", "Δ", "paper"]
    assert table.rows == [
        ["MNIST", "evaluation", "1.74 ± 0.01", None, "–"],
        ["MNIST", "training", "9.47", "+7.73", "9.50"],
        ["SVHN", "training", "5.00 ± 0.02", None, "–"],
        ["KMNIST", "evaluation", "–", None, "–"],
    ]
    assert table.numeric == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fashion_mnist/rotated", "Fashion-MNIST, rotated"),
        ("celeb_a/scaled_0.8", "CelebA × 0.8"),
        ("nrm_reconstruction_3", "reconstruction, layer 3"),
        ("my_own_photos", "my own photos"),
    ],
)
def test_labels(name, text):
    assert report.label(name) == text
