"""``--watch``: a screen that stays current on a terminal, else one line for each change."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime

from agent.ctl.client import AgentClient, Document
from agent.ctl.context import Context
from agent.ctl.output import clean, cut
from agent.ctl.polling import rounds
from agent.errors import AgentUnavailable, HostmeshError

__all__ = ["watch"]

_EVERY_S = 1.0
_ONE_REQUEST_S = 10.0
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR = "\x1b[2J"


def watch(
    context: Context,
    ask: Callable[[AgentClient], Document],
    screen: Callable[[Document], list[str]],
    changes: Callable[[Document, Document], list[str]],
) -> int:
    """Ask again every second until Ctrl-C, or until --timeout.

    Report an agent that does not answer, or cannot tell yet, and wait: it may be restarting.

    Args:
        ask: Gets the document.
        screen: Lays out the document in harmless lines.
        changes: Describes the differences of two documents in harmless lines.

    Raises:
        AgentUnavailable: No agent answered the first time.
        HostmeshError: It could not tell the first time.
    """
    ticks = rounds(_EVERY_S, context.follow_until_s(), _pause_of(context))
    client = AgentClient(context.client.path, _ONE_REQUEST_S)
    shown: _Screen | _Lines = _Lines(context, changes)
    if _is_screen(context):
        shown = _Screen(context, screen)
    next(ticks)
    shown.show(ask(client))
    for _ in ticks:
        try:
            document = ask(client)
        except HostmeshError as error:
            shown.away(_why(error))
        else:
            shown.show(document)
    return 0


def _pause_of(context: Context) -> Callable[[float], object]:
    """Return what waits for the next round; a change of a screen's size ends the wait."""
    if not _is_screen(context):
        return time.sleep
    resized = threading.Event()
    signal.signal(signal.SIGWINCH, lambda _number, _frame: resized.set())

    def pause(seconds: float) -> None:
        resized.wait(seconds)
        resized.clear()

    return pause


def _why(error: HostmeshError) -> str:
    return error.message if isinstance(error, AgentUnavailable) else f"cannot tell: {error.message}"


def _is_screen(context: Context) -> bool:
    return context.stdout.isatty() and not context.is_document and not context.is_dumb


class _Screen:
    """Redraws in place, cut to the terminal: lines that scroll or wrap cannot be redrawn."""

    def __init__(self, context: Context, lay_out: Callable[[Document], list[str]]) -> None:
        self._context = context
        self._lay_out = lay_out
        self._document: Document = {}
        self._as_of = ""
        self._size: tuple[int, int] | None = None

    def show(self, document: Document) -> None:
        """Draw ``document``."""
        self._document, self._as_of = document, _clock()
        self._draw(f"{self._as_of}  Ctrl-C ends")

    def away(self, message: str) -> None:
        """Show the last document again, with its time."""
        self._draw(f"{_clock()}  {clean(message)}", f"as of {self._as_of}:")

    def _draw(self, *head: str) -> None:
        size = shutil.get_terminal_size()
        rows, width = max(3, size.lines - 1), size.columns
        lines = [*head, *self._lay_out(self._document)]
        if len(lines) > rows:
            lines = [*lines[: rows - 1], f"... {len(lines) - rows + 1} more lines"]
        text = "".join(f"{cut(line, width)}{_END_OF_LINE}\n" for line in lines) + _REST
        # After a change of size the old lines are elsewhere on the screen: clear it.
        begin = _HOME if self._size == (rows, width) else _CLEAR + _HOME
        self._size = rows, width
        self._context.stdout.write(begin + text)
        self._context.stdout.flush()


class _Lines:
    """One line for each change; with -o json or yaml one document for each."""

    def __init__(
        self, context: Context, changes: Callable[[Document, Document], list[str]]
    ) -> None:
        self._context = context
        self._changes = changes
        self._before: Document | None = None
        self._is_away = False

    def show(self, document: Document) -> None:
        """Print what changed since the last document; of the first one nothing but JSON."""
        if self._is_away:
            self._is_away = False
            self._event("hostmesh-agent answers again")
        found = [] if self._before is None else self._changes(self._before, document)
        if self._before is not None and not found:
            return
        self._before = document
        if self._context.is_document:
            self._context.say_one_of_many(document)
            self._context.stdout.flush()
            return
        for line in found:
            self._event(line)

    def away(self, message: str) -> None:
        """Print once that the agent does not answer."""
        if not self._is_away:
            self._is_away = True
            self._event(clean(message))

    def _event(self, line: str) -> None:
        if self._context.is_document:
            self._context.remark(line)
        else:
            self._say(f"{_clock()} {line}")

    def _say(self, line: str) -> None:
        self._context.say(line)
        self._context.stdout.flush()


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
