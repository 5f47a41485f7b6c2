"""The sections of the page, made of the control socket's documents for all open pages at once.

While no page is open nothing is made. A section is sent when it changed; ages and other values that
only count up are no change, since the page counts for itself. A section takes at most a twentieth
of a core's time, so that large meshes are shown less often, not at the agent's cost.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from agent import __version__
from agent.daemon.api.connection import Answer, Stream, answer_of, error_document
from agent.daemon.ui.page import HEADERS
from agent.errors import AgentUnavailable
from agent.threads import start_thread

__all__ = ["SECTIONS", "Feed", "SectionSource"]

Document = Mapping[str, Any]
_PAGES = 8
_TICK_S = 1.0
_BEAT_S = 3.0
_SHARE = 20
_RECONNECT_MS = 1000


@dataclass(frozen=True, slots=True)
class SectionSource:
    """A part of the page's data.

    Attributes:
        path: The document on the control socket.
        every_s: How often it is made, at most.
        again_s: It is sent after that time without a change, too, for the ages in it; 0: never.
        waits: It may wait for etcd, so it is made on a thread of its own.
    """

    path: str
    every_s: float
    again_s: float = 0
    waits: bool = False


SECTIONS: Final[Mapping[str, SectionSource]] = {
    "status": SectionSource("/v1/status", 1, again_s=10),
    "leases": SectionSource("/v1/leases", 2, again_s=30),
    "events": SectionSource("/v1/events", 2),
    "check": SectionSource("/v1/check", 5),
    "networks": SectionSource("/v1/networks", 10, waits=True),
    "containers": SectionSource("/v1/containers", 10, waits=True),
    "checks": SectionSource("/v1/checks", 30, waits=True),
}
"""The page's sections by name; one whose path is not served is left out."""


@dataclass(slots=True)
class _Section:
    """A section as it was made last.

    Attributes:
        number: Grows whenever the section is to be sent.
        payload: The message to send.
        content: Its content without what only counts up.
        due_s, again_s: Monotonic time at which it is made, or sent, again.
    """

    number: int = 0
    payload: bytes = b""
    content: str = ""
    due_s: float = 0.0
    again_s: float = 0.0
    being_made: bool = False


class Feed:
    """Streams the sections to every open page. Any thread.

    Args:
        read: The functions behind the paths of the control socket.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        read: Mapping[str, Callable[[], Answer]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = {
            name: (source, read[source.path])
            for name, source in SECTIONS.items()
            if source.path in read
        }
        self._clock = clock
        self._lock = threading.Lock()
        self._pages = 0
        self._sections: dict[str, _Section] = {}

    def stream(self) -> Stream | tuple[int, Document]:
        """Return a new page's stream; an error when as many pages are open as may be."""
        with self._lock:
            if self._pages >= _PAGES:
                error = AgentUnavailable(
                    f"{_PAGES} pages of this agent are open already", hint="close one of them"
                )
                return HTTPStatus.SERVICE_UNAVAILABLE, error_document(error)
            self._pages += 1
        return Stream(_Subscription(self), "text/event-stream; charset=utf-8", _TICK_S, HEADERS)

    def leave(self) -> None:
        """Note that a page was closed; the last one takes the sections with it."""
        with self._lock:
            self._pages -= 1
            if not self._pages:
                self._sections = {}

    def newer(self, sent: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        """Return the sections whose number is not the one sent, after making those that are due."""
        self._make_due()
        with self._lock:
            return {
                name: (each.number, each.payload)
                for name, each in self._sections.items()
                if each.number != sent.get(name, 0)
            }

    def _make_due(self) -> None:
        now_s = self._clock()
        for name, (source, read) in self._sources.items():
            with self._lock:
                section = self._sections.setdefault(name, _Section())
                if section.being_made or section.due_s > now_s:
                    continue
                section.being_made = True
            if source.waits:
                start_thread("ui-section", partial(self._make, name, source, read, section))
            else:
                self._make(name, source, read, section)

    def _make(
        self,
        name: str,
        source: SectionSource,
        read: Callable[[], Answer],
        section: _Section,
    ) -> None:
        began_s = self._clock()
        try:
            document = _document_of(read)
            content = json.dumps(_lasting(document), separators=(",", ":"))
            if content != section.content or (source.again_s and began_s >= section.again_s):
                payload = message(name, document)
                with self._lock:
                    section.content, section.payload = content, payload
                    section.again_s = began_s + source.again_s
                    section.number += 1
        finally:
            took_s = self._clock() - began_s
            with self._lock:
                section.due_s = began_s + max(source.every_s, took_s * _SHARE)
                section.being_made = False


class _Subscription:
    """One page's stream."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._sent: dict[str, int] = {}

    def __iter__(self) -> Iterator[bytes]:
        yield f"retry: {_RECONNECT_MS}\n\n".encode() + message("hello", {"agent": __version__})
        beat_s = 0.0
        while True:
            found = self._feed.newer(self._sent)
            self._sent.update({name: number for name, (number, _) in found.items()})
            parts = [payload for _, payload in found.values()]
            if parts or time.monotonic() >= beat_s:
                parts.append(message("beat", {"at": round(time.time(), 1)}))
                beat_s = time.monotonic() + _BEAT_S
            yield b"".join(parts)

    def close(self) -> None:
        """Release the page's place."""
        self._feed.leave()


def message(name: str, document: Document) -> bytes:
    """Return a server-sent event (HTML standard, 9.2); JSON in ASCII has no line breaks."""
    data = json.dumps(document, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


def _document_of(read: Callable[[], Answer]) -> Document:
    """Return a document, or the error document of what went wrong, so that the others go on."""
    answer = answer_of(read)
    if isinstance(answer, tuple):
        _, answer = answer
    return answer if isinstance(answer, Mapping) else {}


def _lasting(value: object) -> object:
    """Return a document without what only counts up: ages, and etcd's revision."""
    if isinstance(value, Mapping):
        return {key: _lasting(each) for key, each in value.items() if not _counts_up(key)}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_lasting(each) for each in value]
    return value


def _counts_up(key: str) -> bool:
    return key.endswith(("_s", "_s_ago")) or key == "revision"
