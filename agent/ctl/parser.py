"""Parse agentctl's command line; suggest the nearest valid name for a mistake."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent.ctl.verbtable import GROUPS, VERBS, Argument, Verb, seconds
from agent.errors import UsageError
from agent.settings.place import DEFAULT_PATH
from agent.settings.text import nearest, shown, whole_number

__all__ = ["build_parser", "parse"]

_COLUMNS = 80  # where there is no terminal
_CONVERT: dict[str, Any] = {"TIME": seconds, "FILE": Path}
_JSON_FLAG = "--json"


class _Formatter(argparse.HelpFormatter):
    """argparse makes one for each argument, and would import shutil for the width (5 ms)."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """Return what shutil.get_terminal_size would."""
    given = whole_number(os.environ.get("COLUMNS", ""), digits=4)
    if given:
        return given
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or _COLUMNS  # type: ignore[union-attr] # AttributeError
    except (AttributeError, ValueError, OSError):  # no stdout, a closed one, no terminal
        return _COLUMNS


class _Parser(argparse.ArgumentParser):
    """Raises UsageError with a suggestion instead of printing the usage."""

    def __init__(self, **how: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **how})

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` with a hint."""
        choice = re.search(
            r"argument (.*): invalid choice: '?([^'\s]*)'? \(choose from (.*)\)", message
        )
        if choice is None:
            raise UsageError(message, hint=f"{self.prog} --help")
        argument = "verb" if choice[1] == "VERB" else f"value for {choice[1]}:"
        known = re.findall(r"[a-z][a-z-]*", choice[3])
        raise UsageError(f"unknown {argument} {shown(choice[2])}", hint=_nearest(choice[2], known))

    def refuse(self, unknown: str) -> NoReturn:
        """Raise UsageError for an argument that this verb does not take."""
        verb = self.prog.removeprefix("agentctl").strip()
        where = f" for {verb}" if verb else ""
        if not unknown.startswith("-"):
            hint = f"{self.prog} --help"
            raise UsageError(f"unexpected argument {shown(unknown)}{where}", hint=hint)
        hint = "for JSON use -o json"
        if unknown != _JSON_FLAG:
            hint = _nearest(unknown, self._option_string_actions)
        option = unknown if re.fullmatch(r"[a-z-]{2,40}", unknown) else shown(unknown)
        raise UsageError(f"unknown option {option}{where}", hint=hint)


def _nearest(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = nearest(wrong, names)
    return f"did you mean {near}?" if near else "known: " + ", ".join(names)


def _common() -> _Parser:
    """Return the arguments that every verb takes, before or after it."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "-o", "--output", choices=("text", "wide", "json"), help="form of the answer (text)"
    )
    common.add_argument(
        "--settings", type=Path, metavar="FILE", help=f"the settings file ({DEFAULT_PATH})"
    )
    common.add_argument(
        "--set", action="append", metavar="SECTION.KEY=VALUE", help="override one setting"
    )
    common.add_argument(
        "--as-operator", type=Path, metavar="FILE",
        help="ask etcd with the credentials in [etcd] of FILE (hosts.sh: operator.toml)",
    )  # fmt: skip
    common.add_argument("--socket", type=Path, metavar="FILE", help="the agent's control socket")
    common.add_argument("--timeout", type=seconds, metavar="TIME", help="wait at most this long")
    return common


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; ``verb`` is None when there is none.

    A verb at the beginning gets a parser of its own, since building all of them takes longer than
    many an answer. What that parser does not accept is parsed again with all verbs.

    Raises:
        UsageError: The command line is wrong; the hint names the nearest valid one.
    """
    for verb in VERBS:
        if tuple(argv[: len(verb.words)]) == verb.words:
            try:
                return _parsed(build_parser((verb,)), argv)
            except UsageError:
                break
    return _parsed(build_parser(), argv)


def _parsed(parser: _Parser, argv: Sequence[str]) -> argparse.Namespace:
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.parser.refuse(unknown[0])
    return args


def build_parser(known: Sequence[Verb] = VERBS) -> _Parser:
    """Build the parser of these verbs; the result's ``verb`` is None when none was given."""
    # Each parser gets common arguments of its own: with shared ones the defaults below would
    # become the verbs' too, and undo what was given before the verb.
    top = _Parser(
        prog="agentctl",
        description="Inspect and control Hostmesh on this host.",
        epilog="Exit statuses: docs/exit-status.md. Every verb: agentctl VERB --help.",
        parents=[_common()],
    )
    top.set_defaults(
        verb=None, parser=top, output="text", settings=DEFAULT_PATH, set=[], socket=None,
        timeout=None,
        as_operator=None,
    )  # fmt: skip
    # Given prog, argparse need not format the usage for it.
    how: dict[str, Any] = {"metavar": "VERB", "title": "verbs", "parser_class": _Parser}
    verbs = top.add_subparsers(prog=top.prog, **how)
    groups: dict[str, Any] = {}
    for verb in known:
        place: Any = verbs
        if len(verb.words) > 1:
            name = verb.words[0]
            if name not in groups:
                summary = GROUPS[name]
                group = verbs.add_parser(name, help=summary, description=_sentence(summary))
                groups[name] = group.add_subparsers(prog=group.prog, required=True, **how)
            place = groups[name]
        listed = {} if verb.hidden else {"help": verb.summary}
        parser = place.add_parser(
            verb.words[-1], **listed, description=_sentence(verb.summary), parents=[_common()]
        )
        for argument in verb.arguments:
            _add(parser, argument)
        parser.set_defaults(verb=verb, parser=parser)
    return top


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _add(parser: _Parser, argument: Argument) -> None:
    """Add one argument of a verb."""
    name, form = argument.name, argument.form
    how: dict[str, Any] = {"help": argument.help}
    if not name.startswith("-"):
        form = form or name.strip("[]")
        name, how["nargs"] = argument.field, "?" if argument.name.startswith("[") else None
    if form.endswith("…"):
        how |= {"metavar": form.removesuffix("…"), "action": "append"}
    elif "|" in form:
        how["choices"] = form.split("|")
    elif form:
        how |= {"metavar": form, "type": _CONVERT.get(form, str)}
    else:
        how["action"] = "store_true"
    parser.add_argument(name, **how)
