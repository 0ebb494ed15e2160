"""Reports are pages that stand alone, show every number, and take names for text."""

import html as html_of
import re
from functools import partial
from html.parser import HTMLParser

import jinja2
import numpy as np
import pytest

from jaxood import report
from jaxood.integrity import write_file
from jaxood.report import Table
from jaxood.report.record import BpdRow, Record, ResultRow
from tests.report.helpers import example_record, result_row

# The smallest PNG: one grey pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636800000082008177cd72b60000000049454e44ae426082"
)
EVIL = "<script>alert('x')</script>|`*"


@pytest.fixture
def record():
    return example_record(environment={"jax": "0.10.2", "devices": EVIL})


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


@pytest.fixture
def write(tmp_path, record):
    """Write a report of a template's text into the folder ``run``: its HTML and its Markdown."""

    def write(source, record=record, **context):
        template, out = tmp_path / "page.md", tmp_path / "run"
        template.write_text(source)
        path = report.write(out, record=record, template=template, context=context)
        return path.read_text(), (out / "report.md").read_text()

    return write


def test_the_html_stands_alone(write, tmp_path):
    write_file(tmp_path / "run" / "figures" / "a.png", PNG)
    html, markdown = write(
        "# A report\n\nIt **works**.\n\n"
        "## One\n\nSeen at https://example.org ![x](https://example.org/x.png)\n\n"
        '## Two\n\n[link](https://example.org)\n{{ figure("a", "A figure") }}\n'
        "## Three\n\n- a list\n"
    )
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("data:image/png;base64,", "#section-")) for value in references)
    assert len([value for value in references if value.startswith("data:")]) == 1
    assert "url(" not in html
    assert "@import" not in html
    assert "![A figure](<figures/a.png>)" in markdown
    assert "<strong>works</strong>" in html


def test_a_page_has_a_title_a_summary_and_sections(write):
    html, markdown = write(
        "# The {{ name }}\n\nIt works.\n\n## One & *two*\n\ntext\n\n## Three\n\n### Four\n",
        name="title",
    )
    assert "<title>The title</title>" in html
    assert "<h1>The title</h1>" in html
    assert '<div class="summary">\n<p>It works.</p>\n</div>' in html
    assert re.findall(r'<section id="(.*)">\n<h2>(.*)</h2>', html) == [
        ("section-1", "One &amp; <em>two</em>"),
        ("section-2", "Three"),
    ]
    assert "<h3>Four</h3>" in html
    assert "<nav" not in html
    assert markdown.startswith("# The title\n\nIt works.\n\n## One & *two*\n\ntext\n\n## Three\n")


def test_names_cannot_become_markup(write, tmp_path):
    write_file(tmp_path / "run" / "figures" / "a.png", PNG)
    html, markdown = write(
        "# {{ evil }}\n\n{{ evil }}\n\n## {{ evil }}\n\ntext {{ evil }}\n"
        '{{ table(evil_table) }}\n{{ figure("a", evil) }}\n',
        evil=EVIL,
        evil_table=Table(EVIL, [EVIL], [[EVIL]]),
    )
    page = Page(html)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert('x')&lt;/script&gt;|`*") == 4
    assert EVIL in page.cells
    assert not re.search(r"(?<!\\)<script", markdown)
    assert r"</script>\|\`\* |" in markdown


@pytest.mark.parametrize(
    "text",
    [
        "# heading", "> quotation", "- item", "+ item", "* item", "~~~ block:0", "_a_ b_c",
        "[a](b)", "**a**", "`a`", "a\n\n## b", "&amp;", "\\*", "===", "---", "+0.5", "z*|y*",
    ],
)  # fmt: skip
def test_a_value_is_shown_as_it_is(write, text):
    html, _ = write("# Title\n\nbefore\n\n{{ text }}\n\n## One\n\nand {{ text }}\n", text=text)
    shown = html_of.escape(" ".join(text.split()))
    assert f"<p>before</p>\n<p>{shown}</p>\n" in html
    assert f"<p>and {shown}</p>\n" in html


def test_values_and_filters_write_numbers(write):
    _, markdown = write(
        "# T\n\n{{ n }} | {{ x }} | {{ none }} | {{ x | number(1) }} | {{ share | percent(1) }} | "
        "{{ x | interval(ends, digits=1) }} | {{ 'vae' | label }} | {{ '**a**' | markdown }}\n",
        n=12345,
        x=-0.123456,
        none=None,
        share=0.0734,
        ends=(-1, 1),
    )
    assert "12,345 | −0.1235 | – | −0.1 | 7.3 % | −0.1 [−1.0, 1.0] | VAE | **a**".split(
        " | "
    ) == markdown.splitlines()[2].split(" | ")


def test_a_value_that_begins_with_a_space_begins_no_heading(write):
    html, _ = write("# T\n\n{{ text }}\n", text=" # a")
    assert "<p># a</p>" in html


def test_the_words_between_the_items_of_a_list_keep_their_spaces(write):
    loop = "{% for name in names %}{{ name }}{{ ', ' if not loop.last }}{% endfor %}"
    _, markdown = write(f"# T\n\n{loop}; {{{{ names | join(' and ') }}}}\n", names=["a*b", "c"])
    assert markdown.splitlines()[2] == r"a\*b, c; a\*b and c"


def test_a_template_includes_others_of_its_folder(write, tmp_path):
    (tmp_path / "notes.md").write_text("A note on {{ name }}.\n")
    html, _ = write('# T\n\n{% include "notes.md" %}\n', name="a*b")
    assert "<p>A note on a*b.</p>" in html


def test_a_name_that_is_not_given_is_an_error(write, tmp_path):
    with pytest.raises(jinja2.UndefinedError, match="'absent' is undefined"):
        write("# T\n\n{{ absent }}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "text\n\n# T\n", "## One\n", "# T\n\n# U\n"])
def test_a_page_without_one_title_is_refused(write, text):
    with pytest.raises(ValueError, match="must begin with its title"):
        write(text)


def test_tables_render_numbers(write):
    table = Table(
        "Numbers", ["set", "value", "count"], [["mnist", -0.123456, 12345], ["svhn", np.nan, None]]
    )
    assert table.numeric == [False, True, True]
    html, markdown = write("# T\n\n## Numbers\n{{ table(numbers) }}\nAfter.\n", numbers=table)
    assert "| mnist | −0.1235 | 12,345 |" in markdown
    assert "| svhn | – | – |" in markdown
    assert "| :--- | ---: | ---: |" in markdown
    assert '<td class="number">−0.1235</td>' in html
    assert "</figure>\n<p>After.</p>" in html
    # The models of the record are shown without being asked for.
    assert "| RealNVP | Fashion-MNIST | 294,739 | 300 | 1.5 |" in markdown


def test_a_notebook_shows_a_table_as_the_report_does(write):
    table = Table(f"{EVIL} |", ["set", EVIL], [["a*|b", 12345], ["two\nlines", None]])
    _, markdown = write("# T\n\n{{ table(numbers) }}\n", numbers=table)
    caption, *rows = table._repr_markdown_().splitlines()
    assert not re.search(r"(?<!\\)<script", caption)
    for row in rows:
        assert row in markdown.splitlines()
    assert rows[-1] == "| two lines | – |"


def test_a_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match="2 cells"):
        Table("", ["a", "b"], [["1"]])


def test_an_empty_table_and_record_render(write):
    html, _ = write(
        "# T\n\n{{ table(empty) }}\n",
        Record("e", 0, "smoke", {}),
        empty=Table("Nothing", ["a"], []),
    )
    assert "Nothing" in html


def test_writing_leaves_just_the_files(write, record, tmp_path):
    for _ in range(2):
        write("# T\n\n{{ record.seed }}\n")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"results.json", "report.md", "report.html"}
    assert Record.from_json((tmp_path / "run" / "results.json").read_text()) == record


def test_a_missing_figure_is_an_error_and_writes_nothing(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.png.*save it first"):
        write('# T\n\n{{ figure("absent", "") }}\n')
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../../secret", "/tmp/secret", "a/b"])
def test_a_figure_lies_in_the_runs_folder_of_figures(write, name):
    with pytest.raises(ValueError, match="file name"):
        write("# T\n\n{{ figure(name, '') }}\n", name=name)


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
    titled = report.detection_table(rows[:1], caption="", titles={"mnist": "digits of banks"})
    assert titled.rows[0][0] == "digits of banks"
    with pytest.raises(ValueError, match="Two rows"):
        report.detection_table([rows[0], rows[0]], caption="")


def test_detection_table_tells_the_layers_of_a_score_apart():
    rows = [result_row(score="nrm_reconstruction", params={"layer": k}) for k in (0, 1)]
    table = report.detection_table(rows, caption="")
    assert table.columns[1:] == ["reconstruction, layer 0", "reconstruction, layer 1"]
    assert len(table.rows) == 1


def test_detection_table_has_a_column_for_each_value_of_a_setting():
    rows = [result_row(params={"r2": r2}, paper=None) for r2 in (0.5, 0.9)]
    table = report.detection_table(rows, caption="", column=lambda row: f"r2 = {row.params['r2']}")
    assert table.columns == ["OOD set", "r2 = 0.5", "r2 = 0.9"]
    assert len(table.rows) == 1


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
    assert table.columns == ["evaluated on", "BatchNorm mode", "bits/dim", "difference", "paper"]
    assert table.rows == [
        ["MNIST", "evaluation", "1.74 ± 0.01", None, "–"],
        ["MNIST", "training", "9.47", "+7.73", "9.50"],
        ["SVHN", "training", "5.00 ± 0.02", None, "–"],
        ["KMNIST", "evaluation", "–", None, "–"],
    ]
    assert table.numeric == [False, False, True, True, True]
