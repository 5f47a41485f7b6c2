"""ICMP echo as bytes: what is sent checks, and nothing that is heard can hurt."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.liveness.icmp import echo_reply, echo_request

pytestmark = pytest.mark.property

_NUMBER = st.integers(0, 0xFFFF)


@given(_NUMBER, _NUMBER, st.binary(max_size=1500))
def test_a_request_checks_at_its_receiver(identifier: int, number: int, body: bytes) -> None:
    """RFC 1071: all words of a packet, its checksum with them, add up to ones only."""
    request = echo_request(identifier, number, body)
    assert request[8:] == body
    assert struct.unpack_from("!BB2xHH", request) == (8, 0, identifier, number)
    padded = request + bytes(len(request) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    assert total % 0xFFFF == 0
    assert total


@given(_NUMBER, _NUMBER, st.binary(max_size=64), st.binary(max_size=64))
def test_a_reply_is_read_behind_any_header_and_a_request_is_none(
    identifier: int, number: int, header: bytes, body: bytes
) -> None:
    request = echo_request(identifier, number, body)
    assert echo_reply(header + b"\0" + request[1:], len(header)) == (identifier, number)
    assert echo_reply(header + request, len(header)) is None


@given(st.binary(max_size=80), st.integers(0, 60))
def test_no_packet_raises(packet: bytes, offset: int) -> None:
    found = echo_reply(packet, offset)
    assert (found is None) or packet[offset] == 0
