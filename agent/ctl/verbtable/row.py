"""Rows of the table of verbs: a verb, its arguments, and values that several rows share."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from agent.ctl.output import span_s
from agent.settings.text import shown

if TYPE_CHECKING:
    from agent.ctl.context import Context

__all__ = [
    "CONTAINER",
    "DRY_RUN",
    "HOST",
    "LOOK_S",
    "RESTART_S",
    "TABLE",
    "WATCH",
    "Argument",
    "Verb",
    "moment",
    "seconds",
]

RESTART_S = 180.0  # Docker may restart, fail, and be restarted with the previous settings
LOOK_S = 60.0
_MAX_TIMEOUT_S = 86_400.0


def seconds(text: str) -> float:
    """Return the seconds of ``60``, ``60s`` or ``1m30s``. Raises ArgumentTypeError."""
    value = span_s(text)
    if value is None or not 0 < value <= _MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"must be a time such as 30s, not {shown(text)}")
    return value


def moment(text: str) -> float:
    """Return the Unix time of ``7d`` (ago), ``10:30`` (today) or ``2026-11-27T10:30:00Z``.

    A time without a zone is local. Raises ArgumentTypeError.
    """
    from datetime import datetime, time  # noqa: PLC0415 - 3 ms, for one option

    now = datetime.now().astimezone()
    span = span_s(text)
    try:
        if span is not None:
            at_s = now.timestamp() - span
        elif len(text) <= len("10:30:00") and ":" in text:
            at_s = datetime.combine(now.date(), time.fromisoformat(text)).timestamp()
        else:
            at_s = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a time such as 1h, 7d, 10:30 or 2026-11-27T10:30, not {shown(text)}"
        ) from None
    if at_s > now.timestamp():
        raise argparse.ArgumentTypeError(f"{shown(text)} is in the future")
    return at_s


class Argument(NamedTuple):
    """One argument of a verb. No dataclass: importing those takes longer than parsing.

    Attributes:
        name: "--follow" for an option; "PEER" for a positional argument, "[FILE]" for one that
            may be left out.
        help: One line.
        form: "" is a flag, "a|b" a choice; else what the argument takes, such as "TIME". "HOST…"
            may be repeated; its value is a list, or None for an option that was not given.
    """

    name: str
    help: str
    form: str = ""

    @property
    def field(self) -> str:
        """Name of the value in the parsed command line."""
        return self.name.strip("-[]").replace("-", "_").lower()

    @property
    def value(self) -> str:
        """How help names the value, such as "FILE"; "" for a flag."""
        form = self.form.removesuffix("…")
        return form or ("" if self.name.startswith("-") else self.name.strip("[]"))

    @property
    def place(self) -> str:
        """How a synopsis shows a positional argument, such as "[FILE]"; "" for an option."""
        if self.name.startswith("-"):
            return ""
        shown_value = f"[{self.value}]" if self.name.startswith("[") else self.value
        return shown_value + ("..." if self.form.endswith("…") else "")


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: Such as "leases" or "config init".
        summary: One line of help.
        code: Module in agent.ctl.verbs, and ":" and the function in it unless that is ``run``.
        arguments: The verb's own.
        timeout_s: How long to wait without --timeout.
        hidden: For programs (completion), not for --help.
        reads_settings: Reports every mistake in agent.toml, even while the agent answers.
        examples: Whole command lines, shown by --help and in the man page; at least one. A test
            parses them, tests/netns/ctl/test_matrix.py runs them: a host is called host2, a network
            shop.
        note: Sentences below the summary: what else there is, or must be known.
        forms: What -o takes beside the forms that every verb has.
    """

    name: str
    summary: str
    code: str
    arguments: tuple[Argument, ...] = ()
    timeout_s: float = 15.0
    hidden: bool = False
    reads_settings: bool = False
    examples: tuple[str, ...] = ()
    note: str = ""
    forms: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The name's parts."""
        return tuple(self.name.split(" "))

    def load(self) -> Callable[[Context], int]:
        """Import the function that runs the verb and returns the exit status."""
        module, _, function = self.code.partition(":")
        found: Callable[[Context], int] = getattr(
            importlib.import_module(f"agent.ctl.verbs.{module}"), function or "run"
        )
        return found


TABLE = (
    Argument("--sort", "sort the rows by this column", "COLUMN"),
    Argument("--no-headers", "print the rows alone, for other programs"),
)
"""Options of a verb that prints with :meth:`agent.ctl.context.Context.show_table`."""

WATCH = Argument(
    "--watch", "refresh until Ctrl-C or --timeout; off a terminal, print one line per change"
)
DRY_RUN = Argument("--dry-run", "check and report, write nothing")
HOST = "the host's name, address, subnet or id"
CONTAINER = "a container (NAME, NAME.NETWORK, NAME@HOST, or the start of its id), or an address"
