"""What one run of an experiment found, and the page on which a person reads it."""

from jaxood.report.labels import label
from jaxood.report.page import FigureFile, Section, write
from jaxood.report.tables import Table, bpd_table, detection_table, format_cell

__all__ = [
    "FigureFile",
    "Section",
    "Table",
    "bpd_table",
    "detection_table",
    "format_cell",
    "label",
    "write",
]
