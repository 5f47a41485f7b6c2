"""Another host's account opens nothing of a mesh network that its host is not in.

Real agents and an etcd with roles for each host, as deploy/etcd/hosts.sh makes them. Two honest
hosts are in mesh network "web"; the attacker has all that the third host has. What an honest host
opens to a slice is the set of the network's slices, which its rules name.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network

import pytest

from agent.mesh.firewall import slices_set
from agent.model.family import IPV4
from tests.netns.mesh.stage import Node, Stage
from tests.netns.records.test_one_hosts_credentials import Attacker, ask, name, staged
from tests.waiting import eventually

pytestmark = pytest.mark.netns

WEB = slices_set("web", IPV4)


def part(subnet: str, number: int = 2) -> str:
    """Return a /26 of a lease."""
    return str(list(IPv4Network(subnet).subnets(new_prefix=26))[number])


def opened(node: Node, of: str = WEB) -> set[str]:
    """Return the slices that this host opens its own to."""
    argv = ["ipset", "list", of]
    done = node.host.call(subprocess.run, argv, check=False, capture_output=True, text=True)
    return set(done.stdout.partition("Members:\n")[2].split())


def aside(node: Node) -> dict[str, str]:
    """Return why slices do not count here, by subject."""
    found = ask(node, "status")["conditions"]
    return {each["subject"]: each["cause"] for each in found if each["name"] == "slice-set-aside"}


@dataclass
class Scene:
    """Two honest hosts in web, the attacker, and the operator's account."""

    stage: Stage
    honest: list[Node]
    accounts: list[Attacker]
    attacker: Attacker
    operator: str

    @property
    def subnets(self) -> set[str]:
        return {part(each.subnet) for each in self.accounts}

    def publish(self) -> None:
        """Publish the slices of the honest hosts: without Docker those count that are there."""
        for each in self.accounts:
            assert each.put(f"slices/{each.id}/web", {"Subnet": part(each.subnet)})
        eventually(self.only_honest, 30)

    def record(self, **fields: object) -> None:
        """Have the operator say what the network is."""
        words = ["--user", self.operator, "put", "/hostmesh/networks/web"]
        assert self.stage.run_etcdctl(words, json.dumps(fields)).returncode == 0

    def config(self, **ours: object) -> None:
        config = {
            "Network": "10.64.0.0/10",
            "SubnetLen": 24,
            "Backend": {"Type": "host-gw"},
            "Hostmesh": {"Level": 3, "Owners": True, **ours},
        }
        words = ["--user", self.operator, "put", "/hostmesh/config"]
        assert self.stage.run_etcdctl(words, json.dumps(config)).returncode == 0

    def only_honest(self) -> bool:
        return all(opened(each) == self.subnets for each in self.honest)

    def refused(self, why: str, network: str = "web") -> None:
        """Wait until each honest host has seen the claim, and check what it opens."""
        subject = f"{self.attacker.id}/{network}"
        for node in self.honest:
            eventually(lambda node=node: why in aside(node).get(subject, ""), 30)  # type: ignore[misc]
        assert self.only_honest()


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    with staged(owners=True, level=3) as stage:
        *honest, third = stage.nodes
        accounts = [Attacker(stage, each, third) for each in honest]
        attacker = Attacker(stage, third, honest[0])
        admin = stage.folder / "pki" / "admin"
        operator = ":".join(
            (admin / each).read_text().strip() for each in ("user", "etcd-password")
        )
        third.stop()
        scene = Scene(stage, honest, accounts, attacker, operator)
        scene.publish()
        yield scene


@pytest.fixture
def scene(made: Scene) -> Iterator[Scene]:
    """The network is for its two hosts."""
    hosts = [node.agent("--host-id").stdout.strip() for node in made.honest]
    made.config()
    made.record(Hosts=hosts)
    yield made
    assert made.attacker.delete(f"slices/{made.attacker.id}/", "--prefix")
    eventually(made.only_honest, 30)
    eventually(lambda: not any(map(aside, made.honest)), 30)


def test_a_host_that_the_record_does_not_name_is_not_in_it(scene: Scene) -> None:
    a = scene.attacker
    assert a.put(f"slices/{a.id}/web", {"Subnet": part(a.subnet)})
    scene.refused("its record does not name the host")
    scene.record()
    for node in scene.honest:  # the test can fail: a label is a claim, and now anyone may claim
        eventually(lambda node=node: part(a.subnet) in opened(node), 30)  # type: ignore[misc]
    scene.record(Hosts=["node1", "node2"])
    scene.refused("its record does not name the host")


def test_a_slice_in_another_hosts_lease_opens_nothing(scene: Scene) -> None:
    a = scene.attacker
    scene.record()
    for subnet in (part(a.victim, 3), part(a.victim), a.victim, "10.64.0.0/10", "192.0.2.0/24"):
        assert a.put(f"slices/{a.id}/web", {"Subnet": subnet})
        scene.refused(f"{subnet} is in no lease of the host")


def test_a_slice_needs_a_lease_that_counts(scene: Scene) -> None:
    a = scene.attacker
    scene.record()
    subnet = part("10.99.7.0/24")
    assert a.put(f"slices/{a.id}/web", {"Subnet": subnet})
    scene.refused("in no lease of the host")
    assert a.put(f"subnets/{name('10.99.7.0/24')}", a.lease())
    scene.refused("in no lease of the host")
    assert a.delete(f"subnets/{name('10.99.7.0/24')}")


def test_a_slice_of_another_host_cannot_be_written(scene: Scene) -> None:
    a = scene.attacker
    for key in (f"slices/{a.victim_id}/web", f"slices/{a.id}x/web", "networks/web"):
        assert not a.put(key, {"Subnet": part(a.subnet), "Hosts": [a.id]}), key
        assert not a.delete(key), key
    assert scene.only_honest()


def test_a_name_without_a_record_is_nothing_where_networks_are_declared(scene: Scene) -> None:
    a = scene.attacker
    scene.config(Networks="declared")
    assert a.put(f"slices/{a.id}/db", {"Subnet": part(a.subnet)})
    scene.refused("declared networks only", "db")


def test_damaged_and_many_records_cost_the_attacker_only(scene: Scene) -> None:
    a = scene.attacker
    scene.record()
    for value in ("garbage", {}, {"Subnet": "10.64.0.0/33"}, {"Subnet": 7}, "[" * 10_000):
        assert a.put(f"slices/{a.id}/web", value)
    for index in range(8):
        assert a.put(f"slices/{a.id}/n{index}", {"Subnet": part(a.subnet)})
    scene.refused("an older slice of the host", "n1")


def test_below_its_level_no_slice_counts(scene: Scene) -> None:
    a = scene.attacker
    scene.record()
    assert a.put(f"slices/{a.id}/web", {"Subnet": part(a.subnet)})
    for node in scene.honest:
        eventually(partial(lambda node: part(a.subnet) in opened(node), node), 30)
    scene.config(Level=2)
    for node in scene.honest:
        eventually(partial(lambda node: not opened(node), node), 30)
    scene.config()
    assert a.delete(f"slices/{a.id}/web")
    scene.publish()  # they were withdrawn
