"""Which host an operator means: by id, name, address or subnet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from agent.errors import Refused
from agent.model import HostId, View, first_few
from agent.model.family import Address, Network, read_address
from agent.model.untrusted import HOST_ID
from agent.settings.text import nearest, shown

__all__ = ["HostRef", "find_host", "hosts_of", "meant"]

T = TypeVar("T")
_LEAST_OF_AN_ID = 4
_ALIKE = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRef:
    """A host that the mesh knows.

    Attributes:
        host_id: None for a flannel host, which has no identity but its address.
        names: All it can be called by: name, node address, subnets.
        subnets: The ranges of its containers.
    """

    host_id: HostId | None
    host_name: str = ""
    node_address: Address | None = None
    names: frozenset[str] = field(default=frozenset(), compare=False)
    subnets: frozenset[Network] = field(default=frozenset(), compare=False)

    def __str__(self) -> str:
        """As in a sentence: ``web1 (0123…) at 192.0.2.7``."""
        name = self.host_name or ("a flannel host" if self.host_id is None else "")
        found = f"{name} ({self.host_id})" if name and self.host_id else name or str(self.host_id)
        return f"{found} at {self.node_address}" if self.node_address else found


def hosts_of(view: View) -> tuple[HostRef, ...]:
    """Every host that some record names."""
    found: dict[str, HostRef] = {}

    def add(key: str, ref: HostRef) -> None:
        before = found.get(key)
        if before is not None:
            ref = HostRef(
                host_id=before.host_id,
                host_name=before.host_name or ref.host_name,
                node_address=before.node_address or ref.node_address,
                names=before.names | ref.names,
                subnets=before.subnets | ref.subnets,
            )
        found[key] = ref

    for lease in view.leases:
        names = frozenset({lease.host_name, str(lease.node_address), str(lease.subnet)})
        add(
            lease.host_id or f"flannel {lease.node_address}",
            HostRef(
                host_id=lease.host_id,
                host_name=lease.host_name,
                node_address=lease.node_address,
                names=names,
                subnets=frozenset({lease.subnet}),
            ),
        )
    for beat in view.heartbeats.values():
        address = beat.node_address
        names = frozenset({beat.host_name} | ({str(address)} if address else set()))
        ref = HostRef(
            host_id=beat.host_id, host_name=beat.host_name, node_address=address, names=names
        )
        add(beat.host_id, ref)
    for host_id in (*view.memory, *view.reservations.values()):
        add(host_id, HostRef(host_id=host_id))
    return tuple(found.values())


def meant(candidates: Iterable[T], text: str, host: Callable[[T], HostRef]) -> tuple[T, ...]:
    """Return the candidates whose host ``text`` can mean.

    An id or a name that fits exactly excludes starts of ids and addresses of containers.

    Args:
        host: Return the host of a candidate.
    """
    known = [(each, host(each)) for each in candidates]
    found = [each for each, ref in known if text and (text == ref.host_id or text in ref.names)]
    if not found:
        try:
            address = read_address(text)
        except ValueError:
            begins = text if len(text) >= _LEAST_OF_AN_ID else "-"
            found = [each for each, ref in known if (ref.host_id or "").startswith(begins)]
        else:
            found = [each for each, ref in known if any(address in net for net in ref.subnets)]
    return tuple(found)


def find_host(view: View, text: str, *, unknown: bool = False) -> HostRef:
    """Find the one host that ``text`` means, as :func:`meant` does.

    Args:
        view: Where to look.
        text: As the operator wrote it.
        unknown: A whole host id may also be one that no record names yet.

    Raises:
        Refused: No host is meant, or more than one; then with the candidates.
    """
    hosts = hosts_of(view)
    found = meant(hosts, text, lambda each: each)
    if len(found) == 1:
        return found[0]
    if not found and unknown and HOST_ID.fullmatch(text):
        return HostRef(host_id=HostId(text))
    if not found:
        near = _nearest(text, hosts)
        where = "agentctl leases -o wide shows names, addresses and ids"
        raise Refused(
            f"no host of the mesh is known as {shown(text)}",
            hint=f"did you mean {near}? {where}" if near else where,
        )
    raise Refused(
        f"{len(found)} hosts are known as {shown(text)}: {first_few(found, separator='; ')}",
        hint="name the one you mean by its id or its subnet",
    )


def _nearest(text: str, hosts: Iterable[HostRef]) -> str:
    """The name that was probably meant; of addresses only one that is nearly the same."""
    if any(char.isalpha() for char in text):
        return nearest(text, {each.host_name for each in hosts if each.host_name})
    return nearest(text, {name for each in hosts for name in each.names}, alike=_ALIKE)
