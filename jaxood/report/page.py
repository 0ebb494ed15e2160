"""The report that a person reads: a record, and the page that a study says it with.

A study's page is a Jinja template in Markdown. It begins with a heading ``# …``, the title; what
follows up to the first heading ``## …`` is the summary, and every such heading begins a section::

    # {{ title }}

    {{ summary }}

    ## Which images do not belong?

    Every set is {{ images }} images of {{ in_dist | label }}; {{ fpr | percent(1) }} of them …

    {{ table(main_rows) }}

    {{ figure("detection", "AUROC with 95 % intervals.") }}

`table` takes a `Table`, and `figure` the name of a PNG file in the run's folder ``figures/``,
without its suffix, and a caption; each stands between paragraphs. Values are text: no character
of theirs becomes markup, line breaks are spaces, and numbers are written as `number` does. What is
Markdown already passes the filter ``markdown``. The other filters are `label`, `number`, `percent`
and ``interval``, which is `report.interval` on one line. A name that is not in the context is an
error.
"""

import base64
import functools
import numbers
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from jaxood.integrity import write_file
from jaxood.report.labels import label
from jaxood.report.markdown import Markdown, block, document, escape
from jaxood.report.numbers import format_cell, interval, number, percent
from jaxood.report.record import Record
from jaxood.report.tables import Table, models_table


def write(
    out: str | os.PathLike[str],
    *,
    record: Record,
    template: str | os.PathLike[str],
    context: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``results.json``, ``report.md`` and ``report.html`` into a folder.

    ``report.html`` is one self-contained file that can be mailed or printed: it holds copies of the
    figures, which must already lie in ``out/figures/``. Each file is replaced as a whole, so a
    reader never sees half of one.

    Args:
        out: the folder, made if absent.
        record: what was found; the template knows it as ``record``.
        template: the study's page, a Jinja template in Markdown (see the module's docstring). It
            may include other templates of its folder.
        context: what else the template names.

    Returns:
        The path of ``report.html``.

    Raises:
        FileNotFoundError: if a figure is missing.
        jinja2.UndefinedError: if the template uses a name that the context lacks.
        ValueError: if the page does not begin with one title, or a figure is not named by a file
            name.
    """
    out, template = Path(out), Path(template)
    figures = _Figures(out / "figures")
    values = dict(context or {}) | {"record": record}
    folder = jinja2.FileSystemLoader(template.parent)

    def render(table: Callable[[Table], Markdown], figure: Callable[[str, str], Markdown]) -> str:
        page = _markdown_templates(folder).get_template(template.name)
        return page.render(values, table=table, figure=figure)

    source = render(_markdown_table, figures.markdown)
    blocks = _Blocks(figures)
    page = document(render(blocks.table, blocks.figure), blocks.html)
    models = models_table(record.models)
    markdown = _markdown_templates(_OWN).get_template("report.md")
    markdown = markdown.render(
        page=Markdown(source), record=record, models=models, table=_markdown_table
    )
    html = _HTML.get_template("report.html").render(page=page, record=record, models=models)
    write_file(out / "results.json", record.to_json().encode())
    write_file(out / "report.md", (_EMPTY_LINES.sub("\n\n", markdown).strip() + "\n").encode())
    write_file(out / "report.html", html.encode())
    return out / "report.html"


class _Image(NamedTuple):
    """A figure as a data URI, and the width at which two of its pixels make one of the page's."""

    uri: str
    width: int


class _Figures:
    """The figures of a run, by their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> _Image:
        """Read a figure.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if the name leads out of the folder.
        """
        path = self._folder / f"{name}.png"
        if path.parent != self._folder or Path(path.name).name != f"{name}.png":
            raise ValueError(f"A figure is named by its file name in figures/, not {name!r}.")
        if not path.is_file():
            raise FileNotFoundError(f"The report shows {path}, which is not there; save it first.")
        with Image.open(path) as image:
            width = image.width // 2
        uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        return _Image(uri, width)

    def markdown(self, name: str, caption: str) -> Markdown:
        """Show a figure in ``report.md``."""
        text = escape(caption)
        return Markdown(f"\n\n![{text}](<figures/{name}.png>)\n\n*{text}*\n\n")


def _markdown_table(table: Table) -> Markdown:
    return Markdown(f"\n\n{table._repr_markdown_()}\n\n")


class _Blocks:
    """The tables and figures of a page as HTML, in the order in which the page names them."""

    def __init__(self, figures: _Figures) -> None:
        self._figures = figures
        self.html: dict[str, str] = {}

    def table(self, table: Table) -> Markdown:
        return self._place("table", table)

    def figure(self, name: str, caption: str) -> Markdown:
        return self._place("figure", self._figures.read(name), caption)

    def _place(self, kind: str, *arguments: object) -> Markdown:
        key = str(len(self.html))
        self.html[key] = getattr(_HTML.get_template("blocks.html").module, kind)(*arguments)
        return block(key)


def _finalize(value: object) -> object:
    """Write a value of a template into Markdown."""
    if isinstance(value, Markdown | jinja2.Undefined):  # the latter raises when it is written
        return value
    numeric = value is None or isinstance(value, numbers.Real)
    return escape(format_cell(value) if numeric else str(value))


_OWN = jinja2.PackageLoader("jaxood.report")
_OPTIONS: dict[str, Any] = {
    "undefined": jinja2.StrictUndefined,
    "keep_trailing_newline": True,
    "trim_blocks": True,
    "lstrip_blocks": True,
}
_EMPTY_LINES = re.compile(r"\n{3,}")

_HTML = jinja2.Environment(loader=_OWN, autoescape=jinja2.select_autoescape(["html"]), **_OPTIONS)
_HTML.filters["number"] = format_cell


def _markdown_templates(loader: jinja2.BaseLoader) -> jinja2.Environment:
    environment = jinja2.Environment(loader=loader, finalize=_finalize, **_OPTIONS)
    environment.filters |= {
        "interval": functools.partial(interval, inline=True),
        "label": label,
        "markdown": Markdown,
        "number": number,
        "percent": percent,
    }
    return environment
