"""Waiting for something to become true, with a deadline and a message that helps."""

import time
from collections.abc import Callable
from typing import TypeVar

from hostmesh_lab.errors import LabError, WaitTimeout

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T | None], timeout_s: float, what: str, every_s: float = 0.1
) -> T:
    """Ask again and again until the answer is true and return it.

    What the predicate last said, or the lab's error it last raised, is in the message.
    """
    deadline = time.monotonic() + timeout_s
    last = ""
    while True:
        try:
            answer = predicate()
            if answer:
                return answer
            last = repr(answer)
        except LabError as error:
            last = str(error)
        if time.monotonic() > deadline:
            raise WaitTimeout(f"not within {timeout_s:g} s: {what} (last seen: {last[:300]})")
        time.sleep(every_s)
