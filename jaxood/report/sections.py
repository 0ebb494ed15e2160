"""The old way to write a report, in use until every study has a page template.

It is written as ``report.md`` and as ``report.html``, one self-contained file that can be mailed
or printed, beside the record's own ``results.json``.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from jaxood.integrity import write_file
from jaxood.report.markdown import escape
from jaxood.report.numbers import format_cell
from jaxood.report.record import Record
from jaxood.report.tables import Table, models_table


@dataclass(frozen=True)
class FigureFile:
    """A figure of a report: the name of a PNG file in its folder ``figures/``, and a caption."""

    name: str
    caption: str

    def __post_init__(self):
        if Path(self.name).name != self.name:
            raise ValueError(f"A figure is named by its file name in figures/, not {self.name!r}.")


@dataclass(frozen=True)
class Section:
    """A part of a report: text (Markdown without links, images, HTML), tables, then figures."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[FigureFile] = ()


def write(
    out: str | os.PathLike[str],
    *,
    record: Record,
    title: str,
    summary: str,
    sections: Sequence[Section],
) -> Path:
    """Writes ``results.json``, ``report.md`` and ``report.html`` into a folder.

    Each file is replaced as a whole, so a reader never sees half of one. The figures must already
    lie in ``out/figures/``; ``report.html`` holds copies of them and refers to nothing outside
    itself.

    Args:
        out: the folder, made if absent.
        record: what was found.
        title: title of the report.
        summary: what was found, in Markdown without links, images or HTML.
        sections: the parts of the report, in order.

    Returns:
        The path of ``report.html``.

    Raises:
        FileNotFoundError: if a figure is missing.
    """
    out = Path(out)
    figures = {
        figure.name: _image(out / "figures" / figure.name)
        for section in sections
        for figure in section.figures
    }
    write_file(out / "results.json", record.to_json().encode())
    for name in ("report.md", "report.html"):
        text = _TEMPLATES.get_template(name.replace("report", "sections")).render(
            title=title,
            summary=summary,
            record=record,
            models=models_table(record.models),
            sections=sections,
            figures=figures,
        )
        write_file(out / name, text.encode())
    return out / "report.html"


def _image(path: Path) -> dict[str, Any]:
    """A figure as a data URI, and the width at which two of its pixels make one of the page's."""
    if not path.is_file():
        raise FileNotFoundError(f"The report shows {path}, which is not there; save it first.")
    with Image.open(path) as image:
        width = image.width // 2
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return {"uri": uri, "width": width}


# Links and images are off because a report refers to nothing outside itself, and HTML because
# names of data sets come from anywhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink"])

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("jaxood.report"),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "cell": format_cell,
    "markdown": lambda text: Markup(_MARKDOWN.render(text)),
    "markdown_cell": lambda cell: escape(format_cell(cell)),
    "markdown_source": lambda text: str(text).replace("<", r"\<"),
}
