"""The wire: what is decoded, and that an error or half an answer is never a result."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.kernel.netlink import HEADER, NetlinkError, NetlinkSocket, NotAnswered
from agent.kernel.netlink.routes import decode_route, route_body
from agent.model import Route

pytestmark = pytest.mark.unit

ROUTE = Route(
    destination=IPv4Network("10.65.0.0/16"),
    gateway=IPv4Address("192.0.2.11"),
    link="eth7",
    protocol=140,
    table=1000,
    metric=9,
    tos=4,
    prefsrc=IPv4Address("192.0.2.1"),
)

NAMES = {7: "eth7"}
MULTICAST_ROUTE = struct.pack("=BBBBBBBBI", 128, 32, 0, 0, 254, 140, 0, 1, 0)

DUMP = bytes(12)
DONE, ERROR, OVERRUN, NEWROUTE = 3, 2, 4, 24
INTERRUPTED = 0x10


def test_promise_5_a_deletion_bears_our_protocol() -> None:
    body = route_body(replace(ROUTE, kind="unicast+metrics"), 7, deleting=True)
    found = decode_route(body, NAMES.__getitem__)
    assert found is not None
    assert found.protocol == 140
    assert found.kind == "unicast"


def test_multicast_routes_are_left_out() -> None:
    assert decode_route(MULTICAST_ROUTE, NAMES.__getitem__) is None


class Scripted(NetlinkSocket):
    """Answers with what it is given; no socket."""

    def __init__(self, *answers: list[tuple[int, int, bytes]]) -> None:
        self._timeout_s = 1.0
        self._sequence = 0
        self._answers = list(answers)

    def _send(self, data: bytes, what: str) -> None:
        pass

    def _receive(self, _deadline_s: float, what: str) -> bytes:
        if not self._answers:
            raise NotAnswered(what)
        return b"".join(
            HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body
            for kind, flags, body in self._answers.pop(0)
        )


def done(result: int = 0) -> tuple[int, int, bytes]:
    return (DONE, 0, struct.pack("=i", result))


def test_a_complete_dump() -> None:
    found = Scripted([(NEWROUTE, 0, b"aaaa")], [(NEWROUTE, 0, b"bbbb"), done()]).dump(26, DUMP, "x")
    assert found == [b"aaaa", b"bbbb"]


def test_promise_4_interrupted_dump_is_thrown_away_and_asked_again() -> None:
    found = Scripted(
        [(NEWROUTE, INTERRUPTED, b"half"), done()], [(NEWROUTE, 0, b"full"), done()]
    ).dump(26, DUMP, "x")
    assert found == [b"full"]


def test_promise_4_an_interruption_flagged_at_the_end_counts() -> None:
    found = Scripted(
        [(NEWROUTE, 0, b"half"), (DONE, INTERRUPTED, bytes(4))], [(NEWROUTE, 0, b"full"), done()]
    ).dump(26, DUMP, "x")
    assert found == [b"full"]


def test_promise_10_interrupted_for_ever_is_an_error() -> None:
    half = [(NEWROUTE, INTERRUPTED, b"half"), done()]
    with pytest.raises(NotAnswered, match="changed during"):
        Scripted(*([half] * 50)).dump(26, DUMP, "x")


@pytest.mark.parametrize(
    "end",
    [
        (DONE, 0, struct.pack("=i", -errno.ENOMEM)),
        (ERROR, 0, struct.pack("=i", -errno.EPERM) + bytes(16)),
        (OVERRUN, 0, b""),
    ],
)
def test_promise_4_a_dump_that_ends_badly_is_an_error_not_a_short_list(
    end: tuple[int, int, bytes],
) -> None:
    with pytest.raises((NetlinkError, NotAnswered)):
        Scripted([(NEWROUTE, 0, b"some"), end]).dump(26, DUMP, "x")


def test_promise_4_silence_is_an_error() -> None:
    with pytest.raises(NotAnswered):
        Scripted([(NEWROUTE, 0, b"some")]).dump(26, DUMP, "x")


def test_the_kernels_own_words_reach_the_message() -> None:
    words = b"Nexthop has invalid gateway\0"
    tlv = struct.pack("=HH", 4 + len(words), 1) + words
    payload = struct.pack("=i", -errno.ENETUNREACH) + HEADER.pack(16, 24, 0, 1, 0) + tlv
    with pytest.raises(NetlinkError, match="Nexthop has invalid gateway"):
        Scripted([(ERROR, 0x300, payload)]).request(24, b"", "adding a route")
