"""A host's node address changes: its lease is updated, peers follow, lost packets are counted.

Two agents and etcd are real; a container of the host that is re-addressed is asked all the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.netns.netlab import Host, Pinger
from tests.netns.routes.scene import shown
from tests.waiting import eventually

pytestmark = pytest.mark.netns

OLD, NEW = "192.0.2.2", "192.0.2.62"
FOLLOWED_S = 1.0
ARP_S = 1.5


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(2)
    try:
        made.start()
        yield made
    finally:
        made.close()


def container_of(node: Node) -> tuple[str, str]:
    """The host's subnet, and an address in it that answers."""
    subnet = IPv4Network(node.subnet())
    node.host.ip("link add docker0 type bridge")
    node.host.ip(f"addr add {subnet[1]}/24 dev docker0")
    node.host.ip("link set docker0 up")
    return str(subnet), str(subnet[1])


def leads_to(host: Host, subnet: str, address: str) -> bool:
    return f"{subnet} via {address} dev eth0" in shown(host)


def test_promise_2_peers_follow_a_new_address_within_a_second(stage: Stage) -> None:
    """As a DHCP client does it: the old address goes before the new one comes."""
    here, moved = stage.nodes
    subnet, container = container_of(moved)
    eventually(lambda: leads_to(here.host, subnet, OLD))
    ping = Pinger(here.host, container)
    time.sleep(0.3)
    started_s = time.monotonic()
    moved.host.ip(f"addr del {OLD}/24 dev eth0")
    moved.host.ip(f"addr add {NEW}/24 dev eth0")
    changed_s = time.monotonic()
    eventually(lambda: leads_to(here.host, subnet, NEW), 5)
    followed_s = time.monotonic() - changed_s
    time.sleep(ARP_S)
    seen = ping.stop()
    lost = [at - started_s for _, at in seen.lost]
    print(f"followed in {followed_s:.2f} s; {len(lost)} of {seen.sent} lost")
    assert followed_s < FOLLOWED_S
    assert all(0 <= at <= changed_s - started_s + FOLLOWED_S for at in lost)
    assert moved.subnet() == subnet
    assert leads_to(moved.host, IPv4Network(here.subnet()).with_prefixlen, here.address)


def test_promise_2_where_the_new_address_comes_first_nothing_is_lost(stage: Stage) -> None:
    here, moved = stage.nodes
    subnet, container = container_of(moved)
    promote = Path("/proc/sys/net/ipv4/conf/eth0/promote_secondaries")
    moved.host.call(promote.write_text, "1")
    ping = Pinger(here.host, container, 0.002)
    time.sleep(0.3)
    moved.host.ip(f"addr add {NEW}/24 dev eth0")
    moved.host.ip(f"addr del {OLD}/24 dev eth0")
    eventually(lambda: leads_to(here.host, subnet, NEW), 5)
    time.sleep(0.5)
    seen = ping.stop()
    assert seen.sent > 100
    assert seen.lost == []
