"""Findings of the doctor: one line for each check."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.errors import HostmeshError
from agent.model import Condition, Severity

__all__ = ["Finding", "Findings", "State"]


_Found = TypeVar("_Found")


class State(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # the host can join; something will not be as it could
    FAIL = "fail"  # the host cannot join, or its containers would not be reached
    UNKNOWN = "unknown"  # it could not be checked


_OF_SEVERITY = {
    Severity.ERROR: State.FAIL,
    Severity.WARNING: State.WARN,
    Severity.INFO: State.WARN,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        check: What was looked at, a word or two.
        found: What was seen, with values.
        hint: What to do about it, "" when nothing.
    """

    check: str
    state: State
    found: str
    hint: str = ""


@dataclass(slots=True)
class Findings:
    """Collects findings, and what joining would do.

    Attributes:
        member: This host holds a lease of the mesh already.
        would: What the agent would do here that is not done yet.
    """

    items: list[Finding] = field(default_factory=list)
    would: list[str] = field(default_factory=list)
    member: bool = False

    def add(self, check: str, state: State, found: str, hint: str = "") -> None:
        """Note one finding."""
        self.items.append(Finding(check, state, found, hint))

    def attempt(
        self, check: str, look: Callable[[], _Found], state: State = State.FAIL
    ) -> _Found | None:
        """Return the check's result; None after an error, which is its finding."""
        try:
            return look()
        except HostmeshError as error:
            self.add(check, state, error.message, error.hint)
            return None

    def conditions(self, check: str, found: Iterable[Condition]) -> None:
        """Note conditions as findings of one check."""
        for each in found:
            self.add(check, _OF_SEVERITY[each.severity], each.cause, each.hint)

    @property
    def can_join(self) -> bool:
        """Return whether no check failed."""
        return all(each.state is not State.FAIL for each in self.items)

    def document(self) -> Mapping[str, Any]:
        """Return the document of `agentctl doctor -o json`."""
        return {
            "version": 1,
            "can_join": self.can_join,
            "member": self.member,
            "checks": [
                {
                    "check": each.check,
                    "state": str(each.state),
                    "found": each.found,
                    "hint": each.hint or None,
                }
                for each in self.items
            ],
            "would": self.would,
        }
