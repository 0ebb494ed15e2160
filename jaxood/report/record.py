"""The record of one run of an experiment: models, likelihoods and results, and their JSON file.

A `Record` becomes ``results.json`` (schema 1); `jaxood.report` and `jaxood.report.figures` show it.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxood import integrity
from jaxood.integrity import Damaged
from jaxood.metrics import Detection

SCHEMA = 1


@dataclass(frozen=True)
class ModelRow:
    """One trained model.

    Attributes:
        name: model name, such as ``realnvp``.
        in_dist: name of the data set that it was trained on.
        parameters: number of trained scalars.
        steps: number of optimizer steps.
        train_seconds: wall-clock training time in seconds.
    """

    name: str
    in_dist: str
    parameters: int
    steps: int
    train_seconds: float | None


@dataclass(frozen=True)
class BpdRow:
    """Mean negative log-likelihood of one data set under one BatchNorm mode.

    Attributes:
        model: model name.
        dataset: name of the data set that was scored.
        mode: ``evaluation``, ``training``, or a mixed mode such as ``r=0.5``.
        bpd: mean over images, in bits per dimension.
        stderr: standard error of that mean, in bits per dimension.
        n: number of images.
    """

    model: str
    dataset: str
    mode: str
    bpd: float | None
    stderr: float | None
    n: int


@dataclass(frozen=True)
class ResultRow:
    """The quality of one score of one model as a detector of one OOD set.

    Attributes:
        model: model name.
        in_dist: name of the trusted data set.
        ood: name of the OOD set; a transformed set is ``<set>/<transform>``, and a note in
            brackets may follow.
        score: score name, such as ``batch_norm_delta``.
        auroc, auroc_ci, ap, fpr95, n_in, n_ood: as in `metrics.Detection`.
        params: settings of the score, such as ``r1``, and of the OOD set, such as the
            ``temperature`` of samples.
        paper: the AUROC that the paper reports, if it reports one.
        seconds: wall-clock scoring time in seconds.
    """

    model: str
    in_dist: str
    ood: str
    score: str
    auroc: float | None
    auroc_ci: tuple[float | None, float | None]
    ap: float | None
    fpr95: float | None
    n_in: int
    n_ood: int
    params: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    seconds: float | None = None

    @classmethod
    def from_detection(
        cls,
        detection: Detection,
        *,
        model: str,
        in_dist: str,
        ood: str,
        score: str,
        params: Mapping[str, Any] | None = None,
        paper: float | None = None,
        seconds: float | None = None,
    ) -> "ResultRow":
        """Make a row of a `Detection`; the other arguments are the attributes of the row."""
        return cls(
            model=model,
            in_dist=in_dist,
            ood=ood,
            score=score,
            params=dict(params or {}),
            paper=paper,
            seconds=seconds,
            **detection._asdict(),
        )


@dataclass(frozen=True)
class Record:
    """The record of one run of an experiment.

    Attributes:
        experiment: name of the experiment.
        seed: seed of the run.
        preset: ``smoke``, ``small`` or ``paper``.
        environment: versions and devices, by name.
        models: the trained models.
        bpd: mean likelihoods.
        results: rows of each score at its main setting.
        sweeps: rows of further settings.
        extra: numbers and words that fit no row; absent from the file where empty.
    """

    experiment: str
    seed: int
    preset: str
    environment: Mapping[str, Any]
    models: Sequence[ModelRow] = ()
    bpd: Sequence[BpdRow] = ()
    results: Sequence[ResultRow] = ()
    sweeps: Sequence[ResultRow] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the record as JSON text, with its digest; NaN and infinities become null."""
        values = {"schema": SCHEMA} | _plain(self)
        if not values["extra"]:
            del values["extra"]
        values["digest"] = _digest(values)
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """Read what `to_json` wrote.

        Raises:
            integrity.Damaged: if the text is not what was written, or has no digest.
            ValueError: if the text is of another schema, or lacks or adds a key.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Damaged(f"This results record is not valid JSON ({error}): {_AGAIN}") from error
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise ValueError(f"This is not a results record of schema {SCHEMA}.")
        if values.pop("digest", None) != _digest(values):
            raise Damaged(f"This results record does not fit the digest in it: {_AGAIN}")
        del values["schema"]
        try:
            for key, row in _ROWS.items():
                values[key] = tuple(row(**item) for item in values[key])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"A results record of schema {SCHEMA} is malformed: {error}"
            ) from error


_AGAIN = "run the experiment again with the same --out, which writes it anew"


def _digest(values: Mapping[str, Any]) -> str:
    """Digest the record's content, however its text is laid out."""
    text = json.dumps(values, sort_keys=True)
    return integrity.digest(np.frombuffer(text.encode(), np.uint8))


def _result_row(*, auroc_ci: Sequence[float | None], **values: Any) -> ResultRow:
    low, high = auroc_ci
    return ResultRow(auroc_ci=(low, high), **values)


_ROWS = {"models": ModelRow, "bpd": BpdRow, "results": _result_row, "sweeps": _result_row}


def _plain(value: Any) -> Any:
    """Turn dataclasses, NumPy values and tuples into what JSON knows."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
