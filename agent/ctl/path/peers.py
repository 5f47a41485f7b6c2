"""Which host an operator means: by name, subnet, node address, host id or the start of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.ctl import direct
from agent.ctl.context import Context
from agent.errors import UsageError
from agent.model.family import read_address, read_network
from agent.settings.text import nearest, shown

__all__ = ["Peer", "find_peer", "matching"]

_LEAST_ID = 6


@dataclass(frozen=True, slots=True)
class Peer:
    """A lease of GET /v1/leases.

    Attributes:
        freshness: The fields that say how old the leases are.
        own: This host's lease, None without one.
    """

    lease: Mapping[str, Any]
    freshness: Mapping[str, Any]
    own: Mapping[str, Any] | None

    @property
    def subnet(self) -> str:
        """Its subnet."""
        return str(self.lease.get("subnet"))

    @property
    def node_address(self) -> str:
        """Its address on the underlay."""
        return str(self.lease.get("node_address"))

    def document(self) -> dict[str, Any]:
        """What a document says of it."""
        return {
            key: self.lease.get(key) for key in ("host_name", "host_id", "subnet", "node_address")
        }


def find_peer(context: Context, word: str) -> Peer:
    """The host that ``word`` means.

    Raises:
        UsageError: None or several; the nearest names are in the hint.
        HostmeshError: Neither agent nor etcd nor the copy told the leases.
    """
    document = direct.ask(context, "/v1/leases")
    leases = document.get("leases", [])
    found = matching(leases, word)
    if len(found) == 1:
        fields = ("cached", "stale", "as_of", "as_of_s_ago")
        own = next((each for each in leases if each.get("own")), None)
        return Peer(found[0], {key: document.get(key) for key in fields}, own)
    if found:
        subnets = ", ".join(str(each.get("subnet")) for each in found[:5])
        raise UsageError(f"{shown(word)} means {len(found)} hosts", hint=f"name one: {subnets}")
    near = nearest(word, {str(each.get("host_name")) for each in leases if each.get("host_name")})
    hint = f"did you mean {near}?" if near else "agentctl leases names them"
    raise UsageError(f"no host {shown(word)} has a lease", hint=hint)


def matching(leases: list[Mapping[str, Any]], word: str) -> list[Mapping[str, Any]]:
    """Every lease that ``word`` can mean: an exact name or address before the start of an id."""
    exact = [
        each
        for each in leases
        if word in (each.get("host_name"), each.get("subnet"), each.get("node_address"))
        or word == each.get("host_id")
    ]
    if exact:
        return exact
    try:
        address = read_address(word)
    except ValueError:
        long_enough = len(word) >= _LEAST_ID
        return [e for e in leases if long_enough and str(e.get("host_id") or "").startswith(word)]
    return [each for each in leases if address in read_network(str(each.get("subnet")))]
