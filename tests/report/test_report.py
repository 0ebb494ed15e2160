import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxood import report
from jaxood.integrity import write_file
from jaxood.report import FigureFile, Section, Table
from jaxood.report.record import BpdRow, ModelRow, Record, ResultRow
from tests.report.test_record import result_row

# The smallest PNG: one grey pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
EVIL = "<script>alert('x')</script>|`*"


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


def test_the_html_stands_alone(record, tmp_path):
    write_file(tmp_path / "figures" / "a.png", PNG)
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


def test_a_notebook_shows_a_table_as_the_report_does(record, tmp_path):
    table = Table(f"{EVIL} |", ["set", EVIL], [["a*|b", 12345], ["two\nlines", None]])
    _, markdown = write(tmp_path, record, [Section("Numbers", tables=[table])])
    caption, *rows = table._repr_markdown_().splitlines()
    assert not re.search(r"(?<!\\)<script", caption)
    for row in rows:
        assert row in markdown.splitlines()
    assert rows[-1] == "| two lines | – |"


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
