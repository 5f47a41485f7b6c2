"""Ask again and again until a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

__all__ = ["rounds"]


def rounds(
    every_s: float, until_s: float | None, pause: Callable[[float], object] = time.sleep
) -> Iterator[None]:
    """Yield at once, then every ``every_s``, and a last time at ``until_s``.

    Args:
        until_s: Monotonic seconds; None: without end.
    """
    while True:
        yield
        left_s = every_s if until_s is None else until_s - time.monotonic()
        if left_s <= 0:
            return
        pause(min(every_s, left_s))
