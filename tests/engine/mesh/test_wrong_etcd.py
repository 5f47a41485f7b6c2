"""An etcd that lost its past, with a new host joining at that very moment. Promise 4.

The empty etcd is in test_membership.py. Here: a restore of an old backup, a prefix wiped by
mistake, and another mesh's etcd at the endpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]

LAB = LabOptions(
    name="doubt",
    hosts=3,
    host=HostOptions(
        settings={
            "lease": {"empty_cluster_grace_s": 12},
            # Five subnets: three hosts, one that joins later, and one that joins in the crisis.
            "mesh": {"cidr": "10.64.0.0/10", "subnet_max": "10.68.0.0"},
        }
    ),
)


def routes(host: Host) -> set[str]:
    return {each["dst"] for each in host.mesh_routes()}


def alarms(host: Host) -> int:
    """Return how often the host raised the alarm."""
    return sum(
        '"etcd-alarm"' in line and "condition-raised" in line
        for line in host.agent_log().splitlines()
    )


class Holders:
    """The hosts of a running mesh: what each holds, and that none of it is lost."""

    def __init__(self, mesh: Lab) -> None:
        self._mesh = mesh
        self.hosts = {name: host for name, host in mesh.hosts.items() if host.lease()}
        mesh.wait_ready(60, tuple(self.hosts))
        self.held = {name: host.lease() for name, host in self.hosts.items()}
        wait_until(
            lambda: all(len(routes(h)) >= len(self.hosts) for h in self.hosts.values()),
            20,
            "routes",
        )
        self._before = {name: routes(host) for name, host in self.hosts.items()}
        self._alarms = {name: alarms(host) for name, host in self.hosts.items()}
        names = list(self.hosts)
        web = str(self.hosts[names[1]].start_container("lasting"))
        self._ping = Pinger(self.hosts[names[0]], web, every_s=0.1)
        self._ping.wait_reply(10, "the second host's container")

    def watch_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Look at every host's routes all the while; none may go."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for name, host in self.hosts.items():
                assert self._before[name] - routes(host) == set(), f"{name} lost a route"
            if done():
                return
            time.sleep(0.3)
        raise AssertionError("not settled in time")

    def settled(self) -> bool:
        return all(host.ready() for host in self.hosts.values())

    def nothing_was_lost(self) -> None:
        self._ping.stop()
        assert self._ping.missed() == []
        assert {name: host.lease() for name, host in self.hosts.items()} == self.held
        list(self.hosts.values())[1].docker("rm", "-f", "lasting")

    def who_raised_the_alarm(self) -> set[str]:
        return {name for name, host in self.hosts.items() if alarms(host) > self._alarms[name]}

    def raised_the_alarm(self) -> bool:
        return self.who_raised_the_alarm() == set(self.hosts)


def test_promise_4_etcd_restored_from_a_backup_that_is_older_than_a_host(mesh: Lab) -> None:
    """The newest host's lease is not in the backup; a joiner must not be given its subnet."""
    member = mesh.etcd["etcd1"]
    member.back_up()
    late = mesh.join()
    wait_until(late.ready, 60, "the host that the backup does not know")
    holders = Holders(mesh)
    member.restore()
    newcomer = mesh.join()
    holders.watch_until(lambda: holders.settled() and newcomer.ready(), 90)
    # Not by all: the host that is back last may find etcd at a later revision than before.
    assert holders.who_raised_the_alarm()
    holders.nothing_was_lost()
    assert newcomer.lease() not in {None, *holders.held.values()}


def test_promise_4_a_prefix_wiped_by_mistake(mesh: Lab) -> None:
    """Every subnet is held; a joiner that came first would take one of them."""
    holders = Holders(mesh)
    mesh.etcdctl("del", "--prefix", "/hostmesh/")
    newcomer = mesh.join()
    holders.watch_until(lambda: holders.settled() and "no-free-subnet" in newcomer.conditions(), 90)
    assert holders.raised_the_alarm()
    holders.nothing_was_lost()
    assert len(holders.held) == 5
    assert newcomer.lease() is None


def test_promise_4_another_meshs_etcd_at_the_endpoint_until_the_operator_accepts(
    mesh: Lab,
) -> None:
    """Its CIDR differs, so no host can register there: the alarm stays until `etcd accept`."""
    holders = Holders(mesh)
    member = mesh.etcd["etcd1"]
    for host in mesh.hosts.values():
        host.pause_agent()
    member.replace_with_empty()
    other = {"Network": "10.128.0.0/10", "SubnetLen": 16, "Backend": {"Type": "host-gw"}}
    mesh.etcdctl("put", "/hostmesh/config", json.dumps(other))
    for number in (201, 202):
        lease = {"PublicIP": f"192.168.50.{number}", "BackendType": "host-gw"}
        mesh.etcdctl("put", f"/hostmesh/subnets/10.{number - 50}.0.0-16", json.dumps(lease))
    for host in mesh.hosts.values():
        host.resume_agent()
    holders.watch_until(holders.raised_the_alarm, 40)
    until = time.monotonic() + 15  # longer than the grace time
    holders.watch_until(lambda: time.monotonic() > until, 30)
    host = holders.hosts["host1"]
    assert "etcd-alarm" in host.conditions()
    assert not any(each.startswith("10.15") for each in routes(host))
    assert "/hostmesh/subnets/" + (holders.held["host1"] or "").replace("/", "-") not in (
        member.keys("/hostmesh/subnets/")
    )
    host.agentctl("etcd", "accept")
    wait_until(lambda: "etcd-alarm" not in host.conditions(), 10, "the word to end the alarm")
    assert "etcd-alarm" in holders.hosts["host2"].conditions(), "it is each host's own"
