"""Find the host that an operator names: by name, subnet, address, id, or a container there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.path.mesh_containers import MeshAddress, find_address
from agent.errors import HostmeshError, UsageError
from agent.model.family import read_network
from agent.registry.operations.hosts import HostRef, meant
from agent.settings.text import nearest, shown

__all__ = ["Peer", "find_peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A lease of GET /v1/leases.

    Attributes:
        freshness: The fields for the age of the leases.
        own: This host's lease, or None.
        target: The container that the operator named; None: the host itself was named.
    """

    lease: Mapping[str, Any]
    freshness: Mapping[str, Any]
    own: Mapping[str, Any] | None
    target: MeshAddress | None = None

    @property
    def subnet(self) -> str:
        """Its subnet."""
        return str(self.lease.get("subnet"))

    @property
    def node_address(self) -> str:
        """Its address on the underlay."""
        return str(self.lease.get("node_address"))

    @property
    def behind_nat(self) -> bool:
        """Its node address need not be reached from here."""
        published = self.lease.get("backend_data") or {}
        return bool(published.get("NAT") or published.get("Endpoint"))

    def document(self) -> dict[str, Any]:
        """Return the peer for a document."""
        keys = ("host_name", "host_id", "subnet", "node_address")
        found = {key: self.lease.get(key) for key in keys}
        if self.target is not None:
            found["container"] = {
                "name": self.target.name,
                "network": self.target.network,
                "address": str(self.target.address),
            }
        return found


def find_peer(context: Context, word: str) -> Peer:
    """Return the host that the operator named.

    Raises:
        UsageError: No host, or several; the hint has the nearest names.
        HostmeshError: The leases cannot be had from the agent, etcd or this host's copy.
    """
    document = direct.ask(context, "/v1/leases")
    leases = document.get("leases", [])
    found, target = meant(leases, word, _host), None
    if not found:
        target = _container(context, leases, word)
        owner = target.container["host_id"]
        found = tuple(each for each in leases if each.get("host_id") == owner)[:1]
    if len(found) == 1:
        fields = ("cached", "stale", "as_of", "as_of_s_ago")
        own = next((each for each in leases if each.get("own")), None)
        return Peer(found[0], {key: document.get(key) for key in fields}, own, target)
    subnets = ", ".join(str(each.get("subnet")) for each in found[:5])
    raise UsageError(f"{shown(word)} means {len(found)} hosts", hint=f"name one: {subnets}")


def _container(context: Context, leases: list[Mapping[str, Any]], word: str) -> MeshAddress:
    """Return the container of another host that ``word`` means. Raises UsageError."""
    near = nearest(word, {str(each.get("host_name")) for each in leases if each.get("host_name")})
    hint = f"did you mean {near}?" if near else "agentctl leases names them"
    try:
        found = find_address(direct.ask(context, "/v1/containers"), word)
    except UsageError as error:
        if near:
            error.hint = hint
        raise
    except HostmeshError:
        raise UsageError(f"no host {shown(word)} has a lease", hint=hint) from None
    if found.container["own"]:
        raise UsageError(
            f"container {shown(found.name)} runs on this host",
            hint=f"agentctl trace SRC {found.name} shows the path to it",
        )
    return found


def _host(lease: Mapping[str, Any]) -> HostRef:
    names = (lease.get(key) for key in ("host_name", "subnet", "node_address"))
    return HostRef(
        host_id=lease.get("host_id"),
        names=frozenset(str(each) for each in names if each),
        subnets=frozenset({read_network(str(lease.get("subnet")))}),
    )
