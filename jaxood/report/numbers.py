"""Numbers as a page shows them: with a true minus sign, thousands set apart, – for no number."""

import math

import numpy as np

Interval = tuple[float | None, float | None] | list[float | None]
"""Lower and upper end; None where an end is not known."""


def number(value: float | None, digits: int | None = None, *, signed: bool = False) -> str:
    """Write a number with a typographic minus sign.

    Args:
        value: the number; None, NaN and infinities become –.
        digits: decimals. By default whole numbers are written in full and others with four
            significant digits, or with none after the point from 1000 on.
        signed: whether positive numbers carry a plus sign.
    """
    if value is None or not math.isfinite(value):
        return "–"
    sign = "+z" if signed else "z"  # z: what is rounded to zero has no minus sign
    if digits is not None:
        text = f"{value:{sign},.{digits}f}"
    elif isinstance(value, int | np.integer) or abs(value) >= 1000:
        text = f"{value:{sign},.0f}"
    else:
        text = f"{value:{sign}.4g}"
    return text.replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share in [0, 1] as a percentage, such as ``7.3 %``; – for no number."""
    if share is None or not math.isfinite(share):
        return number(None)
    return f"{number(100 * share, digits)} %"


def format_cell(value: object) -> str:
    """Write a value of a table or of a sentence: text as it is, anything else as `number` does."""
    return value if isinstance(value, str) else number(value)  # pyright: ignore[reportArgumentType]


def interval(
    value: float | None,
    ends: Interval,
    *,
    digits: int = 3,
    paper: float | None = None,
    inline: bool = False,
) -> str:
    r"""Write a value with its interval, and with the value that a paper reports.

    Args:
        value: the value.
        ends: lower and upper end of its interval.
        digits: decimals of the three numbers.
        paper: the paper's value, written with two decimals.
        inline: whether everything stands on one line, for a sentence. In the cell of a table the
            value has the first line for itself.

    Returns:
        For example ``0.993\n[0.976, 0.998]\n(paper 1.00)``.
    """
    low, high = (number(end, digits) for end in ends)
    parts = [number(value, digits), f"[{low}, {high}]"]
    if paper is not None:
        parts.append(f"(paper {number(paper, 2)})")
    return (" " if inline else "\n").join(parts)
