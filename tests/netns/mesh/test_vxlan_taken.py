"""Another program has what the tunnel's device needs: it is named and left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

PORT = 8472


@pytest.fixture
def node() -> Iterator[Node]:
    stage = Stage(1)
    try:
        stage.create_mesh("vxlan")
        yield stage.nodes[0]
    finally:
        stage.close()


def condition(node: Node, name: str) -> dict[str, Any]:
    """Wait for a condition about the device."""

    def find() -> dict[str, Any] | None:
        found: list[dict[str, Any]] = node.document("status")["conditions"]
        return next((each for each in found if each["name"] == name), None)

    return eventually(find, 20)


def has_device(node: Node) -> bool:
    return "vxlan id 1 " in node.inside(["ip", "-d", "link", "show", "hm-vxlan"]).stdout


def test_promise_5_a_device_with_the_vni_and_port_is_named(node: Node) -> None:
    made = "ip link add flannel.1 type vxlan id 1 dstport 8472 local 192.0.2.1 dev eth0"
    assert node.inside(made.split()).returncode == 0
    node.start()
    found = condition(node, "link-refused")
    assert "flannel.1" in found["cause"]
    assert "ip link del flannel.1" in found["hint"]
    assert node.inside(["ip", "link", "show", "flannel.1"]).returncode == 0
    node.inside(["ip", "link", "del", "flannel.1"])
    eventually(lambda: has_device(node), 40)


def test_promise_5_a_program_with_the_port_is_named(node: Node) -> None:
    def listen() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with node.host.call(listen) as taken:
        taken.bind((node.address, PORT))
        node.start()
        found = condition(node, "link-refused")
        assert f"uses UDP port {PORT}" in found["cause"]
        assert "python" in found["cause"] or "pytest" in found["cause"]
    eventually(lambda: has_device(node), 40)


def test_promise_5_a_device_with_the_name_is_left_alone(node: Node) -> None:
    made = "ip link add hm-vxlan type vxlan id 77 dstport 4790 local 192.0.2.1 dev eth0"
    assert node.inside(made.split()).returncode == 0
    node.start()
    found = condition(node, "link-conflict")
    assert "hm-vxlan" in found["cause"]
    assert not has_device(node)
    node.inside(["ip", "link", "del", "hm-vxlan"])
    eventually(lambda: has_device(node), 40)
