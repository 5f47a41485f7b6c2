"""Completion scripts for bash, zsh and fish, made by shtab of the parser that prints --help.

``agentctl completion SHELL`` prints one; ``python -m agent.ctl.completions FOLDER`` writes all
three when a package is built. For the name of a host the script runs ``agentctl complete-hosts``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

from agent.ctl.parser import build_parser
from agent.ctl.verbtable import VERBS

__all__ = ["FILES", "main", "script"]

FILES = {"bash": "agentctl.bash", "zsh": "_agentctl", "fish": "agentctl.fish"}
"""The file of each shell's script."""

_HOST_ARGUMENTS = frozenset({"HOST", "PEER", "SRC", "DST"})
_NAMES = "$(agentctl complete-hosts 2>/dev/null)"
_FUNCTION = "_agentctl_hosts"
_PREAMBLE = {
    "bash": f'{_FUNCTION}() {{ compgen -W "{_NAMES}" -- "$1"; }}',
    "zsh": f'{_FUNCTION}() {{ local -a names; names=(${{(f)"{_NAMES}"}}); compadd -a names; }}',
    "fish": "",
}
_HOSTS = {"bash": _FUNCTION, "zsh": _FUNCTION, "fish": _NAMES.removeprefix("$")}


def script(shell: str) -> str:
    """Return the script of one shell of FILES."""
    parser = build_parser()
    names = list(dict.fromkeys(verb.words[0] for verb in VERBS if not verb.hidden))
    for action in _actions(parser):
        if action.metavar in _HOST_ARGUMENTS:
            action.complete = _HOSTS
        elif action.metavar == "FILE":
            action.complete = shtab.FILE
        elif action.metavar == "VERB" and not action.choices:
            action.choices = names
        elif action.dest == "output":
            action.choices = action.metavar.split("|")
    found: str = shtab.complete(parser, shell=shell, preamble=_PREAMBLE[shell])
    return found


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Yield every argument of a parser and of its verbs."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            for verb in action.choices.values():
                yield from _actions(verb)


def main(argv: list[str]) -> int:
    """Write the scripts to the folder in ``argv``."""
    if len(argv) != 1:
        print("usage: python -m agent.ctl.completions FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    for shell, name in FILES.items():
        (folder / name).write_text(script(shell), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
