"""A stolen account of one host can do nothing to the routes of the others.

Real agents, an etcd with roles for each host as deploy/etcd/hosts.sh makes them, and an attacker
who has all that the third host has. Every attack is watched on both other hosts.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.ctl.client import AgentClient
from tests.netns.mesh.stage import ETCD, ROOT, Node, Stage
from tests.netns.records.routewatch import RouteWatch, watching
from tests.waiting import eventually

pytestmark = pytest.mark.netns

_QUOTA = 24_000_000


class Attacker:
    """The account of one host, in hands that know etcdctl.

    Args:
        stage: Where it is.
        node: Whose account it is; its agent does not run.
        victim: Whom it wants to harm.
    """

    def __init__(self, stage: Stage, node: Node, victim: Node) -> None:
        self._stage = stage
        folder = stage.folder / "pki" / "hosts" / node.name
        self._user = ":".join(
            (folder / name).read_text().strip() for name in ("user", "etcd-password")
        )
        self.id, self.address, self.subnet = identity(node), node.address, node.subnet()
        self.victim_id, self.victim_address = identity(victim), victim.address
        self.victim = victim.subnet()

    def etcdctl(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self._stage.run_etcdctl(["--user", self._user, *words], text)

    def put(self, key: str, value: object, *flags: str) -> bool:
        text = value if isinstance(value, str) else json.dumps(value)
        return self.etcdctl("put", *flags, f"/hostmesh/{key}", text=text).returncode == 0

    def delete(self, key: str, *flags: str) -> bool:
        return self.etcdctl("del", *flags, f"/hostmesh/{key}").returncode == 0

    def lease(self, host_id: str = "", address: str = "", **more: object) -> dict[str, Any]:
        ours = {"HostID": host_id or self.id, "HostName": "web", "TTL": 86_400, "BootID": "b" * 32}
        return {
            "PublicIP": address or self.address,
            "BackendType": "host-gw",
            "Hostmesh": {**ours, **more},
        }

    def revision(self) -> int:
        shown = self.etcdctl("get", "/hostmesh/config", "-w", "json").stdout
        return int(json.loads(shown)["header"]["revision"])

    def etcd_lease_of(self, key: str) -> str:
        shown = json.loads(self.etcdctl("get", f"/hostmesh/{key}", "-w", "json").stdout)
        return f"{int(shown['kvs'][0]['lease']):x}"


def identity(node: Node) -> str:
    return node.agent("--host-id").stdout.strip()


def ask(node: Node, document: str) -> Any:  # noqa: ANN401 - JSON
    """Ask the agent as agentctl does, without a process for each question."""
    return AgentClient(node.socket, 10).get(f"/v1/{document}")


def name(subnet: str) -> str:
    return subnet.replace("/", "-")


@contextmanager
def staged(owners: bool, nodes: int = 3, level: int = 2, names: str = "") -> Iterator[Stage]:
    """A mesh whose hosts have an account each."""
    stage = Stage(nodes, etcd_flags=f"--quota-backend-bytes {_QUOTA}")
    try:
        config = {
            "Network": "10.64.0.0/10",
            "SubnetLen": 24,
            "Backend": {"Type": "host-gw"},
            "Hostmesh": {"Level": level, "Owners": owners, "Names": names},
        }
        stage.etcdctl("put", "/hostmesh/config", json.dumps(config))
        for node in stage.nodes:
            _hosts_sh(stage, "add", node.name, "--id", identity(node))
            folder = stage.folder / "pki" / "hosts" / node.name
            user = (folder / "user").read_text().strip()
            text = node.settings.read_text()
            account = f'username = "{user}"\npassword_file = "{folder}/etcd-password"\n'
            node.settings.write_text(text.replace("[host]\n", f"{account}[host]\n"))
        _hosts_sh(stage, "enable")
        for node in stage.nodes:
            node.start()
        stage.wait_joined()
        yield stage
    finally:
        stage.close()


def _hosts_sh(stage: Stage, *words: str) -> None:
    script = str(ROOT / "deploy" / "etcd" / "hosts.sh")
    options = ["--folder", str(stage.folder / "pki"), "--password"]
    done = stage.on_etcd_host(["sh", script, *options, *words])
    assert done.returncode == 0, done.stderr


class Scene:
    """Two honest hosts, watched, and the attacker."""

    def __init__(self, stage: Stage, watches: list[RouteWatch], attacker: Attacker) -> None:
        self.stage = stage
        self.watches = watches
        self.attacker = attacker

    def unharmed(self, *, full: bool = False) -> None:
        """Both have seen all that is in etcd, and lost or redirected no route to each other."""
        a = self.attacker
        assert full or a.put(f"memory/{a.id}", {"Subnet": a.subnet}), "what every view shows"
        at = a.revision()
        for watch in self.watches:
            eventually(partial(self._has_seen, watch.node, at), 30)
            assert watch.harmed() == []

    @staticmethod
    def _has_seen(node: Node, revision: int) -> bool:
        return bool(ask(node, "status")["etcd"]["revision"] >= revision)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with staged(owners=True) as stage:
        *honest, third = stage.nodes
        attacker = Attacker(stage, third, honest[0])
        third.stop()
        with watching(honest) as watches:
            yield Scene(stage, watches, attacker)


def test_the_watch_sees_a_theft_where_owner_records_do_not_decide() -> None:
    """Show that the watch sees a theft: the other tests of this module rely on it."""
    with staged(owners=False) as stage:
        *honest, third = stage.nodes
        attacker = Attacker(stage, third, honest[0])
        third.stop()
        with watching(honest) as watches:
            assert attacker.put(f"subnets/{name(attacker.victim)}", attacker.lease())
            eventually(watches[1].harmed, 20)


def _flannels(a: Attacker) -> dict[str, Any]:
    return {"PublicIP": a.address, "BackendType": "host-gw"}


@pytest.mark.parametrize(
    "value",
    [
        lambda a: a.lease(),
        lambda a: a.lease(a.victim_id),
        lambda a: a.lease(a.victim_id, HostName="node1", Claimed=0),
        lambda a: a.lease(a.victim_id, "192.0.2.250"),
        lambda a: {**a.lease(a.victim_id, a.victim_address), "BackendData": {"VtepMAC": "x"}},
        _flannels,
        lambda _: "garbage",
        lambda _: {},
    ],
    ids=["own", "in its name", "older", "address", "data", "flannel", "garbage", "empty"],
)
def test_a_hosts_key_under_subnets_is_not_its_lease(
    scene: Scene, value: Callable[[Attacker], object]
) -> None:
    a = scene.attacker
    key = f"subnets/{name(a.victim)}"
    assert a.put(key, value(a))
    scene.unharmed()
    assert a.delete(key)
    scene.unharmed()


def test_all_of_subnets_may_be_deleted_or_overwritten(scene: Scene) -> None:
    a = scene.attacker
    assert a.delete("subnets/", "--prefix")
    scene.unharmed()
    for index in range(16):
        assert a.put(f"subnets/10.64.{index}.0-24", a.lease(a.victim_id))
    scene.unharmed()
    assert a.delete("subnets/", "--prefix")
    scene.unharmed()


def test_nothing_below_another_hosts_id_can_be_written(scene: Scene) -> None:
    a = scene.attacker
    held = name(a.victim)
    for key in (
        f"owners/{a.victim_id}/{held}",
        f"hosts/{a.victim_id}",
        f"memory/{a.victim_id}",
        f"clones/{a.victim_id}/192.0.2.250",
        f"owners/{a.id}x/{held}",
        f"hosts/{a.id}x",
        f"reservations/{held}",
        "config",
    ):
        assert not a.put(key, a.lease(a.victim_id)), key
        assert not a.delete(key), key
    assert not a.delete("owners/", "--prefix")
    assert not a.delete("", "--prefix")
    scene.unharmed()


def test_a_hosts_etcd_lease_is_its_own(scene: Scene) -> None:
    a = scene.attacker
    for key in (f"owners/{a.victim_id}/{name(a.victim)}", f"hosts/{a.victim_id}"):
        lease = a.etcd_lease_of(key)
        assert a.etcdctl("lease", "revoke", lease).returncode != 0
        assert not a.put("subnets/10.99.0.0-24", a.lease(), f"--lease={lease}")
    scene.unharmed()


@pytest.mark.parametrize("around", ["", "/25", "/23", "/16"])
def test_an_owner_record_of_ones_own_takes_no_subnet_from_another(
    scene: Scene, around: str
) -> None:
    a = scene.attacker
    victim = IPv4Network(a.victim)
    length = int(around[1:]) if around else victim.prefixlen
    subnet = (
        next(victim.subnets(new_prefix=length))
        if length > victim.prefixlen
        else victim.supernet(new_prefix=length)
    )
    key = f"owners/{a.id}/{name(str(subnet))}"
    assert a.put(key, a.lease(Claimed=0))
    scene.unharmed()
    for more in ({"address": a.victim_address}, {"address": ETCD}):
        assert a.put(key, a.lease(**more))
        scene.unharmed()
    assert a.put(key, a.lease(a.victim_id))
    scene.unharmed()
    assert a.delete(key)
    scene.unharmed()


def test_a_host_that_claims_everything_gets_two_subnets(scene: Scene) -> None:
    a = scene.attacker
    for index in range(20):
        assert a.put(f"owners/{a.id}/10.70.{index}.0-24", a.lease())
    scene.unharmed()
    for watch in scene.watches:
        found = ask(watch.node, "leases")["leases"]
        assert sum(each["host_id"] == a.id for each in found) == 2
    assert a.delete(f"owners/{a.id}/10.70.", "--prefix")
    scene.unharmed()


def test_locks_and_grace_cost_time_and_no_route(scene: Scene) -> None:
    a = scene.attacker
    assert a.put("turns/docker-restart", {"HostID": a.id, "HostName": "web"})
    assert a.put("grace", {})
    scene.unharmed()
    assert a.delete("grace")
    assert a.delete("turns/docker-restart")


def test_a_restarted_host_is_not_misled(scene: Scene) -> None:
    a = scene.attacker
    victim = scene.watches[0].node
    victim.stop()
    assert a.put(f"subnets/{name(a.victim)}", a.lease(a.victim_id, "192.0.2.250"))
    assert a.put("subnets/10.99.0.0-24", a.lease(a.victim_id, a.victim_address))
    victim.start()
    eventually(lambda: ask(victim, "status")["subnet"] == a.victim, 30)
    eventually(lambda: (ask(victim, "status")["routes"]["installed"] or 0) > 1, 30)
    scene.unharmed()


def test_a_full_etcd_costs_no_route(scene: Scene) -> None:
    """The last one: etcd is of no use afterwards."""
    a = scene.attacker
    full = next(
        (
            index
            for index in range(2 * _QUOTA // 1_000_000)
            if not a.put(f"subnets/10.100.{index}.0-24", "x" * 1_000_000)
        ),
        None,
    )
    assert full is not None
    scene.unharmed(full=True)
    for watch in scene.watches:
        assert ask(watch.node, "status")["subnet"]
