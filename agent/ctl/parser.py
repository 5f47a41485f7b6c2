"""Parse agentctl's command line; suggest the nearest valid name for a mistake."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from agent import __version__
from agent.ctl.verbtable import GROUPS, SECTIONS, VERBS, Argument, Verb, moment, seconds
from agent.errors import UsageError
from agent.settings.place import DEFAULT_PATH, named_file
from agent.settings.text import nearest, shown, whole_number

__all__ = ["build_parser", "parse", "parser_of"]

_COLUMNS = 80  # where there is no terminal
_HELP_AT = 28
_VERB_AT = 20
_CONVERT: dict[str, Any] = {"TIME": seconds, "WHEN": moment, "FILE": Path}
_PROGRAM = "agentctl"
_FORMS = {"--json": "JSON", "--yaml": "YAML", "--wide": "more columns"}
_COMMON_FORMS = ("text", "wide", "json", "yaml")


class _Formatter(argparse.HelpFormatter):
    """argparse makes one for each argument, and would import shutil for the width (5 ms)."""

    def __init__(self, prog: str, help_at: int = _HELP_AT) -> None:
        super().__init__(prog, max_help_position=help_at, width=_columns() - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Name the value once: "-o, --output FORM"."""
        value = action.metavar if action.option_strings and action.nargs != 0 else None
        found = ", ".join(action.option_strings) or super()._format_action_invocation(action)
        return f"{found} {value}" if value else found

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap each line on its own; leave indented ones, which are examples, whole."""
        fill = super()._fill_text
        lines = text.splitlines()
        return "\n".join(each if each[:1] == " " else fill(each, width, indent) for each in lines)


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
    """Raises UsageError with a suggestion instead of printing the usage.

    Attributes:
        verbs: Parsers of the verbs below this one.
    """

    def __init__(self, **how: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(**{"formatter_class": _Formatter, "allow_abbrev": False, **how})
        self.verbs: dict[str, _Parser] = {}
        self._add_below: Any = None
        self._positionals.title = "arguments"

    def below(self, name: str, **how: Any) -> _Parser:  # noqa: ANN401 - argparse's
        """Return the parser of the verb or group ``name`` below this one; make it if need be."""
        if self._add_below is None:
            # Given prog, argparse need not format the usage for it.
            self._add_below = self.add_subparsers(
                prog=self.prog, required=self.prog != _PROGRAM, metavar="VERB", title="verbs",
                parser_class=_Parser,
            ).add_parser  # fmt: skip
        if name not in self.verbs:
            self.verbs[name] = self._add_below(name, **how)
        return self.verbs[name]

    @property
    def _verb(self) -> str:
        return self.prog.removeprefix(_PROGRAM).strip()

    def format_help(self) -> str:
        """Return the help; with verbs below, grouped by what a person wants to do."""
        if not self.verbs:
            return super().format_help()
        head, tail = _Formatter(self.prog, _VERB_AT), _Formatter(self.prog)
        head.add_usage(f"{self.prog} VERB [ARGUMENT]... [OPTION]...", (), ())
        head.add_text(self.description)
        for title, verbs in SECTIONS:
            head.start_section(title)
            shown_ones = (each for each in verbs if not each.hidden)
            head.add_arguments(map(_line, filter(self._has, shown_ones)))
            head.end_section()
        for group in self._action_groups:
            if group is not self._subparsers:
                tail.start_section(group.title)
                tail.add_arguments(group._group_actions)  # noqa: SLF001 - argparse has no other way
                tail.end_section()
        tail.add_text(self.epilog)
        return f"{head.format_help()}\n{tail.format_help()}"

    def _has(self, verb: Verb) -> bool:
        return f"{_PROGRAM} {verb.name}".startswith(f"{self.prog} ")

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` with a hint."""
        choice = re.search(
            r"argument (.*): invalid choice: '?([^'\s]*)'? \(choose from (.*)\)", message
        )
        if choice is None:
            raise UsageError(self._plain(message), hint=f"{self.prog} --help")
        if choice[1] == "VERB":
            raise _unknown_verb(choice[2], re.findall(r"[a-z][a-z-]*", choice[3]))
        known = re.findall(r"[a-z][a-z-]*", choice[3])
        text = f"unknown value for {choice[1]}: {shown(choice[2])}"
        raise UsageError(text, hint=_nearest(choice[2], known))

    def _plain(self, message: str) -> str:
        """Return a message of argparse in the words of our errors."""
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            return f"{self._verb} needs {missing.replace('VERB', 'a verb')}"
        message = message.removeprefix("argument ")
        message = message.replace(": expected one argument", " needs a value")
        return re.sub(r": ignored explicit argument .*", " takes no value", message)

    def refuse(self, unknown: str) -> NoReturn:
        """Raise UsageError for an argument that this verb does not take."""
        where = f" for {self._verb}" if self._verb else ""
        if not unknown.startswith("-"):
            hint = f"{self.prog} --help"
            raise UsageError(f"unexpected argument {shown(unknown)}{where}", hint=hint)
        option = unknown.partition("=")[0]
        known = [each for each in self._option_string_actions if each.startswith("--")]
        short = [each for each in known if each[1:].startswith(option)]
        if option in _FORMS:
            hint = f"for {_FORMS[option]} use -o {option.removeprefix('--')}"
        elif option in self._option_string_actions:
            hint = f"write it after the verb: {self.prog} {option}"
        else:
            hint = f"did you mean {short[0]}?" if len(short) == 1 else _nearest(option, known)
        option = option if re.fullmatch(r"[a-z-]{2,40}", option) else shown(option)
        raise UsageError(f"unknown option {option}{where}", hint=hint)


def _line(verb: Verb) -> argparse.Action:
    """Return a verb in the form that argparse's formatter lays out."""
    return argparse.Action([], dest=verb.name, metavar=verb.name, help=verb.summary)


def _unknown_verb(name: str, known: Iterable[str]) -> UsageError:
    hidden = {verb.name for verb in VERBS if verb.hidden}
    return UsageError(f"unknown verb {shown(name)}", hint=_nearest(name, {*known} - hidden))


def _nearest(wrong: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = nearest(wrong, names)
    return f"did you mean {near}?" if near else "known: " + ", ".join(names)


def _common(
    timeout_s: float | None = None,
    forms: tuple[str, ...] = _COMMON_FORMS,
) -> _Parser:
    """Return the arguments that every verb takes, before or after it.

    Args:
        timeout_s: The verb's own timeout.
        forms: Of -o, for the help; :func:`_parsed` checks it once the verb is known.
    """
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    add = common.add_argument_group("options of every verb, before or after it").add_argument
    add(
        "-o", "--output", metavar="|".join(forms),
        help="form of the answer (text)",
    )  # fmt: skip
    add("--settings", type=named_file, metavar="FILE", help=f"the settings file ({DEFAULT_PATH})")
    add("--set", action="append", metavar="SECTION.KEY=VALUE", help="override one setting")
    add(
        "--as-operator", type=named_file, metavar="FILE",
        help="ask etcd with the credentials in [etcd] of FILE (hosts.sh: operator.toml)",
    )  # fmt: skip
    add("--socket", type=Path, metavar="FILE", help="the agent's control socket")
    usual = "" if timeout_s is None else f" ({timeout_s:g}s)"
    add("--timeout", type=seconds, metavar="TIME", help=f"wait at most this long{usual}")
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
    forms = _forms_of(args.verb)
    if args.output not in forms:
        known = ", ".join(forms)
        args.parser.error(
            f"argument -o/--output: invalid choice: {args.output!r} (choose from {known})"
        )
    return args


def _forms_of(verb: Verb | None) -> tuple[str, ...]:
    return (*_COMMON_FORMS, *(verb.forms if verb else ()))


def parser_of(words: Sequence[str]) -> _Parser:
    """Return the parser of a verb or of a group of verbs; of agentctl for no word.

    Raises:
        UsageError: There is none of that name.
    """
    parser = build_parser()
    for word in words:
        if word not in parser.verbs:
            raise _unknown_verb(" ".join(words), (verb.name for verb in VERBS))
        parser = parser.verbs[word]
    return parser


def build_parser(known: Sequence[Verb] = VERBS) -> _Parser:
    """Build the parser of these verbs; the result's ``verb`` is None when none was given."""
    # Each parser gets common arguments of its own: with shared ones the defaults below would
    # become the verbs' too, and undo what was given before the verb.
    top = _Parser(
        prog=_PROGRAM,
        description="Inspect and control Hostmesh on this host.",
        epilog=f"A verb's arguments and examples: {_PROGRAM} help VERB. Exit statuses: 0 is done or"
        " yes; every other number is in agentctl(1) and docs/exit-status.md.",
        parents=[_common()],
    )
    top.add_argument(
        "--version", action="version", version=f"{_PROGRAM} {__version__}",
        help="show agentctl's version and exit",
    )  # fmt: skip
    top.set_defaults(
        verb=None, parser=top, output="text", settings=DEFAULT_PATH, set=[], socket=None,
        timeout=None,
        as_operator=None,
    )  # fmt: skip
    for verb in known:
        parser: _Parser = top
        for name in verb.words[:-1]:
            about = GROUPS[name]
            parser = parser.below(name, help=about, description=_sentence(about))
        listed = {} if verb.hidden else {"help": verb.summary}
        _fill(
            parser.below(
                verb.words[-1], parents=[_common(verb.timeout_s, _forms_of(verb))], **listed
            ),
            verb,
        )
    return top


def _fill(parser: _Parser, verb: Verb) -> None:
    """Give a verb's parser its arguments and its help."""
    for argument in verb.arguments:
        _add(parser, argument)
    places = filter(None, (each.place for each in verb.arguments))
    parser.usage = " ".join([parser.prog, *places, "[OPTION]..."])
    parser.description = "\n".join(filter(None, (_sentence(verb.summary), verb.note)))
    parser.epilog = "\n".join(["examples:", *(f"  {each}" for each in verb.examples)])
    parser.set_defaults(verb=verb, parser=parser)


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."


def _add(parser: _Parser, argument: Argument) -> None:
    """Add one argument of a verb."""
    name, value, many = argument.name, argument.value, argument.form.endswith("…")
    how: dict[str, Any] = {"help": argument.help}
    if not name.startswith("-"):
        optional = "*" if many else "?"
        name, how["nargs"] = argument.field, optional if argument.name.startswith("[") else None
    elif many:
        how["action"] = "append"
    if "|" in value:
        how["choices"] = value.split("|")
        how["metavar"] = value if name.startswith("-") else None
    elif value:
        how |= {"metavar": value, "type": _CONVERT.get(value, str)}
    else:
        how["action"] = "store_true"
    parser.add_argument(name, **how)
