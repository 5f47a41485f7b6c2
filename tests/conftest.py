"""How the suite is shared between two workers (``make test``)."""

from __future__ import annotations

import pytest

_LAB = "lab"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all labs on one worker, because only one may be up; a module's fixtures serve it whole.

    A lab waits more than it computes, so the other worker's tests cost little time beside it.
    """
    for item in items:
        lab = item.get_closest_marker("engine") is not None
        item.add_marker(pytest.mark.xdist_group(_LAB if lab else str(item.path)))
