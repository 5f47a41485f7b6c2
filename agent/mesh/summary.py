"""Conditions of many routes told in few words. Pure.

A mesh of 65,000 peers with one wrong setting would otherwise be 65,000 lines of log (promise 10).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from agent.model import Condition

__all__ = ["CONDITIONS_SHOWN", "and_more", "summarise"]

CONDITIONS_SHOWN: Final = 20
"""Conditions of one name that are shown each; more are told as a number."""


def summarise(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """At most :data:`CONDITIONS_SHOWN` of each name, and one more that tells the number."""
    by_name: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_name.setdefault(condition.name, []).append(condition)
    shown: list[Condition] = []
    for group in by_name.values():
        shown.extend(and_more(group[:CONDITIONS_SHOWN], len(group)))
    return tuple(shown)


def and_more(shown: list[Condition], of: int) -> tuple[Condition, ...]:
    """The conditions, all of one name, and how many more of it there are when ``of`` is larger.

    The number stands in the cause: it changes, and the condition stays the same one.
    """
    more = of - len(shown)
    if more <= 0:
        return tuple(shown)
    cause = f"{more} more have the same condition"
    return (*shown, replace(shown[0], subject="others", cause=cause))
