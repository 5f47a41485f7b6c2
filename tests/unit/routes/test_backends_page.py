"""docs/backends.md shows the toy backend as the tests run it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def test_the_worked_example_is_the_module_that_tests_run() -> None:
    page = (ROOT / "docs" / "backends.md").read_text()
    assert (ROOT / "tests" / "toy.py").read_text() in page
