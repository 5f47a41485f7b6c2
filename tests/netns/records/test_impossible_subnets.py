"""Records by which a host would hold a subnet that no host can hold, in etcd and in its copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from agent.registry.own.identity import host_id
from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.netns

OWN = host_id(f"{1:032x}")


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(2)
    try:
        made.create_mesh()
        yield made
    finally:
        made.close()


def as_if_it_renumbered_docker(node: Node) -> None:
    """Have the agent divide its subnet as it does where a Docker is; there is none here."""
    text = node.settings.read_text().replace("manage = false", "manage = true", 1)
    text = text.replace("[docker]\n", f'[docker]\ndaemon_json = "{node.folder}/daemon.json"\n')
    node.settings.write_text(text)


def put(stage: Stage, key: str, value: object) -> None:
    assert stage.etcdctl("put", f"/hostmesh/{key}", json.dumps(value)).returncode == 0


def reported(node: Node) -> str:
    return " ".join(each["subject"] for each in node.document("status")["conditions"])


@pytest.mark.parametrize("length", [11, 32])
def test_promise_8_what_etcd_says_a_host_had_is_not_taken_when_no_host_can_have_it(
    stage: Stage, length: int
) -> None:
    """By memory and by a reservation; a copy that was saved before etcd was repaired, too."""
    node, peer = stage.nodes
    as_if_it_renumbered_docker(node)
    put(stage, f"memory/{OWN}", {"Subnet": f"10.64.0.0/{length}"})
    put(stage, f"reservations/10.96.0.0-{length}", {"HostID": OWN})
    node.start()
    subnet = IPv4Network(eventually(node.subnet, 30))
    assert subnet.prefixlen == 24
    assert f"reservations/10.96.0.0-{length}" in reported(node)
    peer.start()
    eventually(peer.subnet, 30)
    eventually(lambda: str(subnet) in peer.host.ip("route show proto 140"), 20)
    node.stop()

    stage.etcdctl("del", f"/hostmesh/reservations/10.96.0.0-{length}")
    stage.etcdctl("del", f"/hostmesh/memory/{OWN}")
    stage.etcdctl("del", f"/hostmesh/subnets/{str(subnet).replace('/', '-')}")
    _saved(node, f"10.64.0.0/{length}")
    node.start()
    again = IPv4Network(eventually(node.subnet, 30))
    assert again.prefixlen == 24
    node.stop()


def _saved(node: Node, subnet: str) -> None:
    """Write into the copy, whole and sealed, that ``subnet`` is this host's in every record."""
    path = node.folder / "state/copy.json"
    body = json.loads(json.loads(path.read_text())["body"])
    lease = {**body["lease"], "subnet": subnet}
    others = [each for each in body["view"]["leases"] if each["host_id"] != OWN]
    view = {"leases": [*others, lease], "memory": {OWN: subnet}, "reservations": {subnet: OWN}}
    text = json.dumps({**body, "lease": lease, "view": {**body["view"], **view}})
    envelope = {"version": 1, "body": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(envelope))
