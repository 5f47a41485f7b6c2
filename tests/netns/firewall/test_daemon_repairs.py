"""The daemon's loop and rule monitor: what is done to nft rules is noticed, no timer needed.

Facts of etcd and Docker come from the test; everything from there to the kernel is real.
Every timer that looks at rules comes an hour later.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.daemon.reconcile.kernel_pass import RulesReport
from agent.daemon.state.events import DockerReported
from agent.docker.report import AttachReport
from agent.errors import FirewallError
from agent.kernel.firewall import open_firewall
from agent.kernel.firewall.edits import TableEdit
from agent.kernel.firewall.nft import NftWriter
from agent.mesh.firewall import DesiredFirewall, Ingress
from agent.mesh.world import World
from agent.model import DockerFacts, DockerNetwork, DockerState
from tests.netns.daemon.member import PEER, Member, make_agent, running
from tests.netns.netlab import Host, Lan
from tests.netns.routes.scene import lease
from tests.waiting import eventually

pytestmark = pytest.mark.netns

AN_HOUR = "3600"
FOREIGN = "-A POSTROUTING -o eth0 -j ACCEPT"
DISTURBANCES = (
    "-F",
    "-t nat -F",
    "-t raw -D PREROUTING 1",
    "-I HOSTMESH-FORWARD -j ACCEPT",
    f"-t nat {FOREIGN.replace('-A', '-I')}",
)
DOCKER0 = DockerNetwork(
    id="bridge",
    name="bridge",
    bridge="docker0",
    subnet=IPv4Network("10.64.0.0/25"),
    default=True,
)


@pytest.fixture(params=[AN_HOUR])
def member(request: pytest.FixtureRequest, lan: Lan, tmp_path: Path) -> Iterator[Member]:
    """Its parameter: how often the rules are checked without an event."""
    host = lan.add("192.0.2.1/24")
    host.ip("route add default via 192.0.2.254")
    firewall = f'variant = "nft"\ncheck_s = {request.param}'
    agent = make_agent(host, tmp_path, f"resync_s = {AN_HOUR}", firewall)
    host.call(agent._rule_monitor.start)
    try:
        with running(agent, host):
            made = Member(host, agent)
            made.joins()
            facts = DockerFacts(reachable=True, networks=(DOCKER0,), bridge=DOCKER0)
            report = AttachReport(state=DockerState.READY, facts=facts)
            agent._inbox.post(DockerReported(report))
            eventually(lambda: "-A HOSTMESH-INBOUND -d 10.64.0.0/25" in "".join(ours(host)), 20)
            agent._inbox.ask(lambda _apply: None)  # answered after the pass, which writes by tables
            yield made
    finally:
        agent._rule_monitor.stop()


def iptables(host: Host, words: str) -> str:
    argv = ["iptables-nft", *words.split()]
    if words == "save":
        argv = ["iptables-nft-save"]
    done = host.call(subprocess.run, argv, check=True, capture_output=True, text=True)
    return str(done.stdout)


def members(host: Host, name: str) -> set[str]:
    argv = ["ipset", "list", name]
    done = host.call(subprocess.run, argv, check=True, capture_output=True, text=True)
    return set(str(done.stdout).partition("Members:\n")[2].split())


def ours(host: Host) -> list[str]:
    """Every rule by which traffic comes to ours, and ours, in order."""
    lines = iptables(host, "save").splitlines()
    return [line for line in lines if line.startswith(("*", "-A"))]


def test_promise_5_a_change_of_nft_rules_is_undone_within_a_second_of_its_event(
    member: Member,
) -> None:
    wanted = ours(member.host)
    counted = member.agent._observer.counters.repairs
    took_s: list[float] = []
    for words in DISTURBANCES:
        iptables(member.host, words)
        began_s = time.monotonic()
        eventually(lambda: repaired(member.host, wanted), 20)
        took_s.append(time.monotonic() - began_s)
        eventually(lambda: counted["rules"] >= len(took_s))  # -F comes table by table
    print(f"repaired after {', '.join(f'{took:.2f}' for took in took_s)} s")
    assert min(took_s) < 1


def test_a_peer_that_joins_or_leaves_is_a_member_at_once_and_costs_no_look_at_the_rules(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[World] = []
    rules = member.agent._kernel.rules

    def look(world: World) -> RulesReport:
        looks.append(world)
        return rules(world)

    monkeypatch.setattr(member.agent._kernel, "rules", look)
    more = lease("10.64.7.0/24", "192.0.2.17")
    both = {str(each) for each in (PEER.node_address, PEER.subnet, "192.0.2.17", more.subnet)}
    member.etcd_tells(PEER, more)
    eventually(lambda: members(member.host, "hostmesh-in-eth0") == both)
    member.end_grace()
    member.etcd_tells(PEER)
    eventually(lambda: "10.64.7.0/24" not in members(member.host, "hostmesh-in-eth0"))
    assert looks == []


def test_a_set_that_another_program_removed_is_there_again_for_a_peer_that_joins(
    member: Member,
) -> None:
    """With the rules that named it; the members of the set are those of now."""
    iptables(member.host, "-t raw -F HOSTMESH-PREROUTING")
    member.host.call(subprocess.run, ["ipset", "flush", "hostmesh-in-eth0"], check=True)
    more = lease("10.64.7.0/24", "192.0.2.17")
    both = {str(each) for each in (PEER.node_address, PEER.subnet, "192.0.2.17", more.subnet)}
    member.etcd_tells(PEER, more)
    eventually(lambda: members(member.host, "hostmesh-in-eth0") == both)


@pytest.mark.parametrize("member", ["1"], indirect=True)
def test_promise_5_a_changed_set_has_no_event_and_is_repaired_by_the_timer(
    member: Member,
) -> None:
    run, name = member.host.call, "hostmesh-in-eth0"
    wanted = {str(PEER.node_address), str(PEER.subnet)}
    assert members(member.host, name) == wanted
    run(subprocess.run, ["ipset", "flush", name], check=True)
    run(subprocess.run, ["ipset", "add", name, "192.0.2.66"], check=True)
    eventually(lambda: members(member.host, name) == wanted, 10)
    observer = member.agent._observer
    eventually(lambda: observer.counters.repairs["rules"] >= 1)
    last, _when_s = observer.counters.last_repair or ("", 0.0)
    assert "ipset hostmesh-in-eth0" in last


def repaired(host: Host, wanted: list[str]) -> bool:
    """Own rules are as they were; a foreign rule stays, behind them."""
    found = ours(host)
    if FOREIGN in found:
        at = found.index(FOREIGN)
        return "HOSTMESH-POSTROUTING" in found[at - 1] and found[:at] + found[at + 1 :] == wanted
    return found == wanted


@pytest.mark.parametrize("times", [1, 9])
def test_a_concurrent_write_of_another_program_is_repaired_in_the_same_pass(
    host: Host, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Docker that restarts writes while we do. Who never stops is an error, after three tries."""
    firewall = host.call(open_firewall, "nft")
    wants = DesiredFirewall(
        cidr=IPv4Network("10.64.0.0/10"),
        lease=IPv4Network("10.64.0.0/24"),
        ingress=(Ingress("eth0", frozenset()),),
    )
    disturb = ["iptables-nft", "-t", "nat", *FOREIGN.replace("-A", "-I").split()]
    left = [disturb] * times
    write = NftWriter.write

    def write_and_be_disturbed(self: NftWriter, edits: tuple[TableEdit, ...]) -> None:
        write(self, edits)
        if left:
            subprocess.run(left.pop(), check=True)

    monkeypatch.setattr(NftWriter, "write", write_and_be_disturbed)
    if times > 1:
        with pytest.raises(FirewallError, match="after it was written 3 times"):
            host.call(firewall.apply, wants)
        assert len(left) == times - 3
        return
    host.call(firewall.apply, wants)
    assert not host.call(firewall.check, wants).differs
