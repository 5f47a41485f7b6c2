"""The rule of which asker sees which address. Pure.

An asker sees an address that one of its networks may reach on some port. Docker keeps the
networks of one host apart; between hosts, a mesh network reaches itself, and other networks are
reached as their access says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.model.family import Address
from agent.model.mesh import Access, HostId
from agent.model.names import LocalNames, LocalNetwork, NamedAddress, NameKind

__all__ = ["HOST", "Asker", "asker_at"]


@dataclass(frozen=True, slots=True)
class Asker:
    """The sender of a query.

    Attributes:
        networks: The networks of this host that it is in.
        is_host: It is this host itself, which sees every address but those of closed networks of
            other hosts.
    """

    networks: tuple[LocalNetwork, ...] = ()
    is_host: bool = False

    @property
    def is_unknown(self) -> bool:
        """Return whether it is in a network that was made since this host's facts were written."""
        return not self.networks and not self.is_host

    def shares(self, publisher: HostId, here: HostId, address: NamedAddress) -> bool:
        """Return whether it is in the network that the address is in."""
        if publisher == here:
            return any(each.name == address.network for each in self.networks)
        wanted = address.mesh_network
        return bool(wanted) and any(each.mesh_network == wanted for each in self.networks)

    def sees(self, publisher: HostId, here: HostId, address: NamedAddress, kind: NameKind) -> bool:
        """Return whether a name of this kind leads it to this address.

        Args:
            publisher: The host that the address is at.
            here: This host.
        """
        if kind is NameKind.OWN or self.shares(publisher, here, address):
            return True
        if kind is NameKind.PLAIN:
            return False
        if self.is_host:
            return publisher == here or address.access is not Access.CLOSED
        if publisher == here or address.access is Access.CLOSED:
            return False
        return any(not each.internal and each.access is not Access.CLOSED for each in self.networks)


HOST = Asker(is_host=True)


def asker_at(local: LocalNames, address: Address) -> Asker:
    """Return the asker that has this address on this host; it may be in no known network."""
    names: Sequence[str] = local.askers.get(address, ())
    if names:
        return Asker(tuple(each for each in local.networks if each.name in names))
    return Asker(
        tuple(each for each in local.networks if any(address in net for net in each.subnets))
    )
