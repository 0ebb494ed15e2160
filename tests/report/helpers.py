"""Helpers of the report's tests: a row of results and a record."""

from collections.abc import Mapping
from typing import Any

from jaxood.metrics import detection
from jaxood.report.record import BpdRow, ModelRow, Record, ResultRow


def result_row(**changes: Any) -> ResultRow:
    """Make a row of results, with changed fields if any are given."""
    fields: dict[str, Any] = {
        "model": "realnvp",
        "in_dist": "fashion_mnist",
        "ood": "mnist",
        "score": "batch_norm_delta",
        "params": {"b": 64, "r1": 0.1, "r2": 0.9, "draws": 4},
        "paper": 1.0,
        "seconds": 12.3,
    }
    return ResultRow.from_detection(detection([0, 1, 2], [1, 3, 4]), **fields | changes)


def example_record(environment: Mapping[str, str] | None = None) -> Record:
    """Make a record that has a row of every kind."""
    return Record(
        experiment="batch_norm_table2",
        seed=0,
        preset="smoke",
        environment=environment or {"jax": "0.10.2", "devices": "cpu"},
        models=(ModelRow("realnvp", "fashion_mnist", 294739, 300, 1.5),),
        bpd=(BpdRow("realnvp", "mnist", "evaluation", 3.27, 0.01, 5000),),
        results=(result_row(),),
        sweeps=(result_row(params={"r2": 0.5}, paper=None),),
    )
