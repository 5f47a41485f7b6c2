"""wg(8): the state of a device, and changes of it.

Sources: wg(8) of wireguard-tools 1.0.20210914, "show INTERFACE dump" and "set".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from agent.errors import KernelError
from agent.kernel.netlink import NetlinkSocket
from agent.kernel.netlink.links import LinkMissing, find_link
from agent.kernel.tables.own import is_own_link
from agent.model.family import Network, read_network
from agent.programs import Finished, ProgramRunner

__all__ = ["DeviceState", "PeerState", "WireGuardTool"]

_DEADLINE_S: Final = 10.0
_AGAIN_S: Final = 30.0
"""Pause after wg did not end: a pass over many peers must not wait for each (promise 10)."""
_DEVICE_FIELDS, _PEER_FIELDS = 4, 8


class PeerState(NamedTuple):
    """One peer as wg shows it.

    Attributes:
        endpoint: "(none)" without one.
        handshake_s: Unix time of the latest handshake, 0 without one.
        keepalive_s: 0 when it is off.
        received, sent: Bytes of outer packets' content, counted since the peer was added.
    """

    public_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    handshake_s: int
    keepalive_s: int
    received: int = 0
    sent: int = 0

    @property
    def ranges(self) -> Iterator[Network]:
        """The ranges of the mesh; one of another family is never wanted, and goes with a change."""
        for text in self.allowed_ips:
            with contextlib.suppress(ValueError):
                yield read_network(text)


class DeviceState(NamedTuple):
    """One device as wg shows it."""

    public_key: str
    port: int
    peers: tuple[PeerState, ...]


class WireGuardTool:
    """Reads and changes devices of the agent in this network namespace.

    Args:
        deadline_s: How long wg may take.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        runner: ProgramRunner | None = None,
        *,
        deadline_s: float = _DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner or ProgramRunner()
        self._deadline_s = deadline_s
        self._clock = clock
        self._again_s = 0.0
        self._socket: NetlinkSocket | None = None

    def show(self, link: str) -> DeviceState | None:
        """Return the state of a device; None where there is no such link of the agent's.

        Raises:
            KernelError: It could not be read completely.
        """
        if not self._has(link):
            return None
        done = self._run("show", link, "dump")
        lines = [line.split("\t") for line in done.output.splitlines()]
        if done.status != 0 or not lines or len(lines[0]) != _DEVICE_FIELDS:
            raise KernelError(
                f"the WireGuard device {link} could not be listed: {_why(done)}",
                hint="is wg installed (apt install wireguard-tools)? then: wg show",
            )
        _, public_key, port, _ = lines[0]
        return DeviceState(public_key, int(port), tuple(map(_peer, lines[1:])))

    def set(self, link: str, words: Sequence[str]) -> None:
        """Change a device: ``wg set LINK WORDS``.

        Raises:
            KernelError: It was refused.
        """
        done = self._run("set", link, *words)
        if done.status != 0:
            raise KernelError(
                f"wg set {link} was refused: {_why(done)}", hint="see: wg show; wg --version"
            )

    def _run(self, *words: str) -> Finished:
        """Run wg, but not again at once after it did not end.

        Raises:
            KernelError: It did not end a moment ago.
        """
        if self._clock() < self._again_s:
            raise KernelError(
                "wg did not end the last time, and is not run again yet", hint="see: wg show"
            )
        done = self._runner.run(("wg", *words), self._deadline_s)
        if done.status is None:
            self._again_s = self._clock() + _AGAIN_S
        return done

    def _has(self, link: str) -> bool:
        if self._socket is None:
            self._socket = NetlinkSocket(timeout_s=_DEADLINE_S)
        try:
            return is_own_link(find_link(self._socket, link))
        except LinkMissing:
            return False
        except KernelError:
            self._socket.close()
            self._socket = None
            raise


def _why(done: Finished) -> str:
    """Return what wg says of a failure, none of its output: that has the private key."""
    return done._replace(output="").last_lines or f"exit status {done.status}"


def _peer(fields: Sequence[str]) -> PeerState:
    if len(fields) != _PEER_FIELDS:
        raise KernelError(f"wg shows a peer of {len(fields)} fields, not {_PEER_FIELDS}")
    public_key, _, endpoint, allowed, handshake, received, sent, keepalive = fields
    return PeerState(
        public_key,
        endpoint,
        () if allowed == "(none)" else tuple(allowed.split(",")),
        int(handshake),
        0 if keepalive == "off" else int(keepalive),
        int(received),
        int(sent),
    )
