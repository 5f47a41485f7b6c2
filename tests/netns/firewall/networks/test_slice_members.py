"""Members of the sets of slices: what closes comes first, and nothing is open by mistake."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.reconcile.kernel_pass import KernelPass
from agent.mesh.firewall import slices_set
from agent.mesh.world import World
from agent.model import NETWORKS_LEVEL, Access, DockerFacts, DockerNetwork, HostId, Lease
from agent.model.family import IPV4
from agent.model.network import NETWORK_LABEL, MeshNetwork, NetworkSlice
from agent.sharedmap import SharedMap
from tests.netns.firewall.test_ingress import Run, kernel_pass, members, rules_of
from tests.netns.netlab import Host
from tests.netns.routes.scene import OWN, lease, scene, world_of

pytestmark = pytest.mark.netns

ME, ONE_ID, TWO_ID = (HostId(each * 32) for each in "012")
ONE = replace(lease("10.64.1.0/24", "192.0.2.11"), host_id=ONE_ID)
TWO = replace(lease("10.64.2.0/24", "192.0.2.12"), host_id=TWO_ID)
SET = slices_set("web", IPV4)
OWN_SLICE = "10.64.0.128/26"


@pytest.fixture
def run(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    scene(host)
    host.ip("link add br-web type bridge")
    made = Run(host, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def kernel(run: Run, tmp_path: Path) -> KernelPass:
    return kernel_pass(run, tmp_path)


def docker(subnet: str = OWN_SLICE) -> DockerFacts:
    web = DockerNetwork(
        id="web",
        name="web",
        bridge="br-web",
        subnet=IPv4Network(subnet),
        labels={NETWORK_LABEL: "web"},
    )
    return DockerFacts(reachable=True, networks=(web,))


def part(subnet: object) -> str:
    """Return the slice that a host with this lease has."""
    return str(subnet).replace(".0/24", ".64/26")


def world(host: Host, *peers: Lease, facts: DockerFacts | None = None, **more: Any) -> World:  # noqa: ANN401
    """Return a world in which each peer has a slice of web, and this host has published one."""
    claims = {each.host_id: part(each.subnet) for each in peers} | {ME: OWN_SLICE}
    slices = {
        (host_id, "web"): NetworkSlice(host_id=host_id, network="web", subnet=IPv4Network(subnet))
        for host_id, subnet in claims.items()
        if host_id is not None
    }
    made = world_of(host, *peers)
    assert made.config is not None
    return replace(
        made,
        host_id=ME,
        config=replace(made.config, level=NETWORKS_LEVEL),
        own=replace(OWN, host_id=ME),
        docker=docker() if facts is None else facts,
        slices=SharedMap(slices),
        **more,
    )


def opens(host: Host) -> bool:
    return any(SET in each for each in rules_of(host))


def test_what_closes_comes_first_and_what_opens_last(host: Host, run: Run) -> None:
    """A slice that goes and one that comes, in one pass with the leases behind them."""
    run.routes(world(host, ONE))
    assert run.written == ["replace Route", "replace SetMember"]
    assert members(host, SET) == {OWN_SLICE, part(ONE.subnet)}
    run.routes(world(host, TWO))
    assert run.written == [
        "delete SetMember", "replace Route", "replace SetMember", "delete Route"
    ]  # fmt: skip
    assert members(host, SET) == {OWN_SLICE, part(TWO.subnet)}


def test_only_the_changed_member_is_written(host: Host, run: Run) -> None:
    run.routes(world(host, ONE, TWO))
    changed = world(host, ONE, TWO)
    moved = replace(changed.slices[TWO_ID, "web"], subnet=IPv4Network("10.64.2.192/26"))
    slices: SharedMap[tuple[HostId, str], NetworkSlice] = SharedMap(
        {**changed.slices, (TWO_ID, "web"): moved}
    )
    run.routes(replace(changed, slices=slices))
    assert run.written == ["delete SetMember", "replace SetMember"]
    assert members(host, SET) == {OWN_SLICE, part(ONE.subnet), "10.64.2.192/26"}


def test_a_set_is_filled_before_a_rule_names_it(
    host: Host, run: Run, kernel: KernelPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Docker network that was made a moment ago, in a pass over the rules alone."""
    seen: list[str] = []
    write = run.firewall._write

    def writing(*arguments: Any) -> None:  # noqa: ANN401 - on the host's own thread
        for argv in (["ipset", "list", SET], ["iptables-nft-save"]):
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            seen.append(done.stdout)
        write(*arguments)

    monkeypatch.setattr(run.firewall, "_write", writing)
    assert not host.call(kernel.rules, world(host, ONE)).failed
    there, rules = seen
    assert set(there.partition("Members:\n")[2].split()) == {OWN_SLICE, part(ONE.subnet)}
    assert SET not in rules
    assert opens(host)


def test_promise_3_a_new_run_that_docker_does_not_answer_shuts_nobody_out(
    host: Host, run: Run, kernel: KernelPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of the agent beside a dockerd that is down: containers run on."""
    run.routes(world(host, ONE))
    assert not host.call(kernel.rules, world(host, ONE)).failed
    later = Run(host, monkeypatch)
    try:
        silent = world(host, ONE, facts=DockerFacts(reachable=False))
        later.routes(silent)
        assert later.written == []
        assert members(host, SET) == {OWN_SLICE, part(ONE.subnet)}
        later.routes(world(host, ONE))
        assert later.written == []
    finally:
        later.close()


def test_promises_3_and_4_nothing_goes_before_a_complete_view(host: Host, run: Run) -> None:
    run.routes(world(host, ONE, TWO))
    run.routes(replace(world(host, ONE), complete=False))
    assert members(host, SET) == {OWN_SLICE, part(ONE.subnet), part(TWO.subnet)}
    run.routes(world(host, ONE))
    assert members(host, SET) == {OWN_SLICE, part(ONE.subnet)}


@pytest.mark.parametrize(
    "change",
    [
        {"networks": SharedMap({"web": MeshNetwork(name="web", hosts=("none",))})},
        {"allowed_networks": ("db",)},
        {"facts": DockerFacts(reachable=True)},
    ],
    ids=["record", "agent.toml", "network rm"],
)
def test_what_no_longer_counts_closes_without_etcd(
    host: Host, run: Run, kernel: KernelPass, change: dict[str, Any]
) -> None:
    """The rules go with the pass that the change calls for, whatever may be deleted."""
    before = world(host, ONE)
    host.call(kernel.build, before, may_delete=True, may_sweep=True)
    assert not host.call(kernel.rules, before).failed
    assert opens(host)
    after = world(host, ONE, **change)
    assert kernel.rules_depend_on(after) != kernel.rules_depend_on(before)
    host.call(kernel.build, after, may_delete=False, may_sweep=False)
    assert not host.call(kernel.rules, after).failed
    assert not opens(host)
    host.call(kernel.build, after, may_delete=True, may_sweep=True)
    assert not host.call(kernel.rules, after).failed
    assert not host.call(run.firewall.show).count(SET)


def test_a_host_that_opens_less_keeps_the_set_and_no_rule(
    host: Host, run: Run, kernel: KernelPass
) -> None:
    """Nothing is made and unmade in turn, and `firewall.access` opens again at once."""
    kernel.limit_access(Access.PUBLISHED)
    now = world(host, ONE)
    host.call(kernel.build, now, may_delete=True, may_sweep=True)
    assert not host.call(kernel.rules, now).failed
    assert not opens(host)
    run.routes(now)
    assert run.written == []
    assert host.call(kernel.check_firewall, now) == ()
    kernel.limit_access(Access.OPEN)
    assert host.call(kernel.check_firewall, now) != ()
    assert not host.call(kernel.rules, now).failed
    assert opens(host)


def test_a_foreign_change_of_a_set_is_repaired(host: Host, kernel: KernelPass) -> None:
    now = world(host, ONE)
    host.call(kernel.build, now, may_delete=True, may_sweep=True)
    assert not host.call(kernel.rules, now).failed
    for words in (("flush", SET), ("add", SET, "10.99.0.0/16"), ("del", SET, OWN_SLICE)):
        host.call(subprocess.run, ["ipset", *words], check=True)
        assert host.call(kernel.check_firewall, now)
        assert not host.call(kernel.rules, now).failed
        assert members(host, SET) == {OWN_SLICE, part(ONE.subnet)}, words
