"""Ask every peer at once, within seconds, and collect the evidence."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from agent.ctl.check.facts import Facts, PeerFacts
from agent.ctl.check.judge import Evidence, judge
from agent.ctl.check.mtu import MtuTest
from agent.ctl.check.names import NameChecker
from agent.ctl.check.senders import Senders
from agent.ctl.path.ends import LocalHost
from agent.errors import HostmeshError
from agent.kernel.diagnose.sweep import Ask, Heard, sweep
from agent.kernel.diagnose.tunnel import tunnel_to
from agent.mesh.check.result import CheckState, HostCheck, PeerCheck, TestResult
from agent.model import HostId
from agent.model.family import network_order

__all__ = ["BOUND_S", "check_peers"]

BOUND_S: Final = 10.0
"""A check ends then, whatever answers."""
_WAIT_S: Final = 0.8
_OTHERS_S: Final = 0.5


def check_peers(
    place: LocalHost, read: Callable[[], Facts], *, bound_s: float = BOUND_S
) -> HostCheck:
    """Check every peer.

    A peer that fails is asked once more by newer facts, where time is left: a container may have
    ended, or a host have left, in between.

    Args:
        read: Reads the facts.

    Raises:
        HostmeshError: There are no facts, or nothing can be sent.
    """
    began_s, wall_s = time.monotonic(), time.time()
    facts = read()
    run = _Run(place, facts, began_s + bound_s)
    try:
        own, found = run.check(facts.peers)
        failed = {each.subnet for each in found if each.state is CheckState.FAILED}
        if failed and time.monotonic() < began_s + bound_s / 2:
            newer = run.with_facts(read())
            again = [each for each in newer.facts.peers if each.subnet in failed]
            own, rest = newer.check(again)
            found = (*(each for each in found if each.subnet not in failed), *rest)
    finally:
        run.close()
    return HostCheck(
        host_id=HostId(str(facts.own["host_id"])),
        began_s=wall_s,
        took_s=time.monotonic() - began_s,
        own=own,
        untested=run.senders.untested,
        peers=tuple(sorted(found, key=lambda each: network_order(each.subnet))),
    )


@dataclass(slots=True)
class _Asked:
    """The questions of the first sweep to one peer, in the order of the senders."""

    host: Ask
    container: tuple[Ask, ...] = ()
    docker0: Ask | None = None
    device: Ask | None = None
    networks: dict[str, tuple[Ask, ...]] = field(default_factory=dict)

    def first(self) -> Iterable[Ask]:
        """Those that are asked of every peer."""
        yield self.host
        yield from self.container[:1]
        yield from (each for each in (self.docker0, self.device) if each is not None)
        for each in self.networks.values():
            yield from each[:1]

    def others(self, heard: Mapping[Ask, Heard]) -> Iterable[Ask]:
        """Other senders and containers, for those of which the first had no answer."""
        for each in (self.container, *self.networks.values()):
            if each and not heard[each[0]].answered:
                yield from each[1:]


class _Run:
    def __init__(
        self, place: LocalHost, facts: Facts, until_s: float, senders: Senders | None = None
    ) -> None:
        self.facts = facts
        self._place = place
        self._until_s = until_s
        named = facts.own.get("container")
        self.senders = senders or Senders.open(place, facts.subnet, str(named) if named else None)
        self._tunnel_text: str | None = None

    def with_facts(self, facts: Facts) -> _Run:
        """Return the same with newer facts."""
        return _Run(self._place, facts, self._until_s, self.senders)

    def close(self) -> None:
        self.senders.close()

    def check(
        self, peers: Sequence[PeerFacts]
    ) -> tuple[tuple[TestResult, ...], tuple[PeerCheck, ...]]:
        """Ask these peers; return the tests of this host itself, and of each peer."""
        asked = {each.subnet: self._questions(each) for each in peers}
        first = [ask for each in asked.values() for ask in each.first()]
        heard = dict(sweep(first, wait_s=_WAIT_S, until_s=self._until_s))
        others = [
            ask
            for each in asked.values()
            if any(heard[ask].answered for ask in each.first())
            for ask in each.others(heard)
        ]
        heard |= sweep(others, rounds=2, wait_s=_OTHERS_S, until_s=self._until_s)
        found = {each.subnet: self._evidence(each, asked[each.subnet], heard) for each in peers}
        alive = [each for each in peers if found[each.subnet].anything]
        mtus = MtuTest(self._place, self.senders, self._until_s).findings(alive, found)
        link = self.senders.main[0] if self.senders.main else None
        sender = str(link.sent_by) if link else "this host itself"
        names = NameChecker(self.facts, self.senders.names, sender, self._until_s)
        own = names.own()
        names.ask(alive)
        results = []
        for each in peers:
            mtu = mtus.get(each.subnet)
            evidence = replace(found[each.subnet], mtu=mtu, names=names.of(each))
            results.append(judge(self.facts, each, evidence))
        return own, tuple(results)

    def _questions(self, peer: PeerFacts) -> _Asked:
        senders = self.senders
        asked = _Asked(Ask(senders.host, peer.node_address))
        if peer.device is not None:
            asked.device = Ask(senders.host, peer.device)
        if senders.main:
            if peer.container is not None:
                asked.container = tuple(Ask(e.echo, peer.container) for e in senders.main)
            asked.docker0 = Ask(senders.main[0].echo, peer.docker0)
        for network, targets in peer.networks.items():
            link = senders.networks.get(network)
            if link is not None:
                asked.networks[network] = tuple(Ask(link.echo, e.addresses[0]) for e in targets)
        return asked

    def _evidence(self, peer: PeerFacts, asked: _Asked, heard: Mapping[Ask, Heard]) -> Evidence:
        senders = self.senders
        best = next((e for e in asked.container if heard.get(e, Heard()).answered), None)
        container = best or (asked.container[0] if asked.container else None)
        used = next((e for e in senders.main if container and e.echo is container.link), None)
        main = used or (senders.main[0] if senders.main else None)
        return Evidence(
            host=heard[asked.host],
            container=heard[container] if container else None,
            docker0=heard[asked.docker0] if asked.docker0 else None,
            device=heard[asked.device] if asked.device else None,
            sender=main.sent_by if main else None,
            untested=senders.untested,
            tunnel=self._tunnel(peer) if asked.device and not heard[asked.device].answered else "",
            networks={
                network: (
                    senders.networks[network].sent_by,
                    tuple(
                        (target, heard.get(ask, Heard()))
                        for target, ask in zip(peer.networks[network], asks, strict=True)
                    ),
                )
                for network, asks in asked.networks.items()
            },
            gaps=tuple(
                senders.gaps[each] for each in sorted(peer.networks) if each in senders.gaps
            ),
        )

    def _tunnel(self, peer: PeerFacts) -> str:
        """Name the tunnel's device and UDP port, the same for every peer."""
        if self._tunnel_text is None:
            self._tunnel_text = str(peer.lease.get("device"))
            with contextlib.suppress(HostmeshError):
                tunnel = tunnel_to(peer.subnet.network_address)
                if tunnel is not None and tunnel.port:
                    self._tunnel_text += f", UDP port {tunnel.port}"
        return self._tunnel_text
