"""Ask one name server one question, in the name of a container of this host."""

from __future__ import annotations

import time
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
from agent.model.family import Address

__all__ = ["Answer", "ask"]

_PAYLOAD: Final = 1232


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
    found = [each for each in reply.answer if each.rdtype == dns.rdatatype.A]
    return Answer(
        server=server,
        name=name,
        status=dns.rcode.to_text(reply.rcode()),
        addresses=tuple(record.address for each in found for record in each),
        ttl_s=min((each.ttl for each in found), default=None),
        took_s=time.monotonic() - began_s,
    )
