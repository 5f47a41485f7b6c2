"""Man pages, made of the parsers that --help prints: ``python -m agent.ctl.manpages FOLDER``.

Writes ``agentctl.1`` and ``hostmesh-agent.8``. Packages run it when they are built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent import __version__
from agent.ctl.surface import Argument, Command, commands, of_parser

__all__ = ["agent_page", "agentctl_page", "main"]

_FILES = (
    ("/etc/hostmesh/agent.toml", "Settings; every key is in docs/settings.md."),
    ("/run/hostmesh/agent.sock", "The agent's control socket: HTTP with JSON."),
    ("/var/lib/hostmesh", "What the agent must remember over reboots."),
)
_AGENTCTL_TEXT = """\
asks the hostmesh-agent of this host over its control socket. Where no agent answers, what can \
be told is read from etcd, the kernel and the host's own copy of the mesh, and standard error \
says so.
Colours are used on a terminal only and never when NO_COLOR is set. Names that come from other \
hosts are shown with everything escaped that a terminal might obey."""
_AGENT_TEXT = """\
leases a subnet from etcd, gives it to Docker, and keeps routes and firewall as the leases of \
all hosts say they should be. When it stops the data path stays as it is."""


def agentctl_page() -> str:
    """agentctl(1) as roff."""
    top, *verbs = commands()
    lines = [*_head("agentctl", "1", "ask and steer the Hostmesh agent of this host")]
    lines += [".SH SYNOPSIS", ".B agentctl", _roff("VERB [ARGUMENT]... [OPTION]...")]
    lines += [".SH DESCRIPTION", ".B agentctl", *_paragraphs(_AGENTCTL_TEXT)]
    lines += [".SH OPTIONS", "Every verb takes these, before or after it.", *_options(top.options)]
    lines.append(".SH VERBS")
    common = {each.flags for each in top.options}
    for verb in verbs:
        lines += _verb(verb, common)
    lines += [".SH EXIT STATUS", *_statuses(), *_tail("hostmesh\\-agent (8)")]
    return "\n".join(lines) + "\n"


def agent_page() -> str:
    """hostmesh-agent(8) as roff."""
    from agent.main import parser  # noqa: PLC0415 - the daemon's own command line

    command = of_parser(parser(), (), "")
    lines = [*_head("hostmesh-agent", "8", "route containers between plain Docker hosts")]
    lines += [".SH SYNOPSIS", ".B hostmesh\\-agent", _roff("[OPTION]...")]
    lines += [".SH DESCRIPTION", ".B hostmesh\\-agent", *_paragraphs(_AGENT_TEXT)]
    lines += [".SH OPTIONS", *_options(command.options)]
    lines += [".SH EXIT STATUS", *_statuses(), *_tail("agentctl (1)")]
    return "\n".join(lines) + "\n"


def _head(name: str, section: str, summary: str) -> list[str]:
    return [
        f'.TH {_roff(name.upper())} {section} "" "Hostmesh {__version__}" "Hostmesh"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(summary)}",
    ]


def _tail(other: str) -> list[str]:
    lines = [".SH FILES"]
    for path, what in _FILES:
        lines += [".TP", f".I {_roff(path)}", _roff(what)]
    return [*lines, ".SH SEE ALSO", f".BR {other},", ".BR docker (1),", ".BR ip\\-route (8)"]


def _verb(verb: Command, common: set[tuple[str, ...]]) -> Iterator[str]:
    words = [_roff(" ".join(verb.words))]
    for each in verb.positionals:
        value = f"\\fI{_roff(each.value)}\\fP"
        words.append(f"[{value}]" if each.optional else value)
    yield f'.SS "{" ".join(words)}"'
    yield _roff(_sentence(verb.summary))
    own = [each for each in verb.options if each.flags not in common]
    yield from _options([*verb.positionals, *own])


def _options(arguments: Iterable[Argument]) -> Iterator[str]:
    for each in arguments:
        flags = ", ".join(f"\\fB{_roff(flag)}\\fP" for flag in each.flags)
        value = f"\\fI{_roff(each.value)}\\fP" if each.value else ""
        yield ".TP"
        yield " ".join(part for part in (flags, value) if part)
        yield _roff(_sentence(each.help))


def _statuses() -> Iterator[str]:
    """Every error's exit status from the error tree itself."""
    from agent import errors  # noqa: PLC0415 - only this page needs the tree

    told: dict[int, list[str]] = {0: ["Done, or the answer is yes."]}
    for name in errors.__all__:
        cls = getattr(errors, name)
        summary = (cls.__doc__ or "").partition("\n")[0].strip()
        told.setdefault(cls.exit_code, []).append(summary)
    told[1] = ["Done in part, a difference was found, or a failure without a number of its own."]
    for code in sorted(told):
        yield ".TP"
        yield f"\\fB{code}\\fP"
        yield _roff(" ".join(told[code]).replace("``", ""))


def _paragraphs(texts: str) -> Iterator[str]:
    for number, text in enumerate(texts.splitlines()):
        if number:
            yield ".PP"
        yield _roff(text)


def _sentence(text: str) -> str:
    text = text.strip()
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
    (folder / "hostmesh-agent.8").write_text(agent_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
