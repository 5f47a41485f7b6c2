"""Members of the ingress sets follow the mesh as routes do, on the real kernel."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.reconcile.ip_forward import IpForward
from agent.daemon.reconcile.kernel_objects import KernelObjects, ObjectsReport
from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.daemon.reconcile.protocol_migration import ProtocolMigration
from agent.daemon.store.state_file import StateFile
from agent.errors import FirewallError
from agent.kernel.firewall import Firewall, open_firewall
from agent.kernel.firewall.firewalld import Firewalld
from agent.kernel.sysctl import Sysctls
from agent.kernel.tables.routes import RouteTable
from agent.mesh.firewall.desired import desired_firewall
from agent.mesh.world import World
from agent.model import BackendData, Lease
from agent.reconcile.interfaces import Operation
from tests.netns.netlab import Host
from tests.netns.routes.scene import OWN, lease, scene, shown, world_of

pytestmark = pytest.mark.netns

ONE = lease("10.64.1.0/24", "192.0.2.11")
TWO = lease("10.64.2.0/24", "192.0.2.12")
OFF_LINK = lease("10.64.3.0/24", "203.0.113.7")
NAME = "hostmesh-in-eth0"


class Run:
    """One run of the agent: its passes, and what they write in order."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self._host = host
        self.firewall: Firewall = host.call(open_firewall, "nft")
        self.table = RouteTable()
        self.objects = KernelObjects(self.table, 140, time.monotonic, self.firewall.ingress)
        self.written: list[str] = []
        for table in (self.table, self.firewall.ingress.table):
            monkeypatch.setattr(table, "apply", self._recorded(table.apply))

    def _recorded(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        def recording(operations: Sequence[Operation[Any]], **for_s: float) -> object:
            self.written += sorted({f"{e.kind} {type(e.object).__name__}" for e in operations})
            return apply(operations, **for_s)

        return recording

    def routes(
        self, world: World, *, may_delete: bool = True, may_sweep: bool = True
    ) -> ObjectsReport:
        self.written.clear()
        return self._host.call(
            lambda: self.objects.run(world, may_delete=may_delete, may_sweep=may_sweep)
        )

    def rules(self, world: World) -> None:
        wants = desired_firewall(world, ingress=self.objects.ingress(world))
        self._host.call(self.firewall.apply, wants, self.objects.permission)

    def close(self) -> None:
        self.table.close()


@pytest.fixture
def run(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    scene(host)
    made = Run(host, monkeypatch)
    yield made
    made.close()


def members(host: Host, name: str = NAME) -> set[str]:
    argv = ["ipset", "list", name]
    done = host.call(subprocess.run, argv, check=True, capture_output=True, text=True)
    return set(str(done.stdout).partition("Members:\n")[2].split())


def sources(*peers: Lease) -> set[str]:
    return {str(each) for peer in peers for each in (peer.subnet, peer.node_address)}


def test_what_closes_comes_first_and_what_opens_last(host: Host, run: Run) -> None:
    """A peer that goes and one that comes, in one pass."""
    run.routes(world_of(host, ONE))
    assert run.written == ["replace Route", "replace SetMember"]
    assert members(host) == sources(ONE), "no pass over the rules was needed"
    run.routes(world_of(host, TWO))
    assert run.written == [
        "delete SetMember", "replace Route", "replace SetMember", "delete Route"
    ]  # fmt: skip
    assert members(host) == sources(TWO)
    run.rules(world_of(host, TWO))
    assert members(host) == sources(TWO)


def test_promise_8_with_wireguard_nothing_may_come_in_the_clear(host: Host, run: Run) -> None:
    data = BackendData.of({"PublicKey": base64.b64encode(bytes(range(32))).decode()})
    peer = replace(ONE, backend="wireguard", backend_data=data)
    world = world_of(host, peer)
    assert world.config is not None
    assert world.uplink is not None
    key = base64.b64encode(bytes(range(1, 33))).decode()
    world = replace(
        world,
        config=replace(world.config, backend="wireguard"),
        uplink=replace(world.uplink, wireguard_key=key),
    )
    run.routes(world)
    run.rules(world)
    assert members(host, "hostmesh-in-hm-wg") == sources(peer)
    assert members(host) == set()
    rules = host.call(
        subprocess.run,
        ["iptables-nft-save", "-t", "raw"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"-i eth0 -m set --match-set {NAME} src" in rules, "its empty set accepts nothing"
    assert '-i eth0 -m comment --comment "hostmesh: forged, or a host' in rules, (
        "the rest is dropped"
    )


def kernel_pass(run: Run, folder: Path) -> KernelPass:
    """The pass as the daemon has it."""
    state = StateFile(folder)
    return KernelPass(
        objects=run.objects,
        migration=ProtocolMigration(run.table, 140, state),
        firewall=run.firewall,
        forwarding=IpForward(sysctls=Sysctls(), firewall=None, state=state),
        firewalld=Firewalld(record=state, manage=False),
    )


def rules_of(host: Host) -> list[str]:
    argv = ["iptables-nft-save"]
    done = host.call(subprocess.run, argv, check=True, capture_output=True, text=True)
    return [each for each in done.stdout.splitlines() if each.startswith("-A HOSTMESH")]


def test_promise_3_a_backend_that_cannot_be_set_up_closes_no_tunnel(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not while the agent runs, nor when it is started anew."""
    data = BackendData.of({"VNI": 1, "VtepMAC": "82:4b:b6:2f:54:4e"})
    peer = replace(ONE, backend="vxlan", backend_data=data)
    plain = world_of(host, peer)
    assert OWN.host_id is not None
    plain = replace(plain, host_id=OWN.host_id)
    assert plain.config is not None
    world = replace(plain, config=replace(plain.config, backend="vxlan"))
    broken = replace(
        world,
        config=replace(
            plain.config, backend="vxlan", backend_options=BackendData.of({"VNI": "seven"})
        ),
    )
    first = kernel_pass(run, tmp_path)
    run.routes(world)
    assert not host.call(first.rules, world).failed
    before = rules_of(host)
    assert sum("hm-vxlan" in each for each in before) > 3
    run.routes(broken)
    assert not host.call(first.rules, broken).failed
    assert rules_of(host) == before
    assert members(host, "hostmesh-in-hm-vxlan") == sources(peer)
    later = Run(host, monkeypatch)
    try:
        second = kernel_pass(later, tmp_path)
        later.routes(broken)
        assert not host.call(second.rules, broken).failed
        assert rules_of(host) == before
        assert members(host, "hostmesh-in-hm-vxlan") == sources(peer)
    finally:
        later.close()


def test_a_peer_without_a_route_is_in_no_set(host: Host, run: Run) -> None:
    run.routes(world_of(host, ONE, TWO, OFF_LINK))
    assert members(host) == sources(ONE, TWO)
    run.routes(world_of(host, ONE, TWO, OFF_LINK, dead=frozenset({TWO.subnet})))
    assert members(host) == sources(ONE)
    assert f"unreachable {TWO.subnet}" in shown(host)
    run.routes(world_of(host, ONE, TWO))
    assert members(host) == sources(ONE, TWO)


def test_promises_3_and_4_a_new_run_shuts_no_peer_out_before_a_complete_view(
    host: Host, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.routes(world_of(host, ONE, TWO))
    run.rules(world_of(host, ONE, TWO))
    later = Run(host, monkeypatch)
    try:
        partial = world_of(host, ONE, complete=False)
        later.routes(partial)
        later.rules(partial)
        assert members(host) == sources(ONE, TWO)
        wants = desired_firewall(partial)
        assert host.call(later.firewall.check, wants, may_delete=False).edits == ()
        assert host.call(later.firewall.check, wants).edits == (
            f"ipset {NAME}: 0 to add, 2 to remove",
        )
        complete = world_of(host, ONE)
        later.routes(complete, may_sweep=False)
        later.rules(complete)
        assert members(host) == sources(ONE, TWO), "of an earlier run, within the grace time"
        later.routes(complete)
        assert members(host) == sources(ONE)
    finally:
        later.close()


def test_a_foreign_change_is_repaired_by_the_pass_over_the_rules(host: Host, run: Run) -> None:
    world = world_of(host, ONE)
    run.routes(world)
    run.rules(world)
    for words in (("flush", NAME), ("add", NAME, "10.99.0.0/16"), ("del", NAME, "10.64.1.0/24")):
        host.call(subprocess.run, ["ipset", *words], check=True)
        run.rules(world)
        assert members(host) == sources(ONE), words


def test_an_uplink_whose_name_is_no_ascii_ends_no_pass(run: Run, host: Host) -> None:
    host.ip("link set eth0 down")
    host.ip("link set eth0 name lån0")
    host.ip("link set lån0 up")
    world = world_of(host, ONE, uplink="lån0")
    run.routes(world)
    assert shown(host)
    with pytest.raises(FirewallError, match="does not take the interface name 'lån0'"):
        run.rules(world)
    run.routes(world_of(host, uplink="lån0"))
    assert host.call(run.firewall.remove).edits == ("ipset hostmesh-in-lån0: removed",)


def test_promise_3_a_source_that_the_kernel_kept_is_shut_out_a_second_later(
    host: Host, run: Run
) -> None:
    """Not only when the rules are looked at for the next time."""
    assert run.routes(world_of(host, ONE)).again_in_s is None
    for words in (f"destroy {NAME}", f"create {NAME} bitmap:port range 0-1"):
        host.call(subprocess.run, ["ipset", *words.split()], check=True)
    again_in_s = run.routes(world_of(host)).again_in_s
    assert run.written[0] == "delete SetMember"
    assert again_in_s is not None
    assert again_in_s < 2
