"""Keys, peers and ranges of the agent's WireGuard device, as tables that are reconciled.

The kernel sends no notifications of them: what another program changes is found by the next full
comparison.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from agent.errors import HostmeshError, KernelError
from agent.kernel.wireguard.handshakes import Handshakes, peer_words
from agent.kernel.wireguard.tool import DeviceState, PeerState, WireGuardTool
from agent.model.family import Network, network_order
from agent.model.wireguard import (
    WIREGUARD_LINK as LINK,
)
from agent.model.wireguard import (
    AllowedIp,
    Endpoint,
    PeerKey,
    WireGuardDevice,
    WireGuardPeer,
    read_endpoint,
)
from agent.reconcile.interfaces import NONE_KNOWN, Listing, Operation, OperationKind, Result, V

__all__ = ["AllowedIpTable", "DeviceTable", "PeerTable"]

K = TypeVar("K")

_BATCH: Final = 100
_FRESH_S: Final = 180
"""A handshake is renewed every two minutes while there is traffic, and a session ends after three
(REJECT_AFTER_TIME, https://www.wireguard.com/protocol/)."""


class _Table(Generic[V]):
    """Common base of the three kinds: one device, one tool."""

    port_ids: frozenset[int] = frozenset()
    """No netlink port writes these."""

    def __init__(self, tool: WireGuardTool) -> None:
        self._tool = tool

    def list_all(self, known: Mapping[Any, V] = NONE_KNOWN) -> Listing[V]:
        """Return every object of the device; none while there is no device.

        Raises:
            KernelError: The list could not be had completely.
        """
        state = self._tool.show(LINK)
        return Listing(() if state is None else tuple(self._of(state, known)))

    def close(self) -> None:
        """Hold nothing open."""

    def _of(self, state: DeviceState, known: Mapping[Any, V]) -> Iterable[V]:
        raise NotImplementedError

    def _set(
        self,
        operations: Sequence[Operation[V]],
        words: Callable[[Operation[V]], Sequence[str]],
        for_s: float | None,
    ) -> list[Result[V]]:
        """Change the device in few calls, and begin none after ``for_s`` seconds."""
        found: list[Result[V]] = []
        for batch in _batches(operations, for_s):
            refused = self._refused({at: words(each) for at, each in enumerate(batch)})
            found += (Result(each, refused.get(at)) for at, each in enumerate(batch))
        return found

    def _refused(self, changes: Mapping[K, Sequence[str]]) -> dict[K, HostmeshError]:
        """Make changes in one call; where it is refused, in one for each. Return what failed."""
        found: dict[K, HostmeshError] = {}
        changes = {key: words for key, words in changes.items() if words}
        if not changes:
            return found
        try:
            self._tool.set(LINK, [word for words in changes.values() for word in words])
        except HostmeshError:
            for key, words in changes.items():
                try:
                    self._tool.set(LINK, words)
                except HostmeshError as error:
                    found[key] = error
        return found


def _batches(
    operations: Sequence[Operation[V]], for_s: float | None
) -> Iterator[Sequence[Operation[V]]]:
    until_s = math.inf if for_s is None else time.monotonic() + for_s
    for start in range(0, len(operations), _BATCH):
        if start and time.monotonic() >= until_s:
            return
        yield operations[start : start + _BATCH]


class DeviceTable(_Table[WireGuardDevice]):
    """Key and port of the device.

    Args:
        key_file: The private key.
    """

    def __init__(self, tool: WireGuardTool, key_file: Path) -> None:
        super().__init__(tool)
        self._key_file = key_file

    def apply(
        self, operations: Sequence[Operation[WireGuardDevice]], *, for_s: float | None = None
    ) -> tuple[Result[WireGuardDevice], ...]:
        """Set key and port. They go with the link: there is nothing to delete."""
        return tuple(self._set(operations, self._words, for_s))

    def _words(self, operation: Operation[WireGuardDevice]) -> Sequence[str]:
        if operation.kind is OperationKind.DELETE:
            return ()
        return ("private-key", str(self._key_file), "listen-port", str(operation.object.port))

    def _of(
        self, state: DeviceState, known: Mapping[Any, WireGuardDevice]
    ) -> Iterable[WireGuardDevice]:
        del known
        yield WireGuardDevice(link=LINK, public_key=state.public_key, port=state.port)


class PeerTable(_Table[WireGuardPeer]):
    """Peers of the device. An endpoint that moved, and shakes hands, is as good as the wanted one.

    Args:
        handshakes: Begins later those that are not begun at once.
        wall_clock: Unix seconds, as wg shows handshakes.
    """

    def __init__(
        self,
        tool: WireGuardTool,
        handshakes: Handshakes,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(tool)
        self._handshakes = handshakes
        self._wall_clock = wall_clock
        self._written: dict[PeerKey, Endpoint | None] = {}

    def apply(
        self, operations: Sequence[Operation[WireGuardPeer]], *, for_s: float | None = None
    ) -> tuple[Result[WireGuardPeer], ...]:
        """Add, change and remove peers."""
        try:
            state = self._tool.show(LINK)
        except KernelError as error:
            return tuple(Result(each, error) for each in operations)
        own = "" if state is None else state.public_key

        def words(operation: Operation[WireGuardPeer]) -> Sequence[str]:
            peer = operation.object
            if operation.kind is OperationKind.DELETE:
                return ("peer", peer.public_key, "remove")
            return peer_words(peer, begins=self._begins(peer, own))

        results = self._set(operations, words, for_s)
        for each in results:
            self._follow(each, own)
        return tuple(results)

    def _follow(self, result: Result[WireGuardPeer], own: str) -> None:
        """Note what was written, and what the peer is left to begin."""
        peer = result.operation.object
        self._handshakes.forget(peer.key)
        if result.operation.kind is OperationKind.REPLACE:
            if result.ok and not self._begins(peer, own):
                self._handshakes.leave(peer)
            self._written[peer.key] = peer.endpoint if result.ok else None
        elif result.ok:
            self._written.pop(peer.key, None)

    def _begins(self, peer: WireGuardPeer, own: str) -> bool:
        """Whether this host begins the handshake with a peer at once.

        A peer that was written before knows nothing of a device that was made again.
        """
        return peer.key in self._written or own < peer.public_key

    def _of(
        self, state: DeviceState, known: Mapping[Any, WireGuardPeer]
    ) -> Iterable[WireGuardPeer]:
        for each in state.peers:
            found = WireGuardPeer(
                link=LINK,
                public_key=each.public_key,
                endpoint=_endpoint(each.endpoint),
                keepalive_s=each.keepalive_s,
            )
            wanted = known.get(found.key)
            if wanted is not None and self._is_as_good(each, wanted):
                found = replace(found, endpoint=wanted.endpoint)
            yield found

    def _is_as_good(self, there: PeerState, wanted: WireGuardPeer) -> bool:
        """Whether the endpoint that is there may stay in place of the wanted one."""
        if wanted.endpoint is None:
            return True
        fresh = self._wall_clock() - there.handshake_s < _FRESH_S
        # The endpoint that an earlier run of the agent wrote is not known.
        return fresh and self._written.get(wanted.key, wanted.endpoint) == wanted.endpoint


def _endpoint(text: str) -> Endpoint | None:
    """Return an endpoint as wg shows it; None for none, and for one that is never wanted."""
    try:
        return read_endpoint(text)
    except ValueError:
        return None


class AllowedIpTable(_Table[AllowedIp]):
    """Ranges of the peers. wg sets those of a peer together, so they are listed before a change."""

    def apply(
        self, operations: Sequence[Operation[AllowedIp]], *, for_s: float | None = None
    ) -> tuple[Result[AllowedIp], ...]:
        """Add and remove ranges; one that another peer has moves at once."""
        try:
            state = self._tool.show(LINK)
        except KernelError as error:
            return tuple(Result(each, error) for each in operations)
        peers = () if state is None else state.peers
        ranges = {each.public_key: frozenset(each.ranges) for each in peers}
        holders = {each: key for key, found in ranges.items() for each in found}
        results: list[Result[AllowedIp]] = []
        for batch in _batches(operations, for_s):
            wanted = {key: set(each) for key, each in ranges.items()}
            for each in batch:
                _change(wanted, holders, each)
            changed = [key for key in ranges if wanted[key] != ranges[key]]
            # A range is taken from a peer by giving it to another one: there is no moment between.
            changed.sort(key=lambda key: not wanted[key] - ranges[key])
            refused = self._refused({key: _range_words(key, wanted[key]) for key in changed})
            results += (_result(each, ranges, refused) for each in batch)
            ranges |= {key: frozenset(wanted[key]) for key in changed}
        return tuple(results)

    def _of(self, state: DeviceState, known: Mapping[Any, AllowedIp]) -> Iterable[AllowedIp]:
        del known
        for each in state.peers:
            for network in each.ranges:
                yield AllowedIp(link=LINK, network=network, public_key=each.public_key)


def _change(
    ranges: Mapping[str, set[Network]],
    holders: dict[Network, str],
    operation: Operation[AllowedIp],
) -> None:
    """Carry an operation out on what the peers have; a peer that is missing has nothing."""
    network, key = operation.object.network, operation.object.public_key
    if operation.kind is OperationKind.DELETE:
        ranges.get(key, set()).discard(network)
    elif key in ranges:
        if network in holders:
            ranges[holders[network]].discard(network)
        ranges[key].add(network)
        holders[network] = key


def _range_words(key: str, ranges: Iterable[Network]) -> Sequence[str]:
    return ("peer", key, "allowed-ips", ",".join(map(str, sorted(ranges, key=network_order))))


def _result(
    operation: Operation[AllowedIp],
    ranges: Mapping[str, frozenset[Network]],
    failed: Mapping[str, HostmeshError],
) -> Result[AllowedIp]:
    key = operation.object.public_key
    if operation.kind is OperationKind.REPLACE and key not in ranges:
        return Result(operation, KernelError(f"the WireGuard device {LINK} has no peer {key}"))
    return Result(operation, failed.get(key))
