"""Domains: of the mesh's names, and those that a host's resolver searches (resolv.conf(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DEFAULT_DOMAIN",
    "LABEL",
    "LONGEST_DOMAIN",
    "MOST_BYTES",
    "ResolvConf",
    "parse_domain",
    "parse_names",
    "parse_resolv_conf",
]

DEFAULT_DOMAIN: Final = "hostmesh.internal"
"""ICANN reserved ``internal`` for private use in 2024."""

LONGEST_DOMAIN: Final = 120
"""Leaves place for two labels of 63 octets in a name of 253 (RFC 1035, 2.3.4)."""

MOST_BYTES: Final = 64 * 1024
"""Of a resolv.conf: what is behind is not read."""

LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""Pattern of a host name's label in lower case (RFC 1123, 2.1)."""

_MOST_SEARCHED: Final = 6
"""glibc before 2.26 searches no more."""
_DOMAIN: Final = re.compile(rf"{LABEL}(?:\.{LABEL})*")


def parse_domain(text: str) -> str:
    """Return a domain in lower case, without a dot at the end.

    Raises:
        ValueError: It is none; the reason is fit to be shown.
    """
    domain = text.lower().removesuffix(".")
    if len(domain) > LONGEST_DOMAIN or not _DOMAIN.fullmatch(domain):
        raise ValueError(
            f"a domain has labels of letters, digits and hyphens, and at most {LONGEST_DOMAIN}"
            " characters"
        )
    return domain


def parse_names(text: str) -> str:
    """Return the domain that an operator wants for names: ``on``, ``off`` ("") or a domain.

    Raises:
        ValueError: As :func:`parse_domain`.
    """
    chosen = {"on": DEFAULT_DOMAIN, "off": ""}.get(text)
    return parse_domain(text) if chosen is None else chosen


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The settings of a resolver.

    Attributes:
        servers: Addresses as they are written, not checked.
        search: Domains in which short names are searched, in lower case.
    """

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf; what is no setting, or no domain, is passed over."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            servers.append(words[1])
        elif words and words[0] in {"search", "domain"}:  # the last such line counts
            search = tuple(dict.fromkeys(_domains(words[1:])))[:_MOST_SEARCHED]
    return ResolvConf(tuple(servers), search)


def _domains(words: list[str]) -> Iterator[str]:
    for word in words:
        try:
            yield parse_domain(word)
        except ValueError:
            continue
