"""List names with the places they lead to, and which of equal names are shadowed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.model import HostId
from agent.model.names import NAME_RANK, HostNames, NamedAddress, NameKind

__all__ = ["ListedName", "listed_names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedName:
    """A name of one kind.

    Attributes:
        text: Without the mesh's domain.
        places: Hosts and addresses that have it.
        shadowed_by: The kind of the equal name that answers instead; None: this one does.
    """

    text: str
    kind: NameKind
    places: tuple[tuple[HostId, NamedAddress], ...]
    shadowed_by: NameKind | None = None


def listed_names(hosts: Iterable[HostNames]) -> tuple[ListedName, ...]:
    """Return every name under the domain, in order; those of one label are left out."""
    found: dict[str, dict[NameKind, list[tuple[HostId, NamedAddress]]]] = {}
    for host in hosts:
        for address in host.addresses:
            for name in address.names:
                if name.kind is not NameKind.PLAIN:
                    kinds = found.setdefault(name.text, {})
                    kinds.setdefault(name.kind, []).append((host.host_id, address))
    listed = []
    for text, kinds in sorted(found.items()):
        first, *others = sorted(kinds, key=NAME_RANK.__getitem__)
        listed.append(ListedName(text=text, kind=first, places=tuple(kinds[first])))
        listed += (
            ListedName(text=text, kind=each, places=tuple(kinds[each]), shadowed_by=first)
            for each in others
        )
    return tuple(listed)
