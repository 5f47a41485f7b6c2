"""The name servers of the host's own resolv.conf, followed when the file changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import structlog

from agent.model.domain import MOST_BYTES, parse_resolv_conf
from agent.model.names import NAME_SERVERS
from agent.retry import Backoff

__all__ = ["RESOLV_CONFS", "Upstream", "Upstreams", "read_servers"]

RESOLV_CONFS: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The host's own file, and the one with systemd-resolved's real upstreams."""

PORT: Final = 53
_MOST: Final = 3
"""glibc's MAXNS: resolvers of the host itself ask no more either."""
_LOOK_S: Final = 1.0
_RESOLVED_STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})
_NEVER: Final = frozenset({"127.0.0.11", *map(str, NAME_SERVERS)}) | _RESOLVED_STUBS
"""Docker's embedded server asks this one, and so do the stubs where they were set up to."""
_FIRST_WAIT_S, _SHORTEST_S, _LONGEST_S = 0.6, 0.2, 1.2
_SMOOTH: Final = 0.2
_SEVERAL: Final = 4.0
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Upstream:
    """A name server of the host, and how it has answered.

    Attributes:
        sockaddr: As ``socket.connect`` takes it.
        rests_until_s: Asked after others until then.
        failing: The last try got no usable reply.
    """

    address: str
    family: int
    sockaddr: tuple[Any, ...]
    rests_until_s: float = 0.0
    failing: bool = False
    typical_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 30.0))

    @property
    def wait_s(self) -> float:
        """Return how long a reply is waited for before another try."""
        if not self.typical_s:
            return _FIRST_WAIT_S
        return min(max(self.typical_s * _SEVERAL, _SHORTEST_S), _LONGEST_S)

    def answered(self, took_s: float) -> None:
        """Note a usable reply."""
        if self.failing:
            _log.info("upstream-answers-again", upstream=self.address, limit_key=self.address)
        self.failing, self.rests_until_s = False, 0.0
        self.backoff.reset()
        self.typical_s += (took_s - self.typical_s) * (_SMOOTH if self.typical_s else 1.0)

    def failed(self, now_s: float, reason: str) -> None:
        """Note that a try got no usable reply; it rests, longer each time."""
        if now_s < self.rests_until_s:
            return  # queries that were under way together are one failure
        if not self.failing:
            _log.warning(
                "upstream-fails", upstream=self.address, reason=reason, limit_key=self.address
            )
        self.failing = True
        self.rests_until_s = now_s + self.backoff.next_s()


def read_servers(texts: Sequence[str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the name servers that the host's files list, less those that would make a loop.

    Args:
        texts: Of ``RESOLV_CONFS``; the second one counts where the first names resolved's stub.
        more: Further addresses that lead back here.
    """
    listed = _listed(texts[0])
    if _RESOLVED_STUBS & set(listed) and len(texts) > 1:
        listed = [*_listed(texts[1]), *listed]
    never = _NEVER | set(more)
    return tuple(dict.fromkeys(each for each in listed if each not in never))[:_MOST]


def _listed(text: str) -> list[str]:
    found = []
    for each in parse_resolv_conf(text).servers:
        try:
            ip_address(each.partition("%")[0])
        except ValueError:
            continue
        found.append(each)
    return found


class Upstreams:
    """Keeps the list as the files are; a server that stays in it keeps what is known of it.

    Args:
        files: In the order of ``RESOLV_CONFS``.
        port: Where they listen.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        files: Sequence[Path] = RESOLV_CONFS,
        *,
        port: int = PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._port = port
        self._clock = clock
        self._looked_s = -_LOOK_S
        self._signature: tuple[object, ...] = ()
        self._servers: tuple[Upstream, ...] = ()

    @property
    def servers(self) -> tuple[Upstream, ...]:
        """Return the servers in the order of the file."""
        return self._servers

    def in_order(self) -> list[Upstream]:
        """Return the servers in the order in which to ask them: those at rest come last."""
        now_s = self._clock()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self.look()
        return sorted(self._servers, key=lambda each: max(0.0, each.rests_until_s - now_s))

    def look(self) -> None:
        """Read the files if one has changed; an unreadable one changes nothing."""
        signature = tuple(map(_signature, self._files))
        if signature == self._signature:
            return
        texts = [_text(each) for each in self._files]
        if texts[0] is None:
            return
        known = {each.address: each for each in self._servers}
        addresses = read_servers([each or "" for each in texts])
        found = [known.get(each) or self._upstream(each) for each in addresses]
        servers = tuple(each for each in found if each is not None)
        # One on a link that is not there yet is looked for again.
        self._signature = signature if len(servers) == len(found) else ()
        if servers != self._servers:
            self._servers = servers
            _log.info("upstreams", servers=[each.address for each in servers])

    def _upstream(self, address: str) -> Upstream | None:
        """Return a server; None while the link that its address names is not there."""
        try:
            found = socket.getaddrinfo(
                address, self._port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )[0]
        except OSError:
            return None
        return Upstream(address, found[0], found[4])


def _signature(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
