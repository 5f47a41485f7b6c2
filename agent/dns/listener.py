"""Listen on a service address, by UDP and TCP, and answer or forward each query."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from agent.dns.admission import Admission, Refused
from agent.dns.counters import Counters
from agent.dns.responder import Forward, Responder
from agent.dns.wire import BadQuery, Query, Rcode, pack_reply, question_of, read_query
from agent.model.family import Address, family_of

__all__ = ["Listener", "TcpForward", "UdpForward"]

_IP_PKTINFO, _IP_PKTOPTIONS, _IP_FREEBIND = 8, 9, 15
_PKTINFO: Final = struct.Struct("i4s4s")
_CMSG_HEADER: Final = 16
_ROOM: Final = 64
_BUFFER: Final = 1 << 20
_LARGEST_QUERY: Final = 4096
_AT_ONCE: Final = 64
"""Datagrams that are read before other sockets get their time."""
_LARGEST_TCP: Final = 65535
_IDLE_S: Final = 10.0
_CONNECTIONS: Final = 256
_CONNECTIONS_OF_ASKER: Final = 32
_MOST_OF_HOST: Final = 8
"""Queries of this host with one question that are forwarded at a time: a resolver of the host that
asks here may be asked from here, and so ask for ever."""

UdpForward = Callable[[bytes, str, Callable[[bytes | None], None]], None]


class TcpForward(Protocol):
    """Forwards one query by TCP."""

    async def __call__(self, data: bytes) -> bytes | None:
        """Return the reply, None if there is none."""


@dataclass(frozen=True, slots=True)
class _Onward:
    """A query to forward; ``question`` is for the limit of this host's own, b"" of others."""

    question: bytes


class Listener:
    """Serves one address.

    Args:
        address: It need not be on an interface yet.
        responder: Answers names of the mesh.
        admission: Says who is served.
        forward_udp, forward_tcp: Have other names answered.
        counters: Of the process.
        port: DNS's, except in tests.
    """

    def __init__(
        self,
        address: Address,
        *,
        responder: Responder,
        admission: Admission,
        forward_udp: UdpForward,
        forward_tcp: TcpForward,
        counters: Counters,
        port: int = 53,
    ) -> None:
        self._address = address
        self._responder = responder
        self._admission = admission
        self._forward_udp = forward_udp
        self._forward_tcp = forward_tcp
        self._counters = counters
        self._port = port
        self._connections: Counter[str] = Counter()
        self._of_host: Counter[bytes] = Counter()
        self._udp: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def start(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Begin to serve.

        Args:
            inherited: Sockets that systemd has opened. It keeps them over a restart of this
                process, so that no query is lost meanwhile.

        Raises:
            OSError: Another program has the port, or this one may not have it.
        """
        udp = self._socket(socket.SOCK_DGRAM, inherited)
        tcp = self._socket(socket.SOCK_STREAM, inherited)
        self._server = await asyncio.start_server(self._converse, sock=tcp, limit=_LARGEST_TCP + 2)
        asyncio.get_running_loop().add_reader(udp, self._readable, udp)
        self._udp = udp

    def close(self) -> None:
        """Answer what has come, and take no more."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._readable(self._udp)
        if self._server is not None:
            self._server.close()

    def _socket(self, kind: socket.SocketKind, inherited: Sequence[socket.socket]) -> socket.socket:
        found = next((each for each in inherited if each.type is kind), None)
        if found is None:
            found = socket.socket(family_of(self._address).af, kind)
            found.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            if kind is socket.SOCK_STREAM:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            found.bind((str(self._address), self._port))
        found.setblocking(False)  # noqa: FBT003 - socket's own
        found.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        return found

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, options, flags, sender = udp.recvmsg(_LARGEST_QUERY, _ROOM)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier reply
                continue
            interface = next((_PKTINFO.unpack_from(each[2])[0] for each in options), 0)
            if flags & socket.MSG_TRUNC:
                self._counters.malformed += 1
            else:
                self._datagram(udp, data, sender, interface)

    def _datagram(
        self, udp: socket.socket, data: bytes, sender: tuple[str, int], interface: int
    ) -> None:
        reply = self._reply(data, sender[0], interface, None)
        if isinstance(reply, _Onward):
            forwarded = partial(self._forwarded, udp, data, sender, reply.question)
            self._forward_udp(data, sender[0], forwarded)
        elif reply:
            _send(udp, reply, sender)

    def _forwarded(
        self,
        udp: socket.socket,
        data: bytes,
        sender: tuple[str, int],
        question: bytes,
        reply: bytes | None,
    ) -> None:
        self._end(question)
        _send(udp, reply or self._no_reply(data), sender)

    def _reply(
        self, data: bytes, source: str, interface: int, largest: int | None
    ) -> bytes | _Onward:
        self._counters.queries += 1
        asker = self._admission.judge(source, interface)
        if isinstance(asker, Refused):
            self._counters.refused += 1
            return _refusal(data)
        reply = self._responder.respond(data, asker, largest=largest)
        if isinstance(reply, Forward):
            return self._onward(data, is_host=asker is None)
        if reply:
            self._counters.answered += 1
        else:
            self._counters.malformed += 1
        return reply

    def _onward(self, data: bytes, *, is_host: bool) -> bytes | _Onward:
        question = (question_of(data) or b"").lower() if is_host else b""
        if self._of_host[question] >= _MOST_OF_HOST:
            self._counters.over_limit += 1
            return _refusal(data)
        if question:
            self._of_host[question] += 1
        self._counters.forwarded += 1
        return _Onward(question)

    def _end(self, question: bytes) -> None:
        self._of_host[question] -= 1
        self._of_host += Counter()  # keeps those above zero

    def _no_reply(self, data: bytes) -> bytes:
        self._counters.unanswered += 1
        return pack_reply(data, _query_of(data), Rcode.SERVFAIL)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = str((writer.get_extra_info("peername") or ("",))[0])
        if (
            self._connections[source] < _CONNECTIONS_OF_ASKER
            and self._connections.total() < _CONNECTIONS
        ):
            self._connections[source] += 1
            try:
                await self._queries(reader, writer, source)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                pass  # the other side is gone, or says nothing
            finally:
                self._connections[source] -= 1
                self._connections += Counter()  # keeps those above zero
        else:
            self._counters.over_limit += 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _queries(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str
    ) -> None:
        interface = _interface_of(writer)
        while True:
            async with asyncio.timeout(_IDLE_S):
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            reply = self._reply(data, source, interface, _LARGEST_TCP)
            if isinstance(reply, _Onward):
                question = reply.question
                try:
                    reply = await self._forward_tcp(data) or self._no_reply(data)
                finally:
                    self._end(question)
            if not reply:
                return
            writer.write(len(reply).to_bytes(2, "big") + reply)
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()


def _interface_of(writer: asyncio.StreamWriter) -> int:
    """Return the index of the interface that a connection came in by, 0 if it is not known."""
    connection: socket.socket = writer.get_extra_info("socket")
    options = connection.getsockopt(socket.IPPROTO_IP, _IP_PKTOPTIONS, _ROOM)
    if len(options) < _CMSG_HEADER + _PKTINFO.size:
        return 0
    return int(_PKTINFO.unpack_from(options, _CMSG_HEADER)[0])


def _send(udp: socket.socket, reply: bytes, sender: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # a full buffer, or an asker that is gone: it asks again
        udp.sendto(reply, sender)


def _query_of(data: bytes) -> Query | None:
    try:
        return read_query(data)
    except BadQuery:
        return None


def _refusal(data: bytes) -> bytes:
    query = _query_of(data)
    return pack_reply(data, query, Rcode.REFUSED) if query else b""
