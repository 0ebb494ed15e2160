"""Fixtures of the tests of data."""

import pytest

from tests.data.helpers import without_tensorflow


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch, tmp_path):
    """Look for data in an empty folder, and download nothing."""
    monkeypatch.setenv("JAXOOD_DATA_DIR", str(tmp_path))
    without_tensorflow(monkeypatch)
