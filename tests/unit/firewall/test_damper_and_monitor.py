"""How often repairs are tried, and what the kernel's announcements say."""

import struct

import pytest

from agent.kernel.firewall.damper import Damper
from agent.kernel.firewall.monitor import changes_in

pytestmark = pytest.mark.unit


def test_a_burst_of_repairs_goes_through_then_one_in_five_seconds_until_it_is_quiet() -> None:
    damper = Damper()
    for second in range(20):
        assert damper.allows(second)
        damper.repaired(second)
    assert damper.contested(20)
    assert not damper.allows(20)
    assert not damper.allows(23.9)
    assert damper.allows(24)
    damper.repaired(24)
    assert not damper.allows(25)
    assert damper.total == 21
    assert not damper.contested(55)


def test_promise_10_a_fight_of_minutes_is_one_condition_and_one_repair_in_five_seconds() -> None:
    """Somebody undoes every repair at once: no new burst after half a minute."""
    damper = Damper()
    contested = []
    for tick in range(3_000):
        now_s = tick / 10
        if damper.allows(now_s):
            damper.repaired(now_s)
        contested.append(damper.contested(now_s))
    assert damper.total <= 20 + 300 / 5
    assert contested.index(True) < 25
    assert all(contested[contested.index(True) :])
    assert not damper.contested(300 + 31)


def test_seldom_repairs_are_never_held_back() -> None:
    damper = Damper()
    for repair in range(50):
        assert damper.allows(repair * 2.0)
        damper.repaired(repair * 2.0)


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


def test_a_transaction_that_names_nobody_is_one_all_the_same() -> None:
    assert list(changes_in(message(NEWGEN, b"\1\0\2\0"))) == [(0, "unknown")]
