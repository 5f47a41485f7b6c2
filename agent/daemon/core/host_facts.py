"""The host's links, addresses and others' routes: when they are looked at again, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.daemon.state import conditions
from agent.daemon.state.agent_state import AgentState
from agent.daemon.state.events import HostSeen
from agent.errors import HostmeshError
from agent.kernel.facts import read_host_facts
from agent.kernel.needed_addresses import needed_addresses
from agent.kernel.uplink import as_peers_see_it, choose_uplink
from agent.kernel.wireguard.key import WireGuardKey
from agent.mesh.peer_rules import PeerRules
from agent.model import Condition, HostFacts, Uplink
from agent.model.family import within
from agent.model.wireguard import WIREGUARD

__all__ = ["look_at_host"]


def look_at_host(
    former_protocol: Callable[[], int | None],
    check: Callable[[Uplink, tuple[str, ...]], tuple[Condition, ...]],
    wireguard_key: WireGuardKey,
    state: AgentState,
) -> HostSeen:
    """See how the host is now, as much of it as may have changed. Writes nothing but a key.

    Args:
        former_protocol: What routes of this host bear besides ``routes.protocol``, if anything.
        check: What else on the host would undo our work.
        wireguard_key: Made now if the mesh's config wants one.
    """
    mesh, host = state.mesh, state.settings.host
    facts = mesh.host
    try:
        facts = _facts(state, former_protocol())
        uplink = choose_uplink(
            facts,
            host.uplink,
            state.endpoints.address,
            node_address=host.node_address,
            mesh=state.bounds.in_force,
        )
        wants_key = mesh.config is not None and WIREGUARD in mesh.config.backends
        uplink = as_peers_see_it(uplink, host, wireguard_key.public_key(create=wants_key))
        rules = mesh.rules()
        ingress = rules.ingress if isinstance(rules, PeerRules) else ()
        return HostSeen(facts, uplink, check(uplink, ingress))
    except HostmeshError as error:
        # The last uplink holds, and what is seen of the host is no less true without one.
        return HostSeen(facts, mesh.uplink, (conditions.host_unusable(error),), failed=True)


def _facts(state: AgentState, former: int | None) -> HostFacts:
    before = None if state.look.everything else state.mesh.host
    facts = read_host_facts(state.settings.routes.protocol, before)
    if former is not None and before is None:
        facts = _without(facts, former, state)
    return replace(facts, needed=needed_addresses(facts, state.endpoints.addresses))


def _without(facts: HostFacts, former: int, state: AgentState) -> HostFacts:
    """Leave this host's routes of a former ``routes.protocol`` out: they are not another's."""
    cidrs = state.mesh.config.cidrs if state.mesh.config else ()
    foreign = tuple(
        each
        for each in facts.foreign_routes
        if each.protocol != former or not any(within(each.destination, cidr) for cidr in cidrs)
    )
    return replace(facts, foreign_routes=foreign)
