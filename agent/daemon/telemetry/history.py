"""Keep events of this host on disk in a bounded ring: ``agentctl events``.

Two files of JSON lines. The newer one is appended to; when it is full it takes the place of the
older one, by rename. A line cut off by kill -9 or a power cut costs that line. A disk that is full
costs nothing that memory can hold: what could not be written waits, and the agent says so.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import StateError
from agent.log import redact

__all__ = ["History", "HistoryEvent", "events_document", "read_events"]

_NEWER, _OLDER = "events.jsonl", "events.old.jsonl"
_LIMIT_BYTES = 256 * 1024
_WAITING = 1000
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One thing that happened.

    Attributes:
        number: Counts up over restarts of the agent.
        at_s: Unix time.
        kind: Kebab-case, documented in docs/control-socket.md.
        subject: What it is about: a subnet, a condition's name and subject; may be "".
        text: One sentence with values.
    """

    number: int
    at_s: float
    kind: str
    subject: str
    text: str

    def document(self) -> dict[str, Any]:
        """Return the event as in the control socket's document."""
        return {
            "id": self.number,
            "at": round(self.at_s, 3),
            "kind": self.kind,
            "subject": self.subject,
            "text": self.text,
        }


class History:
    """The ring. Any thread may record; :meth:`flush` is the loop's.

    Args:
        folder: The agent's state directory.
        wall_clock: Unix seconds.
        limit_bytes: Of one of the two files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wall_clock: Callable[[], float] = time.time,
        limit_bytes: int = _LIMIT_BYTES,
    ) -> None:
        self._newer, self._older = folder / _NEWER, folder / _OLDER
        self._wall_clock = wall_clock
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._waiting: deque[HistoryEvent] = deque(maxlen=_WAITING)
        known = read_events(folder) if folder.exists() else []
        self._next = known[-1].number + 1 if known else 1

    def record(self, kind: str, text: str, subject: str = "") -> None:
        """Remember that something happened. Never blocks on the disk."""
        with self._lock:
            event = HistoryEvent(
                self._next,
                self._wall_clock(),
                kind,
                str(redact(subject))[:_MAX_TEXT],
                str(redact(text))[:_MAX_TEXT],
            )
            self._next += 1
            self._waiting.append(event)

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StateError: It could not be written; it still waits, the oldest goes when 1,000 do.
        """
        with self._lock:
            waiting = list(self._waiting)
        if not waiting:
            return
        try:
            self._write(waiting)
        except OSError as error:
            raise StateError(
                f"cannot write {self._newer}: {error.strerror or error}",
                hint="is the disk full, or read-only? events wait in memory meanwhile",
            ) from error
        with self._lock:
            while self._waiting and self._waiting[0].number <= waiting[-1].number:
                self._waiting.popleft()

    def events(self) -> list[HistoryEvent]:
        """Return all events, oldest first.

        Raises:
            StateError: The files are there but cannot be read.
        """
        written = read_events(self._newer.parent)
        last = written[-1].number if written else 0
        with self._lock:
            return written + [each for each in self._waiting if each.number > last]

    def _write(self, events: list[HistoryEvent]) -> None:
        self._newer.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = b"".join(
            json.dumps(each.document(), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
            for each in events
        )
        opened = os.open(self._newer, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(opened).st_size
            if size and os.pread(opened, 1, size - 1) != b"\n":
                text = b"\n" + text  # a line that was cut off keeps its harm to itself
            try:
                done = os.write(opened, text)
                if done < len(text):  # the disk filled up on the way
                    done += os.write(opened, text[done:])
            except OSError:
                os.ftruncate(opened, size)
                raise
        finally:
            os.close(opened)
        if size + len(text) > self._limit_bytes:
            self._newer.replace(self._older)


def read_events(folder: Path) -> list[HistoryEvent]:
    """Return the events on disk, oldest first, without damaged lines.

    Raises:
        StateError: A file is there but cannot be read.
    """
    found = {}
    for name in (_OLDER, _NEWER):
        try:
            raw = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StateError(
                f"cannot read {folder / name}: {error.strerror or error}", hint="run it as root"
            ) from error
        found.update({event.number: event for event in _parse(raw)})
    return [found[number] for number in sorted(found)]


def _parse(raw: bytes) -> Iterator[HistoryEvent]:
    for line in raw.splitlines():
        try:
            each = json.loads(line)
            yield HistoryEvent(
                int(each["id"]),
                float(each["at"]),
                str(each["kind"]),
                str(each["subject"]),
                str(each["text"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def events_document(events: list[HistoryEvent], *, after: int = 0) -> dict[str, Any]:
    """``GET /v1/events``: those with a number above ``after``."""
    return {
        "version": 1,
        "events": [each.document() for each in events if each.number > after],
    }
