"""Conditions: problems that the agent shows to the operator, and summaries of many of them.

A mesh of 10,000 peers with one wrong setting would otherwise be as many lines of log (promise 10).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = [
    "CONDITIONS_SHOWN",
    "Condition",
    "Severity",
    "and_more",
    "first_few",
    "summarise",
]


class Severity(enum.StrEnum):
    """How much a condition matters: an error keeps the host from doing its part of the mesh."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something the operator should know, the same in status, metrics and log.

    Attributes:
        name: Kebab-case, stable, documented in docs/conditions.md.
        subject: The object, so that two conditions of one name differ.
        cause: The fact, with values.
        hint: What to do about it, with a command.
    """

    name: str
    cause: str
    hint: str
    subject: str = ""
    severity: Severity = Severity.WARNING


CONDITIONS_SHOWN: Final = 20
"""Conditions of one name that are shown in full; more are counted."""


def summarise(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return at most :data:`CONDITIONS_SHOWN` of each name, and one more that counts the rest."""
    by_name: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_name.setdefault(condition.name, []).append(condition)
    shown: list[Condition] = []
    for group in by_name.values():
        shown.extend(and_more(group[:CONDITIONS_SHOWN], len(group)))
    return tuple(shown)


def first_few(found: Sequence[object], most: int = 5, separator: str = ", ") -> str:
    """Name the first of ``found``, and how many more there are."""
    more = len(found) - most
    end = f"{separator.rstrip(', ')} and {more} more" if more > 0 else ""
    return separator.join(map(str, found[:most])) + end


def and_more(shown: list[Condition], of: int) -> tuple[Condition, ...]:
    """Return the conditions, all of one name, and a count of more when ``of`` is larger.

    The number is in the cause: it changes, and the condition stays the same one.
    """
    more = of - len(shown)
    if more <= 0:
        return tuple(shown)
    cause = f"{more} more have the same condition"
    return (*shown, replace(shown[0], subject="others", cause=cause))
