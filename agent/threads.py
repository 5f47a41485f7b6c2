"""The top of a thread: what nobody foresaw is told, and the thread goes on.

A thread that ends by a bug would take a part of the agent with it and nobody would see: the
routes are still there, but nothing repairs them. ``threading.excepthook`` is where Python tells of
it; the daemon sets it to its own, which makes a condition of it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

__all__ = ["go_on", "tell"]

_FIRST_S = 1.0
_LONGEST_S = 60.0


def tell(error: Exception) -> None:
    """Tell of an exception that this thread outlives, as Python tells of one that ends a thread."""
    this = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, this)))


def go_on(turn: Callable[[], object], stopping: threading.Event) -> None:
    """Call ``turn`` again and again until told to stop; after a failed one there is a pause.

    Args:
        turn: One turn of the thread's work; it waits by itself.
        stopping: Ends it, and the pause.
    """
    pause_s = _FIRST_S
    while not stopping.is_set():
        try:
            turn()
        except Exception as error:  # noqa: BLE001 - the top of a thread
            tell(error)
            stopping.wait(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
            pause_s = min(pause_s * 2, _LONGEST_S)
        else:
            pause_s = _FIRST_S
