"""Map names of Docker and hosts to labels of DNS, such that two names never share one. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

from agent.model.mesh import HostId

__all__ = ["host_label", "label_of", "labels_of"]

_LONGEST: Final = 63
_DIGITS: Final = 6
_NOT_IN_LABELS: Final = re.compile(r"[^a-z0-9-]")
_ENDS_IN_ID: Final = re.compile(r"-([0-9a-f]{32})\Z")


def label_of(name: str) -> str:
    """Return a name as a label: lower case, every other character a hyphen; "" if none is left.

    A label that would be too long ends in digits of the name's hash.
    """
    label = _NOT_IN_LABELS.sub("-", name.lower()).strip("-")
    return label if len(label) <= _LONGEST else _with(label, _hashed(name))


def _with(label: str, digits: str) -> str:
    return f"{label[: _LONGEST - 1 - len(digits)].rstrip('-')}-{digits}"


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()[:_DIGITS]


def labels_of(names: Iterable[str]) -> Mapping[str, str]:
    """Return the label of each name of one scope; a name without one is left out.

    A name that is a label has it. Of others that map to one label the first in order has it, and
    each of the rest gets digits of its hash at the end.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names), key=lambda each: (label_of(each) != each, each)):
        label = label_of(name)
        free = (each for each in (label, _with(label, _hashed(name))) if each not in taken)
        chosen = next(free, "") if label else ""
        if chosen:
            found[name] = chosen
            taken.add(chosen)
    return found


def host_label(name: str, host_id: HostId, *, shared: bool) -> str:
    """Return the label of a host, which no other host has.

    Args:
        shared: The name's label is reserved, or an older host has it. Then this host's id is at
            the end.
    """
    label = label_of(name)
    if not label:
        return host_id
    forged = _ENDS_IN_ID.search(label)  # such a label is for the host with that id
    return _with(label, host_id) if shared or forged else label
