"""Recognise an underlay that drops containers' addresses, as clouds do."""

from __future__ import annotations

import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.errors import KernelError
from agent.kernel.diagnose.source_filter import Passage, passage
from agent.kernel.facts import read_host_facts
from agent.kernel.uplink import choose_uplink
from agent.model import Uplink
from tests.netns.netlab import Host, Lan

pytestmark = pytest.mark.netns

SOURCE = IPv4Address("10.64.0.2")
PEER = IPv4Address("192.0.2.2")


def uplink_of(host: Host) -> Uplink:
    return host.call(lambda: choose_uplink(read_host_facts(), "eth0"))


def ask(host: Host) -> Passage:
    return host.call(passage, uplink_of(host), PEER, SOURCE, attempts=4, wait_s=0.3)


@pytest.fixture
def pair(lan: Lan) -> tuple[Host, Host]:
    one, two = lan.add("192.0.2.1/24"), lan.add("192.0.2.2/24")
    two.ip("route add 10.64.0.0/16 via 192.0.2.1")
    return one, two


def test_a_link_that_carries_everything_is_open(pair: tuple[Host, Host]) -> None:
    """No interface of this host has the address: it need not be a member yet."""
    assert ask(pair[0]) is Passage.OPEN
    assert "10.64" not in pair[0].ip("address")


def test_a_source_check_on_the_way_is_found(pair: tuple[Host, Host]) -> None:
    filtered(pair[1], "! -s 192.0.2.0/24")
    assert ask(pair[0]) is Passage.FILTERED


def test_a_peer_that_answers_nobody_says_nothing(pair: tuple[Host, Host]) -> None:
    filtered(pair[1], "-p icmp")
    started_s = time.monotonic()
    assert ask(pair[0]) is Passage.UNKNOWN
    assert time.monotonic() - started_s < 20


def test_an_interface_that_is_down_is_said(pair: tuple[Host, Host]) -> None:
    uplink = uplink_of(pair[0])
    pair[0].ip("link set eth0 down")
    with pytest.raises(KernelError, match=r"cannot probe 192\.0\.2\.2 by eth0"):
        pair[0].call(passage, uplink, PEER, SOURCE)


def filtered(host: Host, what: str) -> None:
    """Drop before anything else sees it, as a switch or a hypervisor would."""
    command = ["iptables", "-t", "raw", "-I", "PREROUTING", *what.split(), "-j", "DROP"]
    host.call(subprocess.run, command, check=True)


def test_masquerading_on_this_host_is_no_source_check(pair: tuple[Host, Host]) -> None:
    """As Docker does with what containers send: the probe leaves below it."""
    rule = ["iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.64.0.0/16", "-j", "MASQUERADE"]
    pair[0].call(subprocess.run, rule, check=True)
    assert ask(pair[0]) is Passage.OPEN


def test_a_peer_whose_own_firewall_drops_containers_is_no_source_check(
    pair: tuple[Host, Host],
) -> None:
    one, two = pair
    two.ip("route add 10.65.0.0/16 dev lo")
    two.call(Path("/proc/sys/net/ipv4/ip_forward").write_text, "1")
    rule = ["iptables", "-I", "INPUT", "-s", "10.64.0.0/16", "-j", "DROP"]
    two.call(subprocess.run, rule, check=True)
    assert ask(one) is Passage.FILTERED
    beyond = IPv4Address("10.65.0.2")
    found = one.call(passage, uplink_of(one), PEER, SOURCE, beyond=beyond, attempts=4, wait_s=0.3)
    assert found is Passage.OPEN
