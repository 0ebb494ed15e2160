"""The record of one run of an experiment, and the page on which a person reads it."""

from jaxood.report.labels import label
from jaxood.report.numbers import format_cell, interval, number, percent
from jaxood.report.page import write as _write_page
from jaxood.report.sections import FigureFile, Section
from jaxood.report.sections import write as _write_sections
from jaxood.report.tables import Table, bpd_table, detection_table


def write(out, *, record, template=None, context=None, **sections):
    """Write a report; with `sections` in the old way, until every study has a page template."""
    if template is None:
        return _write_sections(out, record=record, **sections)
    return _write_page(out, record=record, template=template, context=context)


__all__ = [
    "FigureFile",
    "Section",
    "Table",
    "bpd_table",
    "detection_table",
    "format_cell",
    "interval",
    "label",
    "number",
    "percent",
    "write",
]
