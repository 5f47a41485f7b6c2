"""Long lists in messages: the first few, and how many more there are."""

from __future__ import annotations

import pytest

from agent.model import first_few

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("found", "most", "separator", "text"),
    [
        ([], 5, ", ", ""),
        (["a"], 1, ", ", "a"),
        (["a", "b", "c"], 3, ", ", "a, b, c"),
        (["a", "b", "c"], 2, ", ", "a, b and 1 more"),
        ([1, 2, 3], 1, "; ", "1; and 2 more"),
    ],
)
def test_the_first_few_are_named(found: list[object], most: int, separator: str, text: str) -> None:
    assert first_few(found, most, separator) == text
