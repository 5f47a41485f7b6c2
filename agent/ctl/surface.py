"""agentctl's command line as plain values, read from the parser that --help prints.

Man pages and completions are made of these, so that neither can say anything else than
``agentctl --help`` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from agent.ctl.parser import build_parser
from agent.ctl.verbtable import VERBS

__all__ = ["Argument", "Command", "commands", "of_parser"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One option or one word after the verb.

    Attributes:
        flags: ("-o", "--output"); empty for a word.
        value: What is to be given, such as "FILE"; "" for a flag without a value.
        choices: The values that may be given, when they are few.
        optional: A word that may be left out.
    """

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One verb, or the program itself (``words`` empty)."""

    words: tuple[str, ...]
    summary: str
    options: tuple[Argument, ...]
    positionals: tuple[Argument, ...]


def commands() -> tuple[Command, ...]:
    """The program itself first, then every verb in the order of --help."""
    parser = build_parser()
    found = [of_parser(parser, (), parser.description or "")]
    by_words = dict(_walk(parser, ()))
    found.extend(
        of_parser(by_words[verb.words], verb.words, verb.summary)
        for verb in VERBS
        if not verb.hidden
    )
    return tuple(found)


def of_parser(parser: argparse.ArgumentParser, words: tuple[str, ...], summary: str) -> Command:
    """What ``parser`` takes; subcommands are commands of their own."""
    options: list[Argument] = []
    positionals: list[Argument] = []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            continue
        argument = _argument(action)
        (options if argument.flags else positionals).append(argument)
    return Command(
        words=words, summary=summary, options=tuple(options), positionals=tuple(positionals)
    )


def _argument(action: argparse.Action) -> Argument:
    choices = tuple(str(each) for each in action.choices or ())
    value = ""
    if action.nargs != 0:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        value = metavar or ("|".join(choices) if choices else action.dest.upper())
    return Argument(
        flags=tuple(action.option_strings),
        value=value,
        choices=choices,
        help=(action.help or "").replace("%%", "%"),
        optional=action.nargs in ("?", "*"),
    )


def _walk(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for name, child in action.choices.items():
                yield (*words, name), child
                yield from _walk(child, (*words, name))
