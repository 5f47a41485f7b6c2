"""Open the sockets of a check: of this host, of a container, and one on each shared network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self, TypeVar

from agent.ctl.check.judge import SentBy
from agent.ctl.path.ends import LocalHost
from agent.ctl.path.senders import (
    Sender,
    containers_of,
    host_itself,
    inside,
    no_sender,
    on_network,
)
from agent.errors import HostmeshError
from agent.kernel.diagnose.sweep import EchoSocket
from agent.model.family import Network, family_of
from agent.model.names import NAME_SERVERS
from agent.model.network import NETWORK_LABEL

__all__ = ["Link", "Senders"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Link:
    """A socket to send by, and its sender for messages."""

    echo: EchoSocket
    sent_by: SentBy


@dataclass(slots=True, kw_only=True)
class Senders:
    """The sockets of one check. Close it.

    Attributes:
        host: Of this host, from the address that its routes say.
        main: Containers of the network that the mesh reaches, the best first; else this host's
            address in its lease; else nothing.
        networks: By mesh network: a container on it.
        gaps: By mesh network: why no container of this host can send there.
        names: Asks name servers, as a container does where there is one.
        untested: Why no container sends; "" where one does.
    """

    host: EchoSocket
    main: tuple[Link, ...] = ()
    networks: Mapping[str, Link] = field(default_factory=dict)
    gaps: Mapping[str, str] = field(default_factory=dict)
    names: socket.socket
    untested: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(cls, place: LocalHost, subnet: Network, named: str | None) -> Self:
        """Open them.

        Raises:
            NotRoot: This user may not.
            KernelError: There are no sockets.
        """
        with ExitStack() as stack:
            host = stack.enter_context(contextlib.closing(EchoSocket()))
            opener = _Opener(place, stack)
            containers = containers_of(place, subnet, named)
            main = tuple(opener.links(containers))
            untested = "" if main else opener.problem or no_sender(place)
            if not main:
                main = tuple(opener.links(host_itself(place, subnet), untested))
                if not main:
                    untested += f", and no link of this host has an address in {subnet}"
            networks, gaps = opener.networks(subnet)
            asker = containers[0] if main and main[0].sent_by.name else None
            names = opener.enter(asker, _udp_socket) if asker else _udp_socket()
            stack.enter_context(names)
            return cls(
                host=host,
                main=main,
                networks=networks,
                gaps=gaps,
                names=names,
                untested=untested,
                _stack=stack.pop_all(),
            )

    def close(self) -> None:
        """Close every socket."""
        self._stack.close()


class _Opener:
    def __init__(self, place: LocalHost, stack: ExitStack) -> None:
        self.problem = ""
        self._place = place
        self._stack = stack

    def enter(self, sender: Sender, function: Callable[[], _T]) -> _T:
        return inside(self._place, sender, function)

    def links(self, senders: Sequence[Sender], problem: str = "") -> Iterator[Link]:
        """Yield links of those senders that can send; a container may have ended."""
        for each in senders:
            try:
                echo = self.enter(each, lambda each=each: EchoSocket(each.address))  # type: ignore[misc]
            except HostmeshError as error:
                self.problem = error.message
                continue
            self._stack.callback(echo.close)
            name = each.container.name if each.container else ""
            yield Link(echo, SentBy(each.address, name, problem))

    def networks(self, subnet: Network) -> tuple[dict[str, Link], dict[str, str]]:
        """Return a link for each mesh network of this host, and why there is none for others."""
        found, gaps = {}, {}
        labels = {each.labels.get(NETWORK_LABEL, "") for each in self._place.networks}
        for name in sorted(filter(None, labels)):
            link = next(self.links(on_network(self._place, subnet, name)), None)
            if link is None:
                gaps[name] = f"{name}: no container of this host is on it alone"
            else:
                found[name] = link
        return found, gaps


def _udp_socket() -> socket.socket:
    return socket.socket(family_of(NAME_SERVERS[0]).af, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
