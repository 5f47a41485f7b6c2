"""Names of links: an index that no list has is no error, and costs one list."""

from __future__ import annotations

import struct

import pytest

from agent.kernel.netlink import attribute
from agent.kernel.netlink.links import RTM_DELLINK, RTM_NEWLINK, LinkNames, RawLink

pytestmark = pytest.mark.unit

AF_BRIDGE = 7


class Kernel:
    """Links by index, and how often they were listed."""

    def __init__(self) -> None:
        self.links = {1: "lo", 2: "eth0"}
        self.dumps = 0

    def dump(self) -> list[RawLink]:
        self.dumps += 1
        return [
            RawLink(number, name, "", up=True, running=True, mtu=1500, mac="")
            for number, name in self.links.items()
        ]


def link(index: int, name: str, family: int = 0) -> bytes:
    return struct.pack("=BBHiII", family, 0, 0, index, 0, 0) + attribute(3, name.encode() + b"\0")


def test_an_unknown_index_makes_one_list_and_then_has_a_name_of_its_own() -> None:
    kernel = Kernel()
    names = LinkNames(kernel.dump)
    assert names.of(2) == "eth0"
    assert [names.of(7), names.of(7), names.of(8)] == ["#7", "#7", "#8"]
    assert kernel.dumps == 1


def test_a_refresh_says_whether_a_name_in_use_is_another() -> None:
    kernel = Kernel()
    names = LinkNames(kernel.dump)
    names.of(2)
    kernel.links = {1: "lo", 2: "eth0", 9: "veth9"}
    assert not names.refresh()
    kernel.links = {1: "lo", 2: "eth5", 9: "veth8"}
    assert names.refresh()
    assert not names.refresh()
    assert names.of(2) == "eth5"


def test_notifications_are_followed() -> None:
    names = LinkNames(Kernel().dump)
    names.refresh()
    assert names.link(2) is not None
    assert names.follow(RTM_NEWLINK, link(2, "lan0")).name == "lan0"
    assert names.of(2) == "lan0"
    assert names.follow(RTM_DELLINK, link(2, "lan0", AF_BRIDGE)).number == 2
    assert names.of(2) == "lan0", "it left its bridge, no more"
    names.follow(RTM_DELLINK, link(1, "lo"))
    assert names.link(1) is None
    assert names.of(1) == "lo", "listed again: the kernel has it"
