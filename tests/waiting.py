"""Wait for a state in tests: the one polling helper, for states that no event announces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hostmesh_lab.wait import wait_until

T = TypeVar("T")


def eventually(look: Callable[[], T | None], timeout_s: float = 10.0, every_s: float = 0.01) -> T:
    """Call ``look`` until it returns something true, and return that.

    Raises:
        WaitTimeout: Nothing true came in time; the message has the last result.
    """
    return wait_until(look, timeout_s, repr(look), every_s)


def remarks(stderr: str) -> str:
    """Return what a command said on stderr but what it waited for, on a busy machine."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("waiting for "))
