"""Find the container that an operator names, on any host of the mesh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import UsageError
from agent.model import Access
from agent.model.family import Address, read_address
from agent.settings.text import nearest, shown

__all__ = ["MeshAddress", "address_of", "find_address", "network_access"]

_LEAST_ID = 4
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class MeshAddress:
    """One address of a container of GET /v1/containers.

    Attributes:
        place: The entry of the container's ``addresses``.
    """

    container: Mapping[str, Any]
    place: Mapping[str, Any]

    @property
    def address(self) -> Address:
        """The address itself."""
        return read_address(str(self.place["address"]))

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.container["name"])

    @property
    def host(self) -> str:
        """The host's name, or its id where it has none."""
        return str(self.container["host_name"] or self.container["host_id"])

    @property
    def network(self) -> str:
        """The mesh network, or else Docker's name of the network."""
        return str(self.place["mesh_network"] or self.place["network"])

    @property
    def mesh_network(self) -> str:
        """The mesh network, "" for none."""
        return str(self.place["mesh_network"] or "")

    @property
    def access(self) -> str:
        """How much of the network other hosts reach."""
        return str(self.place["access"])

    def __str__(self) -> str:
        """The name that means this address only."""
        return f"{self.name}.{self.network}@{self.host}"


def find_address(document: Mapping[str, Any], word: str) -> MeshAddress:
    """Return the one address that ``word`` means.

    ``word`` is NAME, NAME.NETWORK, NAME@HOST or NAME.NETWORK@HOST. NAME is a container's name, else
    its service, an alias or the start of its id.

    Args:
        document: GET /v1/containers.

    Raises:
        UsageError: No address is meant, or several; then with the choices.
    """
    head, at, host = word.rpartition("@")
    every = [each for each in _addresses(document) if not at or _is_on(each, host)]
    found = _named(every, head if at else host)
    if len(found) == 1:
        return found[0]
    if found:
        more = len(found) - _SHOWN
        choices = ", ".join(map(str, found[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
        raise UsageError(
            f"{shown(word)} means {len(found)} addresses of containers",
            hint=f"name one: {choices}",
        )
    near = nearest(head if at else host, {each.name for each in every})
    raise UsageError(
        f"no container {shown(word)} runs on a network of the mesh",
        hint=f"did you mean {near}?" if near else "agentctl containers lists them",
    )


def address_of(document: Mapping[str, Any], address: Address) -> MeshAddress | None:
    """Return the container that has an address, if one of the mesh has it."""
    text = str(address)
    return next((each for each in _addresses(document) if each.place["address"] == text), None)


def network_access(source: MeshAddress | None, to: MeshAddress, tcp_port: int) -> tuple[str, str]:
    """Return a step's result and text: what the networks of two containers let pass.

    Args:
        source: None where it is no container of the mesh.
        tcp_port: 0 for a ping.
    """
    if to.mesh_network and source is not None and source.mesh_network == to.mesh_network:
        return "ok", f"both ends are on network {to.network}, where every port is open"
    at = f"{to.name} is on network {to.network} of {to.host}, which is {to.access}"
    if to.access == Access.CLOSED:
        drops = "drops what comes from other networks: HOSTMESH-INBOUND, closed network"
        return "failed", f"{at}: {to.host} {drops}"
    if to.access == Access.PUBLISHED and tcp_port:
        return "unknown", f"{at}: docker port {to.name} lists its ports there"
    if source is not None and source.access == Access.CLOSED:
        at += f"; it sees {source.host}'s address, since network {source.network} is closed"
    return "ok", at


def _addresses(document: Mapping[str, Any]) -> Iterator[MeshAddress]:
    for container in document["containers"]:
        for place in container["addresses"]:
            yield MeshAddress(container, place)


def _is_on(each: MeshAddress, host: str) -> bool:
    host_id = str(each.container["host_id"])
    by_id = len(host) >= _LEAST_ID and host_id.startswith(host)
    return host == each.container["host_name"] or by_id


def _named(every: Sequence[MeshAddress], name: str) -> list[MeshAddress]:
    """Return all that a name can mean; a container's own name excludes the rest."""
    found = [each for each in every if each.name == name]
    found = found or [each for each in every if _is_called(each, name)]
    head, dot, network = name.rpartition(".")
    if found or not dot:
        return found
    return [each for each in _named(every, head) if network == each.network]


def _is_called(each: MeshAddress, name: str) -> bool:
    by_id = len(name) >= _LEAST_ID and str(each.container["id"]).startswith(name)
    return by_id or name == each.container["service"] or name in each.place["aliases"]
