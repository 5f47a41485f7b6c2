"""Only agent/model/family.py knows what differs between IPv4 and IPv6."""

from __future__ import annotations

import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.unit

AGENT: Final = Path(__file__).parents[3] / "agent"

KNOWLEDGE: Final = re.compile(
    r"\bIPv[46](Address|Network|Interface)\b"  # a value's class: use a Family, or read_network
    r"|\bAF_INET6?\b|\binet_(aton|ntoa|pton|ntop)\b"
    r"|\b(32|128) -|- (32|128)\b|<< (32|128)\b|\*\* (32|128)\b|\b0x[fF]{8}\b"
    r"|\bip6tables\b|[\"']inet6?[\"']"
)

ALLOWED: Final = {
    "dns/admission.py": "an interface's first IPv4 address (netdevice(7))",
    "docker/daemonjson/flags.py": "dockerd's own flag --ip6tables",
    "docker/daemonjson/known_keys.py": "daemon.json's own key ip6tables",
    "docker/attach/detach.py": "/proc/net/route is the IPv4 table",
    "kernel/liveness/arp.py": "ARP is IPv4's",
    "kernel/diagnose/frames.py": "reads IPv4 headers (RFC 791)",
    "kernel/firewall/advice/nft_chains.py": "nft's own name of tables of both families",
    "kernel/liveness/icmp.py": "ICMPv4 (RFC 792)",
    "kernel/liveness/probe_channel.py": "ARP and ICMPv4",
    "kernel/diagnose/ping.py": "ICMPv4",
    "kernel/diagnose/sweep.py": "ICMPv4",
    "kernel/diagnose/tunnel_probe.py": "ICMPv4",
    "kernel/diagnose/source_filter.py": "ARP and ICMPv4 frames",
    "model/family.py": "here it belongs",
    "settings/sections.py": "a routing table's number has 32 bits",
}
"""Files that may, with the reason."""


def _code(source: str) -> dict[int, str]:
    """Return the tokens of each line, without comments and docstrings."""
    lines: defaultdict[int, list[str]] = defaultdict(list)
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        begins = before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if not (token.type == tokenize.STRING and begins):
            lines[token.start[0]].append(token.string)
        before = token.type
    return {number: " ".join(parts) for number, parts in lines.items()}


def _found(path: Path) -> list[str]:
    code = _code(path.read_text(encoding="utf-8"))
    return [f"{path}:{number}: {line}" for number, line in code.items() if KNOWLEDGE.search(line)]


def test_no_other_module_knows_a_family() -> None:
    found = [
        each
        for path in sorted(AGENT.rglob("*.py"))
        if str(path.relative_to(AGENT)) not in ALLOWED
        for each in _found(path)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", ALLOWED)
def test_an_exception_that_is_listed_is_needed(name: str) -> None:
    assert _found(AGENT / name)


@pytest.mark.parametrize(
    "line",
    [
        "size = 1 << (32 - length)",
        "last = first | 0xFFFFFFFF",
        "found = IPv4Network(text)",
        "link = socket.socket(socket.AF_INET, socket.SOCK_RAW)",
        'run(("ip6tables", "-S"))',
        'attribute = "inet"',
        "everything = 1 << 128",
    ],
)
def test_knowledge_is_recognised(line: str) -> None:
    assert any(map(KNOWLEDGE.search, _code(f'"""Docstring of IPv4Network."""\n{line}\n').values()))
    assert not any(map(KNOWLEDGE.search, _code(f'"""{line!r}"""\nx = 1  # {line}\n').values()))
