"""structlog set up once: readable on a terminal, one JSON object a line otherwise.

Every event is a short kebab-case or plain phrase with key-values. What may come from etcd,
Docker or the kernel is made printable, what may be secret is struck out, and an event that
repeats is held back and counted (promise 10: logs are rate-limited). A log that cannot be
written never stops the agent.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from agent import systemd_journal as journal
from agent.settings import LogSettings
from agent.settings.text import printable

__all__ = ["RateLimiter", "configure", "printable", "redact"]

_SECRET_KEY = re.compile(
    r"passw|secret|token|authorization|credential|private_?key|api_?key", re.IGNORECASE
)
_URL_USER = re.compile(r"(?<=://)[^/@\s]+@")
_STRUCK_OUT = "***"
_JOURNAL_LEVEL = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_QUIET_LOGGERS = ("docker", "etcd3", "grpc", "pyroute2", "requests", "tenacity", "urllib3")
_MAX_NESTING = 6
_KEPT_CONTROLS = "\n\t"
_JSON = structlog.processors.JSONRenderer(ensure_ascii=True)


def redact(value: Any, *, depth: int = 0) -> Any:  # noqa: ANN401 - log values are anything
    """``value`` without secrets: values of keys that name one, and users in URLs."""
    if isinstance(value, str):
        return _URL_USER.sub(f"{_STRUCK_OUT}@", value)
    if depth >= _MAX_NESTING and isinstance(value, Mapping | list | tuple | set | frozenset):
        return "…"  # its text could hold a secret that no key says is one
    if isinstance(value, Mapping):
        return {
            key: _STRUCK_OUT
            if _SECRET_KEY.search(str(key)) and not str(key).endswith("_file")
            else redact(each, depth=depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(each, depth=depth + 1) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _URL_USER.sub(f"{_STRUCK_OUT}@", str(value))


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    cleaned: EventDict = redact(event)
    return cleaned


def _printable_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        text = str(value) if isinstance(value, str | list | dict) else ""
        if not text.isprintable():
            keep = _KEPT_CONTROLS if key in {"exception", "stack"} else ""
            event[key] = printable(text, keep=keep)
    return event


@dataclass(slots=True)
class _Window:
    started_s: float
    admitted: int = 0
    held_back: int = 0


class RateLimiter:
    """Admits ``burst`` of one key per ``interval_s`` and counts those it holds back.

    As a processor it limits each event by its name, more strictly (one per interval) by
    name and ``limit_key`` where the caller gives that; the next admitted one carries
    ``held_back=N``. Debug events and critical ones pass. What begins or ends a condition has a
    limit of its own for each condition and subject: no flood of others keeps it from the log.

    Args:
        clock: Monotonic seconds.
        interval_s: Length of a window.
        burst: How many of a key without ``limit_key`` pass in a window.
        capacity: How many keys are remembered; the least recently seen is forgotten.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        interval_s: float = 60.0,
        burst: int = 20,
        capacity: int = 1024,
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._burst = burst
        self._capacity = capacity
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, key: str, *, burst: int | None = None) -> int | None:
        """Return how many of ``key`` were held back since the last, None to hold this one back."""
        now_s = self._clock()
        limit = self._burst if burst is None else burst
        with self._lock:
            window = self._windows.get(key)
            if window is None or now_s - window.started_s >= self._interval_s:
                held_back = window.held_back if window else 0
                self._windows[key] = _Window(started_s=now_s, admitted=1)
                self._windows.move_to_end(key)
                while len(self._windows) > self._capacity:
                    self._windows.popitem(last=False)
                return held_back
            self._windows.move_to_end(key)
            if window.admitted < limit:
                window.admitted += 1
                return 0
            window.held_back += 1
            return None

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Hold back repeats, as a structlog processor: raises DropEvent for those."""
        limit_key = event.pop("limit_key", None)
        if method in {"debug", "critical"}:
            return event
        name = str(event.get("event", ""))
        if limit_key is not None:
            held_back = self.admit(f"{name}\0{limit_key}", burst=1)
        elif "condition" in event:
            held_back = self.admit(f"{name}\0{event['condition']}\0{event.get('subject')}")
        else:
            held_back = self.admit(name)
        if held_back is None:
            raise structlog.DropEvent
        if held_back:
            event["held_back"] = held_back
        return event


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put what every line has first, so that raw JSON lines can be read by eye."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


class _StreamLogger:
    """Writes lines to a stream whole, from any thread; a stream that fails loses the line only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write one rendered event."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # a full disk or a closed pipe must not end the agent

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """Passes what libraries log through stdlib logging on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log ``record`` as an event of its own with the library's name beside it."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        structlog.get_logger().log(
            record.levelno,
            "library",
            limit_key=f"{record.name} {record.msg}",
            logger=record.name,
            message=text,
            exc_info=record.exc_info,
        )


class _JournalLine(str):
    """A line as systemd reads it from standard error, with the journal's own fields beside it."""

    __slots__ = ("fields",)
    fields: Mapping[str, str]


def _journal_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Render a line with its syslog level in front, as sd-daemon(3) has it, and keep its fields."""
    level = _JOURNAL_LEVEL.get(str(event.get("level")), 6)
    fields = dict(event)
    text = str(_JSON(logger, method, event))
    line = _JournalLine(f"<{level}>{text}")
    line.fields = journal.fields_of(fields, text, level)
    return line


class _JournalLogger(_StreamLogger):
    """Sends lines to the journal by its native protocol; what that does not take, by the stream."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        super().__init__(stream)
        self._journal = journal.JournalSocket(path)

    def msg(self, line: str) -> None:
        """Send one rendered event."""
        if not isinstance(line, _JournalLine) or not self._journal.send(line.fields):
            super().msg(line)

    debug = info = warning = error = critical = msg


def configure(
    settings: LogSettings,
    *,
    stream: TextIO,
    is_tty: bool,
    journald: bool = False,
    journal_socket: Path = journal.SOCKET,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Set up structlog and the stdlib's logging for the whole process.

    Args:
        settings: Level and format; format "auto" is the console's on a terminal, else JSON.
        stream: Where lines go.
        is_tty: Whether ``stream`` is a terminal: colours and, with "auto", the form.
        journald: Lines are read by systemd's journal (JOURNAL_STREAM is set): JSON lines go
            there with fields of their own, or with their level as prefix where it takes none.
        journal_socket: Where it listens.
        clock: Monotonic seconds for the rate limit.
    """
    level = getattr(logging, settings.level.upper())
    logger = _StreamLogger(stream)
    tail: list[Any] = [_ordered, _JSON]
    if settings.format == "console" or (settings.format == "auto" and is_tty):
        tail = [_printable_event, _console(colors=is_tty)]
    elif journald:
        tail = [_ordered, _journal_line]
        logger = _JournalLogger(stream, journal_socket)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            RateLimiter(clock),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _redact_event,
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_args: logger,
        cache_logger_on_first_use=False,
    )
    _configure_libraries(level)


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    # Plain tracebacks: the fancy ones print local variables, and with them secrets.
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
    )


def _configure_libraries(level: int) -> None:
    """Route stdlib logging here; libraries speak from warning up, from debug if we do."""
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(max(level, logging.WARNING))
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
