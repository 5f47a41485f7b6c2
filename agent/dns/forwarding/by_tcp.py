"""Forward a query by TCP: as by UDP, but a query at a time on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Final

from agent.dns.counters import Counters
from agent.dns.forwarding.by_udp import NOT_FINAL, fits
from agent.dns.forwarding.upstreams import Upstream, Upstreams
from agent.dns.wire import question_of

__all__ = ["forward_by_tcp"]

_DEADLINE_S: Final = 9.0
_CONNECT_S: Final = 2.0
_REPLY_S: Final = 5.0
_LARGEST: Final = 65535 + 2


async def forward_by_tcp(upstreams: Upstreams, counters: Counters, data: bytes) -> bytes | None:
    """Return the reply of the first upstream that has one, None if none has.

    Args:
        data: The query, of which the question could be read.
    """
    question = question_of(data)
    if question is None:
        return None
    refusal = None
    try:
        async with asyncio.timeout(_DEADLINE_S):
            for upstream in upstreams.in_order():
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    reply = await _ask(upstream, data[2:])
                    if fits(reply, reply[:2], question):
                        if reply[3] & 15 not in NOT_FINAL:
                            return data[:2] + reply[2:]
                        refusal = refusal or data[:2] + reply[2:]
                counters.upstream_failures += 1
    except TimeoutError:
        pass
    return refusal


async def _ask(upstream: Upstream, message: bytes) -> bytes:
    identity = secrets.token_bytes(2)
    host, port = upstream.address, upstream.sockaddr[1]
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(host, port, limit=_LARGEST)
    try:
        async with asyncio.timeout(_REPLY_S):
            writer.write((len(message) + 2).to_bytes(2, "big") + identity + message)
            await writer.drain()
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    return reply if reply[:2] == identity else b""
