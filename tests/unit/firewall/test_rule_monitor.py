"""Read the kernel's announcements of rules."""

import struct

import pytest

from agent.kernel.firewall.rule_monitor import changes_in

pytestmark = pytest.mark.unit


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, *attributes: bytes) -> bytes:
    body = bytes(4) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


NEWGEN = 10 << 8 | 15


def test_a_transaction_names_its_program() -> None:
    attributes = (
        attribute(1, struct.pack("!I", 9)),
        attribute(2, struct.pack("!I", 4711)),
        attribute(3, b"iptables-nft\0"),
    )
    data = message(10 << 8 | 6, attribute(1, b"x")) + message(NEWGEN, *attributes)
    assert list(changes_in(data)) == [(4711, "iptables-nft")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 16,
        b"\xff" * 40,
        message(NEWGEN)[:-1],
        struct.pack("=IHHII", 3, NEWGEN, 0, 0, 0),
    ],
)
def test_nonsense_is_nothing(data: bytes) -> None:
    assert list(changes_in(data)) == []


def test_a_transaction_without_a_name_counts() -> None:
    assert list(changes_in(message(NEWGEN, b"\1\0\2\0"))) == [(0, "unknown")]
