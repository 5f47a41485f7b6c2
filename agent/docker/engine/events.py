"""Read the engine's event stream: one JSON document a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FOLLOWED", "UNREADABLE", "EngineEvent", "EventLines"]

FOLLOWED: Final[Mapping[str, list[str]]] = {
    "type": ["network", "container", "daemon"],
    "event": [
        "create",
        "destroy",
        "connect",
        "disconnect",
        "start",
        "die",
        "rename",
        "health_status",
        "reload",
    ],
}
"""The filters of ``GET /events``. With "health_status" among them Docker compares prefixes."""

_LONGEST_LINE: Final = 1 << 20
"""An event carries all labels of its container."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event.

    Attributes:
        kind: Docker's type of the object: "container", "network", "daemon".
        action: Such as "start", "die", "connect"; "health_status" without the status.
        container: Id of the container that it is about, "" for none.
        network: Id of the network that it is about, "" for none.
    """

    kind: str
    action: str
    container: str = ""
    network: str = ""


UNREADABLE: Final = EngineEvent("", "")
"""Something happened, and the line does not say what."""


class EventLines:
    """Joins the parts of a stream as they come, and reads each whole line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> tuple[EngineEvent, ...]:
        """Return the events of the lines that ``part`` completes."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        found = tuple(_event(line) for line in lines if line.strip())
        if len(self._rest) <= _LONGEST_LINE:
            return found
        self._rest = b""
        return (*found, UNREADABLE)


def _event(line: bytes) -> EngineEvent:
    try:
        kind, action, identity, other = _fields(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return UNREADABLE
    if kind == "container":
        return EngineEvent(kind, action, container=identity)
    if kind == "network":
        return EngineEvent(kind, action, container=other, network=identity)
    return EngineEvent(kind, action)


def _fields(raw: Mapping[str, Any]) -> Iterator[str]:
    yield str(raw["Type"])
    yield str(raw["Action"]).partition(":")[0]
    actor = raw["Actor"]
    yield str(actor.get("ID") or "")
    yield str((actor.get("Attributes") or {}).get("container") or "")
