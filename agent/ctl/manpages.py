"""Man pages, made of what --help prints: ``python -m agent.ctl.manpages FOLDER``.

Writes ``agentctl.1`` and one page for each of :data:`PROGRAMS`. Packages run it when they are
built.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import __version__, errors
from agent.ctl.parser import build_parser
from agent.ctl.verbtable import SECTIONS, Verb

__all__ = ["PROGRAMS", "Program", "agentctl_page", "main", "program_page"]

_FILES = (
    ("/etc/hostmesh/agent.toml", "Settings; every key is in docs/settings.md."),
    ("/run/hostmesh/agent.sock", "The agent's control socket: HTTP with JSON."),
    ("/var/lib/hostmesh", "What the agent must remember over reboots."),
)
_AGENTCTL = """\
asks the hostmesh-agent of this host over its control socket. Where no agent answers, it reads \
what it can from etcd, the kernel and the agent's files, and says so on standard error.
Colours are used on a terminal only and never when NO_COLOR is set. Names that come from other \
hosts are shown with everything escaped that a terminal might obey."""


@dataclass(frozen=True)
class Program:
    """A program with a page that is made of its parser.

    Attributes:
        name: As it is typed.
        section: Of the manual.
        module: Has a function ``parser``; imported only when the page is made.
        summary: For the line NAME.
        about: Continues the sentence that the name begins.
        see: The page to see first, in roff.
    """

    name: str
    section: str
    module: str
    summary: str
    about: str
    see: str


PROGRAMS = (
    Program(
        "hostmesh-agent",
        "8",
        "agent.main",
        "Route containers between plain Docker hosts.",
        "leases a subnet from etcd, gives it to Docker, and keeps routes and firewall as the leases"
        " of all hosts say they should be. When it stops the data path stays as it is.",
        "agentctl (1)",
    ),
    Program(
        "hostmesh-dns",
        "8",
        "agent.dns.main",
        "Answer names of the mesh for this host's containers.",
        "answers from a snapshot that the agent writes, and forwards all other names to the host's"
        " own name servers. systemd starts it; each host has two.",
        "hostmesh\\-agent (8)",
    ),
    Program(
        "hostmesh-deploy",
        "1",
        "agent.deploy.parser",
        "Make a mesh of hosts that ssh reaches, and keep it.",
        "looks at every host, says what it will do, asks, and runs Ansible. A run that was cut off"
        " is completed by the same command.",
        "agentctl (1)",
    ),
)


def agentctl_page() -> str:
    """Return agentctl(1) as roff."""
    parser = build_parser(())
    lines = _head("agentctl", "1", parser.description or "", "VERB [ARGUMENT]... [OPTION]...")
    lines += [*_paragraphs(_AGENTCTL), ".SH OPTIONS"]
    lines += ["Every verb takes these, before or after it.", *_options(parser), ".SH VERBS"]
    for title, verbs in SECTIONS:
        lines += [".PP", f"\\fB{_roff(title)}\\fP"]
        for verb in verbs:
            lines += [] if verb.hidden else _verb(verb)
    return "\n".join([*lines, *_tail("hostmesh\\-agent (8)")]) + "\n"


def program_page(program: Program) -> str:
    """Return the program's page as roff."""
    parser = importlib.import_module(program.module).parser()
    lines = _head(program.name, program.section, program.summary, "[OPTION]...")
    lines += [*_paragraphs(program.about), ".SH OPTIONS", *_options(parser), *_commands(parser)]
    return "\n".join([*lines, *_tail(program.see)]) + "\n"


def _head(name: str, section: str, summary: str, synopsis: str) -> list[str]:
    return [
        f'.TH {_roff(name.upper())} {section} "" "Hostmesh {__version__}" "Hostmesh"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(summary[0].lower() + summary[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_roff(name)}",
        _roff(synopsis),
        ".SH DESCRIPTION",
        f".B {_roff(name)}",
    ]


def _tail(other: str) -> Iterator[str]:
    """Yield exit statuses, from the error tree; files; other pages."""
    yield ".SH EXIT STATUS"
    meanings: dict[int, list[str]] = {0: ["Done, or the answer is yes."]}
    for name in errors.__all__:
        cls = getattr(errors, name)
        summary = (cls.__doc__ or "").partition("\n")[0].strip().replace("``", "")
        meanings.setdefault(cls.exit_code, []).append(summary)
    meanings[1] = ["Done in part, a difference was found, or a failure without its own number."]
    for code in sorted(meanings):
        yield from _item(f"\\fB{code}\\fP", " ".join(meanings[code]))
    yield ".SH FILES"
    for path, content in _FILES:
        yield from _item(f"\\fI{_roff(path)}\\fP", content)
    yield from (".SH SEE ALSO", f".BR {other},", ".BR docker (1),", ".BR ip\\-route (8)")


def _verb(verb: Verb) -> Iterator[str]:
    words, items = [_roff(verb.name)], list[str]()
    for each in verb.arguments:
        if each.place:
            words.append(_roff(each.place).replace(each.value, f"\\fI{_roff(each.value)}\\fP"))
        flags = () if each.place else (each.name,)
        items += _item(_term(flags, each.value), _sentence(each.help))
    yield f'.SS "{" ".join(words)}"'
    yield _roff(" ".join(filter(None, (_sentence(verb.summary), verb.note))))
    yield from items
    yield from (".PP", "Examples:", ".nf", *(f"    {_roff(each)}" for each in verb.examples), ".fi")


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way
        if action.option_strings:
            form = action.metavar or action.dest.upper()
            value = "" if action.nargs == 0 else str(form)
            text = (action.help or "").replace("%%", "%")
            yield from _item(_term(action.option_strings, value), _sentence(text))


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            yield ".SH COMMANDS"
            for name, command in action.choices.items():
                usage = command.format_usage().partition(f" {name} ")[2]
                yield from _item(_term((name,), " ".join(usage.split())), command.description or "")


def _term(flags: Sequence[str], value: str) -> str:
    bold = ", ".join(f"\\fB{_roff(flag)}\\fP" for flag in flags)
    return f"{bold} \\fI{_roff(value)}\\fP".strip() if value else bold


def _item(term: str, text: str) -> tuple[str, str, str]:
    return ".TP", term, _roff(text)


def _paragraphs(texts: str) -> list[str]:
    return _roff(texts).replace("\n", "\n.PP\n").splitlines()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def _roff(text: str) -> str:
    """Escape what roff would obey: backslashes, hyphens that must stay, a control at the start."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


def main(argv: list[str]) -> int:
    """Write the pages to the folder in ``argv``."""
    if len(argv) != 1:
        print("usage: python -m agent.ctl.manpages FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agentctl.1").write_text(agentctl_page(), encoding="utf-8")
    for each in PROGRAMS:
        page = folder / f"{each.name}.{each.section}"
        page.write_text(program_page(each), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
