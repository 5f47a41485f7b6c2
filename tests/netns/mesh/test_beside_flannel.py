"""A real flanneld on the same prefix: both ways, by tunnel and with DirectRouting.

Needs ``flanneld`` on PATH; without it the tests skip, and say so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.netns.mesh.stage import Node
from tests.netns.mesh.twolans import TwoLans, captured, is_vxlan
from tests.netns.netlab import Host
from tests.waiting import eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        shutil.which("flanneld") is None,
        reason="no flanneld on PATH: interoperation with the real flannel is NOT tested",
    ),
]


class Flannel:
    """flanneld on a host, and a bridge in its subnet as Docker would make it there."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self._subnet_file = folder / "subnet.env"
        self._log = folder / "flanneld.log"
        command = [
            "flanneld",
            "-etcd-endpoints=http://192.0.2.100:2379",
            "-etcd-prefix=/hostmesh",
            "-iface=eth0",
            f"-subnet-file={self._subnet_file}",
        ]

        def start() -> subprocess.Popen[bytes]:
            with self._log.open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log)

        self._process = host.call(start)
        eventually(self._subnet_file.exists, 30)
        settings = dict(
            line.split("=", 1) for line in self._subnet_file.read_text().splitlines() if "=" in line
        )
        self.address = settings["FLANNEL_SUBNET"].partition("/")[0]
        self.mtu = int(settings["FLANNEL_MTU"])
        host.ip("link add docker0 type bridge")
        host.ip(f"addr add {settings['FLANNEL_SUBNET']} dev docker0")
        host.ip("link set docker0 up")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def reaches(self, address: str) -> bool:
        return pings(self.host, self.address, address)


def pings(host: Host, source: str, address: str) -> bool:
    command = ["ping", "-c1", "-W1", "-I", source, address]
    return host.call(subprocess.run, command, capture_output=True, check=False).returncode == 0


def bridge_of(node: Node) -> str:
    address = str(IPv4Network(node.subnet())[1])
    node.host.ip("link add docker0 type bridge")
    node.host.ip(f"addr add {address}/24 dev docker0")
    node.host.ip("link set docker0 up")
    return address


@pytest.fixture
def stage() -> Iterator[TwoLans]:
    """One agent and etcd; flannel's hosts are one beside it and one beyond the router."""
    stage = TwoLans(1, beyond=1)
    try:
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("direct", [False, True], ids=["tunnel", "direct-routing"])
def test_a_flannel_host_and_the_agent_reach_each_other(stage: TwoLans, *, direct: bool) -> None:
    stage.create_mesh("vxlan", VNI=1, DirectRouting=direct)
    ours, other = stage.nodes
    ours.start()
    eventually(ours.subnet, 30)
    inner = bridge_of(ours)
    beyond = Flannel(other.host, other.folder)
    (stage.folder / "near").mkdir()
    near = Flannel(stage.lan.add("192.0.2.50/24"), stage.folder / "near")
    near.host.ip("route add 198.51.100.0/24 via 192.0.2.254")
    try:
        for flannel in (near, beyond):
            eventually(partial(pings, ours.host, inner, flannel.address), 30)
            eventually(partial(flannel.reaches, inner), 30)
        with captured(ours.host, "eth0") as packets:
            assert pings(ours.host, inner, near.address)
            assert near.reaches(inner)
            assert pings(ours.host, inner, beyond.address)
        tunnelled = len(list(filter(is_vxlan, packets)))
        assert tunnelled == (2 if direct else 6)
        names = {each["name"] for each in ours.document("status")["conditions"]}
        assert not names & {"peer-data-unusable", "peer-backend-differs", "link-refused"}
        assert near.mtu == 1450

        # flannel's device is made anew, with another MAC, when flanneld starts again.
        near.host.ip("link del flannel.1")
        near.host.ip("link del docker0")
        near.stop()
        near = Flannel(near.host, stage.folder / "near")
        eventually(lambda: pings(ours.host, inner, near.address), 30)
        record = json.loads(
            stage.etcdctl("get", "--prefix", "/hostmesh/subnets/", "-w", "json").stdout
        )
        assert record["count"] == 3
    finally:
        near.stop()
        beyond.stop()
