"""Say on stderr what a command waits for.

After a second the command says what it waits for, after ten how long that may take. On a terminal
one line is redrawn, and erased at the end. Elsewhere each message is a line, at most one a second.

Programs that answer in milliseconds use this, so it imports next to nothing: ``threading`` alone
takes a tenth of agentctl's time.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from agent.settings.text import printable

__all__ = ["Progress"]

_TICK_S = 1.0
_LONG_TICKS = 10
_SECONDS_UP_TO_S = 100
_ERASE = "\r\x1b[K"
_COLUMNS = 80


class _Wait:
    """One thing that is waited for.

    Args:
        what: Follows "waiting for".
        at_most_s: How long it may take from ``began_s``; None: as the wait around it.
    """

    def __init__(self, what: str, at_most_s: float | None, began_s: float) -> None:
        self.what = what
        self.at_most_s = at_most_s
        self.began_s = began_s

    def now_for(self, what: str) -> None:
        """Name the next thing that the same block waits for."""
        self.what = what


class Progress:
    """Says what this process waits for. Only one of its threads may wait.

    Args:
        stream: For the messages; None: stderr is closed, and nothing is said.
        clock: Monotonic seconds.
        tick_s: How often to look, from the first wait on.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float = _TICK_S,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._tick_s = tick_s
        self._lock = _thread.allocate_lock()
        self._ended: _thread.LockType | None = None
        self._waits: list[_Wait] = []
        self._last = ""
        self._drawn = False

    @contextlib.contextmanager
    def waiting_for(
        self, what: str, at_most_s: float | None = None
    ) -> Iterator[Callable[[str], None]]:
        """Say that the block waits for ``what``; yield a function that names the next thing.

        Blocks may be nested: the innermost one is shown, with the nearest limit.
        """
        wait = _Wait(what, at_most_s, self._clock())
        self._start()
        with self._lock:
            self._waits.append(wait)
        try:
            yield wait.now_for
        finally:
            with self._lock:
                self._waits.remove(wait)
            self.erase()

    def erase(self) -> None:
        """Take the line off the terminal, before other output."""
        if self._drawn and self._stream is not None:
            with self._lock, contextlib.suppress(OSError, ValueError):
                self._drawn = False
                self._stream.write(_ERASE)
                self._stream.flush()

    def close(self) -> None:
        """End the thread."""
        if self._ended is not None:
            self._ended.release()
            self._ended = None

    def _start(self) -> None:
        if self._ended is None and self._stream is not None:
            self._ended = _thread.allocate_lock()
            self._ended.acquire()
            _thread.start_new_thread(self._run, (self._ended, self._stream))

    def _run(self, ended: _thread.LockType, stream: TextIO) -> None:
        ticks = 0
        while not ended.acquire(timeout=self._tick_s):
            ticks += 1
            with self._lock, contextlib.suppress(OSError, ValueError):  # stderr was closed
                if self._waits:
                    self._say(stream, long=ticks >= _LONG_TICKS)

    def _say(self, stream: TextIO, *, long: bool) -> None:
        wait = self._waits[-1]
        limited = next((each for each in reversed(self._waits) if each.at_most_s), wait)
        passed = _span(self._clock() - limited.began_s)
        limit = f", it may take {_span(limited.at_most_s)}" if long and limited.at_most_s else ""
        text = f"waiting for {printable(wait.what)}"
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            self._drawn = True
            line = f"{text} ({passed}{limit})"
            stream.write(_ERASE + line[: _columns(stream) - 1])
            stream.flush()
        elif text + limit != self._last:
            self._last = text + limit
            print(f"{text} ({passed} so far{limit})" if long else text, file=stream, flush=True)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _span(seconds: float) -> str:
    """Return seconds as 45 s, or 3 min."""
    return f"{seconds:.0f} s" if seconds < _SECONDS_UP_TO_S else f"{seconds / 60:.0f} min"
