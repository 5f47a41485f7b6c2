"""wireguard with the kernel's own device: runs where the kernel has one, skips loudly elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.netns.backends.wireguard import LINK, peers_of, public_key
from tests.netns.mesh.stage import Node, Stage, all_reached, container_of
from tests.netns.netlab import Host
from tests.waiting import eventually

pytestmark = pytest.mark.netns

NO_USERSPACE = '[wireguard]\nstart_command = ["false"]\n'


def missing() -> str:
    """Return what keeps the kernel's device from being tested here, "" for nothing."""
    if shutil.which("wg") is None:
        return "wg is not installed"
    host = Host("probe")
    try:
        host.ip("link add wg0 type wireguard", check=False)
        made = host.ip("link show wg0", check=False)
    finally:
        host.close()
    return "" if made else "the kernel has no wireguard: ip link add type wireguard is refused"


@pytest.fixture
def stage() -> Iterator[Stage]:
    if reason := missing():
        pytest.skip(reason)
    stage = Stage(2, extra=NO_USERSPACE)
    try:
        stage.start("wireguard")
        for node in stage.nodes:
            container_of(node)
        yield stage
    finally:
        stage.close()


def kind_of(node: Node) -> str:
    found = json.loads(node.inside(["ip", "-d", "-j", "link", "show", LINK]).stdout or "[]")
    return str(found[0]["linkinfo"]["info_kind"]) if found else ""


def test_the_kernels_device_carries_packets_and_is_made_again(stage: Stage) -> None:
    one, two = stage.nodes
    eventually(lambda: all_reached(stage), 60)
    assert kind_of(one) == "wireguard", "wireguard-go's would be tun"
    assert peers_of(one) == {public_key(two): (f"{two.address}:51820", two.subnet())}
    one.inside(["ip", "link", "del", LINK])
    eventually(lambda: all_reached(stage), 60)
    assert kind_of(one) == "wireguard"
