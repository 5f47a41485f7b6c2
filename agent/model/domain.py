"""The domain under which containers and hosts of a mesh have names."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DEFAULT_DOMAIN", "LONGEST_DOMAIN", "parse_domain", "parse_names"]

DEFAULT_DOMAIN: Final = "hostmesh.internal"
"""ICANN reserved ``internal`` for private use in 2024."""

LONGEST_DOMAIN: Final = 120
"""Leaves place for two labels of 63 octets in a name of 253 (RFC 1035, 2.3.4)."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


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
