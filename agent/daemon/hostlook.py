"""The host's links, addresses and others' routes: when they are looked at again, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.daemon import viewconditions as tell
from agent.daemon.events import HostSeen
from agent.daemon.snapshot import Snapshot
from agent.errors import HostmeshError
from agent.kernel.facts import choose_uplink, read_host_facts
from agent.kernel.needed import needed_addresses
from agent.model import Condition, HostFacts, Uplink
from agent.model.family import within

__all__ = ["HostReader"]


class HostReader:
    """Looks at the host. Reading only.

    Args:
        former_protocol: What routes of this host bear besides ``routes.protocol``, if anything.
        check: What else on the host would undo our work.
    """

    def __init__(
        self,
        former_protocol: Callable[[], int | None],
        check: Callable[[Uplink], tuple[Condition, ...]],
    ) -> None:
        self._former_protocol = former_protocol
        self._check = check

    def look(self, state: Snapshot) -> HostSeen:
        """See how it is now, as much of it as may have changed."""
        known = state.known
        facts = known.host
        try:
            facts = self._facts(state)
            uplink = self._uplink(state, facts)
            return HostSeen(facts, uplink, self._check(uplink))
        except HostmeshError as error:
            # The last uplink holds, and what is seen of the host is no less true without one.
            return HostSeen(facts, known.uplink, (tell.host_unusable(error),), failed=True)

    def _facts(self, state: Snapshot) -> HostFacts:
        before = None if state.look.everything else state.known.host
        facts = read_host_facts(state.settings.routes.protocol, before)
        former = self._former_protocol()
        if former is not None and before is None:
            facts = _without(facts, former, state)
        return replace(facts, needed=needed_addresses(facts, state.endpoints.addresses))

    @staticmethod
    def _uplink(state: Snapshot, facts: HostFacts) -> Uplink:
        host = state.settings.host
        return choose_uplink(
            facts,
            host.uplink,
            state.endpoints.address,
            node_address=host.node_address,
            mesh=state.bounds.in_force,
        )


def _without(facts: HostFacts, former: int, state: Snapshot) -> HostFacts:
    """Leave this host's routes of a former ``routes.protocol`` out: they are not another's."""
    cidrs = state.known.config.cidrs if state.known.config else ()
    foreign = tuple(
        each
        for each in facts.foreign_routes
        if each.protocol != former or not any(within(each.destination, cidr) for cidr in cidrs)
    )
    return replace(facts, foreign_routes=foreign)
