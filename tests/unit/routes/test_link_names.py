"""Names of links: an index that no list has is no error, and costs one list."""

from __future__ import annotations

import struct

import pytest

from agent.kernel.netlink import attribute
from agent.kernel.netlink.links import RTM_DELLINK, RTM_NEWLINK, LinkNames, RawLink
from agent.kernel.tables.session import NetlinkSession

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


def test_a_name_that_was_given_out_and_is_another_now_is_a_new_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel()
    session = NetlinkSession()
    monkeypatch.setattr(session.names, "_dump", kernel.dump)
    session.list_links()
    session.name_of(2)
    kernel.links = {1: "lo", 2: "eth0", 9: "veth9"}
    session.list_links()
    assert session.version == 0
    kernel.links = {1: "lo", 2: "eth5", 9: "veth8"}
    session.list_links()
    session.list_links()
    assert session.version == 1
    assert session.name_of(2) == "eth5"


def test_tables_that_are_compared_together_list_links_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel()
    session = NetlinkSession()
    monkeypatch.setattr(session.names, "_dump", kernel.dump)
    with session.links_listed_once():
        session.list_links()
        session.list_links()
        assert kernel.dumps == 1
        session.written()
        session.list_links()
    assert kernel.dumps == 2
    session.list_links()
    session.list_links()
    assert kernel.dumps == 4, "elsewhere every list of objects lists them"


def test_promise_10_links_that_come_and_go_leave_nothing_behind() -> None:
    """A host that starts a container a second sees a new index each time."""
    names = LinkNames(Kernel().dump)
    names.refresh()
    for index in range(100, 1100):
        names.follow(RTM_NEWLINK, link(index, f"veth{index}"))
        assert names.of(index) == f"veth{index}"
        names.follow(RTM_DELLINK, link(index, f"veth{index}"))
        names.of(index)
    held = [each for each in vars(names).values() if isinstance(each, dict | set | list)]
    assert max(map(len, held)) <= len(Kernel().links)


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
