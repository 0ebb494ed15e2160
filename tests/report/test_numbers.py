"""Numbers and intervals are written as the reports show them."""

import numpy as np
import pytest

from jaxood import report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123456.7, "123,457"),
        (-123456.7, "−123,457"),
        (0.00012345, "0.0001234"),
        (-0.123456, "−0.1235"),
        (1e-7, "1e−07"),
        (7, "7"),
        (np.int64(-12345), "−12,345"),
        (np.float32(0.5), "0.5"),
        (None, "–"),
        (np.nan, "–"),
        (-np.inf, "–"),
    ],
)
def test_large_and_small_numbers_stay_legible(value, text):
    assert report.number(value) == text
    assert report.format_cell(value) == text


def test_decimals_and_signs():
    assert report.number(-1.005, 1) == "−1.0"
    assert report.number(7, 2) == "7.00"
    assert report.number(1234.5, 2) == "1,234.50"
    assert report.number(0.125, 1, signed=True) == "+0.1"
    assert report.number(-0.25, signed=True) == "−0.25"
    assert report.number(3, signed=True) == "+3"
    assert report.number(np.nan, 2, signed=True) == "–"
    assert report.number(-0.004, 2) == "0.00"
    assert report.number(-0.004, 2, signed=True) == "+0.00"
    assert report.number(-0.0) == "0"


def test_text_in_a_cell_stays_as_it_is():
    assert report.format_cell("a-b") == "a-b"


def test_a_share_is_written_in_percent():
    assert report.percent(0.0734, 1) == "7.3 %"
    assert report.percent(0.5) == "50 %"
    assert report.percent(1) == "100 %"
    assert report.percent(None) == report.percent(np.nan) == "–"


def test_a_value_is_written_with_its_interval_and_the_papers_value():
    assert report.interval(0.99312, (0.976, 0.9981)) == "0.993\n[0.976, 0.998]"
    assert report.interval(0.5, (None, -0.25), paper=-1) == "0.500\n[–, −0.250]\n(paper −1.00)"
    inline = report.interval(0.5, [0.25, 0.75], digits=2, paper=0.5, inline=True)
    assert inline == "0.50 [0.25, 0.75] (paper 0.50)"
