"""Keys, peers and ranges of the agent's WireGuard device, as tables that are reconciled.

The kernel sends no notifications of them: what another program changes is found by the next full
comparison.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Generic

from agent.errors import HostmeshError, KernelError
from agent.kernel.wireguard.tool import DeviceState, PeerState, WireGuardTool
from agent.model.family import Network, network_order, read_network
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
        self, operations: Sequence[Operation[V]], words: Callable[[Operation[V]], Sequence[str]]
    ) -> list[Result[V]]:
        """Change the device in few calls; where one is refused, in one call for each."""
        found: list[Result[V]] = []
        for start in range(0, len(operations), _BATCH):
            batch = operations[start : start + _BATCH]
            try:
                self._tool.set(LINK, [word for each in batch for word in words(each)])
                found += map(Result, batch)
            except HostmeshError:
                found += (self._one(each, words(each)) for each in batch)
        return found

    def _one(self, operation: Operation[V], words: Sequence[str]) -> Result[V]:
        try:
            self._tool.set(LINK, words)
        except HostmeshError as error:
            return Result(operation, error)
        return Result(operation)


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
        del for_s
        return tuple(
            Result(each)
            if each.kind is OperationKind.DELETE
            else self._one(
                each, ("private-key", str(self._key_file), "listen-port", str(each.object.port))
            )
            for each in operations
        )

    def _of(
        self, state: DeviceState, known: Mapping[Any, WireGuardDevice]
    ) -> Iterable[WireGuardDevice]:
        del known
        yield WireGuardDevice(link=LINK, public_key=state.public_key, port=state.port)


class PeerTable(_Table[WireGuardPeer]):
    """Peers of the device. An endpoint that moved, and shakes hands, is as good as the wanted one.

    Args:
        wall_clock: Unix seconds, as wg shows handshakes.
    """

    def __init__(self, tool: WireGuardTool, wall_clock: Callable[[], float] = time.time) -> None:
        super().__init__(tool)
        self._wall_clock = wall_clock
        self._written: dict[PeerKey, Endpoint | None] = {}

    def apply(
        self, operations: Sequence[Operation[WireGuardPeer]], *, for_s: float | None = None
    ) -> tuple[Result[WireGuardPeer], ...]:
        """Add, change and remove peers."""
        del for_s
        results = self._set(operations, _peer_words)
        for each in results:
            wanted = each.operation.object
            if each.ok and each.operation.kind is OperationKind.REPLACE:
                self._written[wanted.key] = wanted.endpoint
            else:
                self._written.pop(wanted.key, None)
        return tuple(results)

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
        return fresh and self._written.get(wanted.key) == wanted.endpoint


def _endpoint(text: str) -> Endpoint | None:
    """Return an endpoint as wg shows it; None for none, and for one that is never wanted."""
    try:
        return read_endpoint(text)
    except ValueError:
        return None


def _ranges(peer: PeerState) -> Iterable[Network]:
    """Yield the ranges of a peer; one of another family is never wanted, and goes with a change."""
    for text in peer.allowed_ips:
        with contextlib.suppress(ValueError):
            yield read_network(text)


def _peer_words(operation: Operation[WireGuardPeer]) -> Sequence[str]:
    peer = operation.object
    if operation.kind is OperationKind.DELETE:
        return ("peer", peer.public_key, "remove")
    endpoint = () if peer.endpoint is None else ("endpoint", str(peer.endpoint))
    keepalive = ("persistent-keepalive", str(peer.keepalive_s))
    return ("peer", peer.public_key, *endpoint, *keepalive)


class AllowedIpTable(_Table[AllowedIp]):
    """Ranges of the peers. wg sets those of a peer together, so they are listed before a change."""

    def apply(
        self, operations: Sequence[Operation[AllowedIp]], *, for_s: float | None = None
    ) -> tuple[Result[AllowedIp], ...]:
        """Add and remove ranges; one that another peer has moves at once."""
        del for_s
        try:
            state = self._tool.show(LINK)
        except KernelError as error:
            return tuple(Result(each, error) for each in operations)
        peers = {} if state is None else {each.public_key: each for each in state.peers}
        ranges = {key: set(_ranges(each)) for key, each in peers.items()}
        before = {key: frozenset(each) for key, each in ranges.items()}
        for each in operations:
            _change(ranges, each)
        failed: dict[str, HostmeshError] = {}
        for key, wanted in ranges.items():
            if wanted != before[key]:
                text = ",".join(map(str, sorted(wanted, key=network_order)))
                try:
                    self._tool.set(LINK, ("peer", key, "allowed-ips", text))
                except HostmeshError as error:
                    failed[key] = error
        return tuple(_result(each, ranges, failed) for each in operations)

    def _of(self, state: DeviceState, known: Mapping[Any, AllowedIp]) -> Iterable[AllowedIp]:
        del known
        for each in state.peers:
            for network in _ranges(each):
                yield AllowedIp(link=LINK, network=network, public_key=each.public_key)


def _change(ranges: Mapping[str, set[Network]], operation: Operation[AllowedIp]) -> None:
    """Carry an operation out on what the peers have; a peer that is missing has nothing."""
    wanted = operation.object
    if operation.kind is OperationKind.DELETE:
        ranges.get(wanted.public_key, set()).discard(wanted.network)
    elif wanted.public_key in ranges:
        for each in ranges.values():
            each.discard(wanted.network)
        ranges[wanted.public_key].add(wanted.network)


def _result(
    operation: Operation[AllowedIp],
    ranges: Mapping[str, set[Network]],
    failed: Mapping[str, HostmeshError],
) -> Result[AllowedIp]:
    key = operation.object.public_key
    if operation.kind is OperationKind.REPLACE and key not in ranges:
        return Result(operation, KernelError(f"the WireGuard device {LINK} has no peer {key}"))
    return Result(operation, failed.get(key))
