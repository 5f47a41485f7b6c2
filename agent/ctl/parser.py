"""agentctl's command line: parses it, and names the nearest right word for a mistake."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from agent.ctl.verbtable import GROUPS, VERBS, Verb, seconds
from agent.errors import UsageError
from agent.settings.place import DEFAULT_PATH
from agent.settings.text import nearest, shown, whole_number

__all__ = ["build_parser", "parse"]

_COLUMNS = 80  # where there is no terminal


class _Formatter(argparse.HelpFormatter):
    """argparse makes one for each argument, and would import shutil for the width (5 ms)."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As shutil.get_terminal_size has it."""
    given = whole_number(os.environ.get("COLUMNS", ""), digits=4)
    if given:
        return given
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or _COLUMNS  # type: ignore[union-attr] # AttributeError
    except (AttributeError, ValueError, OSError):  # no stdout, a closed one, no terminal
        return _COLUMNS


class _Parser(argparse.ArgumentParser):
    """Raises UsageError with the nearest right word instead of printing the usage."""

    options: ClassVar[set[str]] = set()  # of all parsers together; set by build_parser

    def __init__(self, **how: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **how})

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` with a hint."""
        wrong = re.search(r"invalid choice: '?([^'\s]*)'? \(choose from (.*)\)", message)
        if wrong is not None:
            known = re.findall(r"[a-z][a-z-]*", wrong[2])
            raise UsageError(f"there is no {shown(wrong[1])}", hint=_nearest(wrong[1], known))
        if message.startswith("unrecognized arguments: "):
            first = message.partition(": ")[2].split(" ")[0]
            hint = _nearest(first, self.options) if first.startswith("-") else self._help_hint()
            raise UsageError(f"there is no {shown(first)} here", hint=hint)
        raise UsageError(message, hint=self._help_hint())

    def _help_hint(self) -> str:
        return f"{self.prog} --help"


def _nearest(wrong: str, known: Iterable[str]) -> str:
    words = sorted(known)
    near = nearest(wrong, words)
    return f"did you mean {near}?" if near else "there are " + ", ".join(words)


def _common() -> _Parser:
    """Arguments that stand before or after the verb."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "-o", "--output", choices=("text", "wide", "json"), help="form of the answer (text)"
    )
    common.add_argument("--settings", type=Path, metavar="FILE", help=f"instead of {DEFAULT_PATH}")
    common.add_argument(
        "--set", action="append", metavar="SECTION.KEY=VALUE", help="override one setting"
    )
    common.add_argument("--socket", type=Path, metavar="FILE", help="the agent's control socket")
    common.add_argument("--timeout", type=seconds, metavar="TIME", help="wait this long at most")
    return common


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; ``verb`` is None when there is none.

    A verb that stands first gets a parser of its own: building all of them takes longer than many
    an answer. What that one does not understand the whole parser judges.

    Raises:
        UsageError: It cannot be meant; the hint says what may be.
    """
    for verb in VERBS:
        if tuple(argv[: len(verb.words)]) == verb.words:
            try:
                return build_parser((verb,)).parse_args(argv)
            except UsageError:
                break
    return build_parser().parse_args(argv)


def build_parser(known: Sequence[Verb] = VERBS) -> argparse.ArgumentParser:
    """Build the parser of these verbs; the result's ``verb`` is None when none was given."""
    # Each parser gets common arguments of its own: with shared ones the defaults below would
    # become the verbs' too, and undo what was given before the verb.
    top = _Parser(
        prog="agentctl",
        description="Ask and steer the Hostmesh agent of this host.",
        epilog="Exit statuses: docs/exit-status.md. Every verb: agentctl VERB --help.",
        parents=[_common()],
    )
    top.set_defaults(
        verb=None, output="text", settings=DEFAULT_PATH, set=[], socket=None, timeout=None
    )
    # With prog told argparse need not format the usage for it.
    how: dict[str, Any] = {"metavar": "VERB", "title": "verbs", "parser_class": _Parser}
    verbs = top.add_subparsers(prog=top.prog, **how)
    groups = {}
    parsers: list[argparse.ArgumentParser] = [top]
    for verb in known:
        place = verbs
        if len(verb.words) > 1:
            name = verb.words[0]
            if name not in groups:
                group = verbs.add_parser(name, help=GROUPS[name], description=GROUPS[name])
                groups[name] = group.add_subparsers(prog=group.prog, required=True, **how)
                parsers.append(group)
            place = groups[name]
        listed: dict[str, Any] = {} if verb.hidden else {"help": verb.summary}
        parser = place.add_parser(
            verb.words[-1],
            **listed,
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
            parents=[_common()],
        )
        verb.arguments(parser)
        parser.set_defaults(verb=verb)
        parsers.append(parser)
    _Parser.options = {option for each in parsers for option in each._option_string_actions}  # noqa: SLF001 - argparse offers no other way
    return top
