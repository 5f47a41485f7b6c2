"""Send a packet of full size to every peer; where it is lost, find the largest that passes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from agent.ctl.check.facts import PeerFacts
from agent.ctl.check.judge import Evidence, MtuFinding
from agent.ctl.check.senders import Senders
from agent.ctl.path.ends import LocalHost
from agent.errors import HostmeshError
from agent.kernel.diagnose.sweep import Ask, EchoSocket, Heard, sweep
from agent.kernel.liveness.icmp import LEAST_MTU
from agent.kernel.lookup import decide
from agent.model.family import Address, Network

__all__ = ["MtuTest"]

_WAIT_S: Final = 0.5
_SEARCH_S: Final = 0.25
_SPLIT: Final = 24
"""Sizes that are tried at once; three sweeps find one of 13,000 sizes."""
_SWEEPS: Final = 3
_SEARCHED: Final = 8
"""So many peers have their largest size looked for: the first ones are enough to find the link."""


class MtuTest:
    """Tests packets of full size on the way that answered a small one.

    Args:
        until_s: Monotonic time at which it ends in any case.
    """

    def __init__(self, place: LocalHost, senders: Senders, until_s: float) -> None:
        self._place = place
        self._senders = senders
        self._until_s = until_s

    def findings(
        self, peers: Sequence[PeerFacts], found: Mapping[Network, Evidence]
    ) -> dict[Network, MtuFinding]:
        """Return the finding of each peer that can be tested, by subnet."""
        asks: dict[Network, Ask] = {}
        for each in peers:
            way = self._way(each, found[each.subnet])
            if way is not None and each.mtu:
                asks[each.subnet] = Ask(*way, min(each.mtu, way[0].mtu))
        heard = self._sweep(asks.values(), rounds=3)
        smaller = {
            ask: replace(ask, size=heard[ask].takes) for ask in asks.values() if heard[ask].takes
        }
        second = self._sweep(smaller.values(), rounds=3)
        passed = {ask: each.size for ask, each in smaller.items() if second[each].answered}
        lost = [e for e in asks.values() if not heard[e].answered and e not in passed]
        largest = self._largest(lost[:_SEARCHED])
        return {
            each.subnet: self._finding(each, ask, heard[ask], largest.get(ask, 0), passed.get(ask))
            for each in peers
            if (ask := asks.get(each.subnet)) is not None
        }

    def _way(self, peer: PeerFacts, found: Evidence) -> tuple[EchoSocket, Address] | None:
        """Return by which socket the largest packets are sent, and where to."""
        senders = self._senders
        if found.container and found.container.answered and peer.container:
            link = next(each for each in senders.main if each.sent_by == found.sender)
            return link.echo, peer.container
        if found.docker0 and found.docker0.answered:
            return senders.main[0].echo, peer.docker0
        if peer.device is not None:
            tunnel = found.device is not None and found.device.answered
            return (senders.host, peer.device) if tunnel else None
        if peer.container is not None or not found.host.answered:
            return None
        return senders.host, peer.node_address

    def _sweep(self, asks: Iterable[Ask], *, rounds: int) -> Mapping[Ask, Heard]:
        return sweep(tuple(asks), rounds=rounds, wait_s=_WAIT_S, until_s=self._until_s)

    def _largest(self, asks: Sequence[Ask]) -> dict[Ask, int]:
        """Find the largest packet that passes to each, 0 where not even 576 bytes do."""
        low, high = dict.fromkeys(asks, 0), {ask: ask.size for ask in asks}
        for _ in range(_SWEEPS):
            tried = {ask: _between(low[ask], high[ask]) for ask in asks}
            every = [replace(ask, size=size) for ask in asks for size in tried[ask]]
            heard = sweep(every, rounds=2, wait_s=_SEARCH_S, until_s=self._until_s)
            for ask, sizes in tried.items():
                passing = [s for s in sizes if heard[replace(ask, size=s)].answered]
                low[ask] = max([low[ask], *passing])
                high[ask] = min([high[ask], *(s for s in sizes if s > low[ask])])
        return low

    def _finding(
        self, peer: PeerFacts, ask: Ask, heard: Heard, largest: int, passed: int | None
    ) -> MtuFinding:
        return MtuFinding(
            target=ask.address,
            size=ask.size,
            heard=heard,
            largest=passed or largest,
            by_path_mtu=passed is not None,
            fix=self._fix(peer, largest) if largest else "",
        )

    def _fix(self, peer: PeerFacts, largest: int) -> str:
        """Return what to type, so that packets between the two are not larger."""
        with contextlib.suppress(HostmeshError):
            name = decide(peer.node_address).link
            link = self._place.link(name)
            if link is not None:
                outer = largest + max(0, link.mtu - peer.mtu)
                return (
                    f"raise the MTU of the switch or link between the hosts to {link.mtu}; or on"
                    f" each host: ip link set dev {name} mtu {outer}, which the mesh follows"
                )
        return ""


def _between(low: int, high: int) -> list[int]:
    """Return sizes between one that passes (0: none yet) and one that does not."""
    start = low + 1 if low else LEAST_MTU
    step = max(1, (high - start) // _SPLIT)
    return list(range(start, high, step))
