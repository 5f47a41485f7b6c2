"""What an operator should know: a condition and how much it matters."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Condition", "Severity"]


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
        subject: What it is about, so that two of one name can stand side by side.
        cause: What is the case, with values.
        hint: What to do about it.
    """

    name: str
    cause: str
    hint: str
    subject: str = ""
    severity: Severity = Severity.WARNING
