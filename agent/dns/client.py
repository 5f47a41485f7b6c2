"""Ask a name server one question in the name of a container of this host, or many at once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from agent.errors import CannotTell, UsageError
from agent.model.family import Address, read_address

__all__ = ["Answer", "ask", "ask_many"]

_PAYLOAD: Final = 1232
_PACKET_BYTES: Final = 4096
_WINDOW: Final = 32
"""Questions that are open at a time: a server's buffer takes more."""
_ROUNDS: Final = 2
_SILENCE_S: Final = 1.0
_LEAST_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a server.

    Attributes:
        status: NOERROR, NXDOMAIN and so on (RFC 6895).
        addresses: In the order of the answer.
        ttl_s: The shortest of them, None without any.
        took_s: Until it came.
    """

    server: Address
    name: str
    status: str
    addresses: tuple[str, ...]
    ttl_s: int | None
    took_s: float


def ask(
    server: Address, name: str, *, asker: Address | None, timeout_s: float, port: int = 53
) -> Answer:
    """Return what a server answers for addresses of ``name``.

    Args:
        asker: The container of this host in whose name it is asked (RFC 7871); None: this host.

    Raises:
        CannotTell: It does not answer in time.
        UsageError: No server can be asked for such a name.
    """
    options: list[dns.edns.Option] = (
        [dns.edns.ECSOption(str(asker), asker.max_prefixlen)] if asker else []
    )
    try:
        query = dns.message.make_query(
            name, dns.rdatatype.A, use_edns=0, payload=_PAYLOAD, options=options
        )
    except (dns.exception.DNSException, UnicodeError) as error:
        raise UsageError(f"{name!r} is no name that DNS takes: {error}") from error
    began_s = time.monotonic()
    try:
        reply, _ = dns.query.udp_with_fallback(query, str(server), timeout=timeout_s, port=port)
    except (OSError, dns.exception.DNSException) as error:
        raise CannotTell(
            f"the name server at {server} does not answer: {error or type(error).__name__}",
            hint=f"systemctl status hostmesh-dns@{server}; agentctl status",
        ) from error
    return _answer(str(server), name, reply, time.monotonic() - began_s)


def ask_many(
    link: socket.socket, server: Address, names: Sequence[str], *, until_s: float, port: int = 53
) -> Mapping[str, Answer]:
    """Return what a server answers for addresses of each name, by name; without those unanswered.

    Args:
        link: An unconnected UDP socket of the network namespace to ask from.
        until_s: Monotonic time at which it ends in any case.
    """
    found: dict[str, Answer] = {}
    for _ in range(_ROUNDS):
        missing = deque(each for each in dict.fromkeys(names) if each not in found)
        before = len(found)
        _round(link, (str(server), port), missing, found, until_s)
        if len(found) == before:  # nothing at all: asking again costs the others their time
            break
    return found


def _round(
    link: socket.socket,
    server: tuple[str, int],
    names: deque[str],
    found: dict[str, Answer],
    until_s: float,
) -> None:
    """Keep a window of questions open until each has an answer, or none has come for a second."""
    waiting: dict[int, tuple[dns.message.QueryMessage, str, float]] = {}
    while names or waiting:
        while names and len(waiting) < _WINDOW:
            name = names.popleft()
            query = dns.message.make_query(name, dns.rdatatype.A, use_edns=0, payload=_PAYLOAD)
            waiting[query.id] = (query, name, time.monotonic())
            with contextlib.suppress(OSError):  # counts as not answered
                link.sendto(query.to_wire(), server)
        link.settimeout(max(_LEAST_S, min(_SILENCE_S, until_s - time.monotonic())))
        try:
            raw, sender = link.recvfrom(_PACKET_BYTES)
        except OSError:  # no answer in time, or the kernel says that the port is closed
            return
        query_id = int.from_bytes(raw[:2])
        if sender != server or query_id not in waiting:
            continue
        query, name, sent_s = waiting[query_id]
        with contextlib.suppress(dns.exception.DNSException):
            reply = dns.message.from_wire(raw, ignore_trailing=True)
            if query.is_response(reply):
                del waiting[query_id]
                found[name] = _answer(server[0], name, reply, time.monotonic() - sent_s)


def _answer(server: str, name: str, reply: dns.message.Message, took_s: float) -> Answer:
    found = [each for each in reply.answer if each.rdtype == dns.rdatatype.A]
    return Answer(
        server=read_address(server),
        name=name,
        status=dns.rcode.to_text(reply.rcode()),
        addresses=tuple(record.address for each in found for record in each),
        ttl_s=min((each.ttl for each in found), default=None),
        took_s=took_s,
    )
