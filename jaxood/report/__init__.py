"""The record of one run of an experiment, and the page on which a person reads it."""

from jaxood.report.labels import label
from jaxood.report.numbers import format_cell, interval, number, percent
from jaxood.report.page import write
from jaxood.report.tables import Table, bpd_table, detection_table

__all__ = [
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
