"""Conditions, variants, policy, sizes and errors, on the real programs."""

import subprocess
import time

import pytest

from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import (
    C0,
    PEER,
    PEER_CONTAINER,
    PEER_SUBNET,
    STRANGER,
    WANTS,
    Rig,
    conditions,
)

pytestmark = pytest.mark.netns


def test_an_operators_rule_that_shuts_the_mesh_off_is_quoted(docked: Rig) -> None:
    assert "operator-blocks-mesh" not in conditions(docked.firewall("apply"))
    docked.iptables("-I", "DOCKER-USER", "-i", "eth0", "-j", "DROP")
    report = docked.firewall("apply")
    assert report["differs"] is False
    assert "-A DOCKER-USER -i eth0 -j DROP" in conditions(report)["operator-blocks-mesh"]
    docked.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))


def test_a_rule_that_drops_mesh_traffic_in_another_table_is_quoted(bare: Rig) -> None:
    """No ACCEPT of the agent's can undo either: the probes prove it."""
    other = "legacy" if bare.variant == "nft" else "nft"
    for table, rule, variant in (
        ("mangle", ("-I", "FORWARD", "-i", "eth0", "-j", "DROP"), bare.variant),
        ("filter", ("-I", "FORWARD", "-i", "eth0", "-j", "DROP"), other),
        ("filter", ("-P", "FORWARD", "DROP"), other),
    ):
        bare.iptables("-t", table, *rule, variant=variant)
        bare.reopen(bare.variant)
        found_conditions = conditions(bare.firewall("apply"))["operator-blocks-mesh"]
        assert " ".join(rule).replace("-I", "-A") in found_conditions
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
        undo = ("-P", "FORWARD", "ACCEPT") if rule[0] == "-P" else ("-D", *rule[1:])
        bare.iptables("-t", table, *undo, variant=variant)
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))


def test_dockers_lost_jumps_are_a_condition_and_are_not_forged(docked: Rig) -> None:
    assert "docker-rules-missing" not in conditions(docked.firewall("apply"))
    docked.iptables("-F")
    report = docked.firewall("apply")
    assert "filter FORWARD" in conditions(report)["docker-rules-missing"]
    assert not [line for line in docked.save() if line.startswith("-A FORWARD -j DOCKER")]


def test_forward_policy_is_set_as_docker_does_and_restored(docked: Rig) -> None:
    before = docked.save()
    assert docked.firewall("set_forward_policy_drop") == "ACCEPT"
    assert ":FORWARD DROP" in docked.save()
    assert docked.firewall("set_forward_policy_drop") == "DROP"
    assert [line for line in docked.save() if line.startswith("-")] == [
        line for line in before if line.startswith("-")
    ]
    docked.firewall("restore_forward_policy", "ACCEPT")
    assert ":FORWARD ACCEPT" in docked.save()


def test_the_host_is_no_open_router_between_switching_forwarding_on_and_docker(bare: Rig) -> None:
    bare.firewall("set_forward_policy_drop")
    bare.expect((Probe("stranger", C0, "tcp81"), None), (Probe("c0", STRANGER, "tcp81"), None))


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.full)])
def test_rules_do_not_grow_with_peers_and_ten_thousand_fit(bare: Rig, count: int) -> None:
    few = bare.firewall("render")
    peers = [f"192.168.{high}.{low}" for high in range(16, 56) for low in range(250)]
    del peers[count:]
    bare.firewall("apply")
    rules = bare.save()
    began = time.monotonic()
    bare.firewall("apply", ingress={"eth0": peers})
    assert time.monotonic() - began < 6
    assert len(bare.members("hostmesh-in-eth0")) == count
    assert bare.save() == rules
    assert len(few.splitlines()) == len(set(few.splitlines())) + few.count("COMMIT") - 1
    assert bare.firewall("check", ingress={"eth0": peers})["differs"] is False
    bare.firewall("apply")
    assert bare.members("hostmesh-in-eth0") == [PEER_SUBNET, PEER]


def test_a_set_of_another_type_is_not_taken_over(bare: Rig) -> None:
    bare.host.run("ipset", "create", "hostmesh-in-eth0", "hash:ip")
    bare.driver.send({"op": "apply", "wants": {**WANTS}})
    reply = bare.driver.receive()
    assert reply["error"] == "FirewallError"
    assert "hash:ip" in reply["message"]


def test_members_with_more_than_an_address_are_read_too(bare: Rig) -> None:
    """Another program made the set with counters and timeouts before."""
    name = "hostmesh-in-eth0"
    bare.host.run("ipset", "create", name, "hash:net", "counters", "timeout", "600")
    for words in ("10.9.9.9", "10.9.0.0/24", f"{PEER_SUBNET} nomatch"):
        bare.host.run("ipset", "add", name, *words.split())
    report = bare.firewall("apply")
    assert f"ipset {name}: 2 to add, 3 to remove" in report["edits"]
    assert bare.firewall("check")["differs"] is False
    bare.host.run("ipset", "test", name, PEER_CONTAINER)


def test_a_set_that_another_program_changed_is_repaired_and_counted(bare: Rig) -> None:
    bare.firewall("apply")
    name = "hostmesh-in-eth0"
    bare.host.run("ipset", "flush", name)
    report = bare.firewall("apply")
    assert (report["edits"], report["repairs"]) == ([f"ipset {name}: 2 to add, 0 to remove"], 1)
    bare.host.run("ipset", "add", name, "10.9.9.9")
    report = bare.firewall("apply")
    assert (report["edits"], report["repairs"]) == ([f"ipset {name}: 0 to add, 1 to remove"], 2)
    assert bare.firewall("apply", ingress={"eth0": []})["repairs"] == 2
    assert bare.firewall("apply", ingress={"eth0": []})["repairs"] == 2
    assert bare.members(name) == []


def test_show_has_the_place_and_the_counters_of_the_agents_rules(docked: Rig) -> None:
    docked.firewall("apply")
    docked.reach(Probe("peer", C0, "tcp81", PEER_CONTAINER))
    text = docked.firewall("show")
    assert "filter DOCKER-USER" in text
    assert "ipset hostmesh-in-eth0: 2 members" in text
    assert f"  {PEER_SUBNET}" in text
    line = next(line for line in text.splitlines() if "hostmesh: open network" in line)
    assert "[0:0]" not in line


def test_the_dry_run_is_what_restore_takes(docked: Rig) -> None:
    text = docked.firewall("render")
    for name, kind in (("in-eth0", "net"), ("published", "ip,port"), ("senders", "net,iface")):
        docked.host.run("ipset", "create", f"hostmesh-{name}", f"hash:{kind}")
    docked.restore(text)
    report = docked.firewall("check")
    assert [edit for edit in report["edits"] if not edit.startswith("ipset")] == []
    assert docked.firewall("apply")["differs"] is True
    assert docked.firewall("render") == ""


def test_the_legacy_writer_waits_for_the_xtables_lock(bare: Rig) -> None:
    if bare.variant != "legacy":
        pytest.skip("the nft variant has no lock")
    held = subprocess.Popen(bare.host.enter("flock", "/run/xtables.lock", "sleep", "1.5"))
    time.sleep(0.3)
    began = time.monotonic()
    bare.firewall("apply")
    assert time.monotonic() - began > 0.8
    held.wait(timeout=5)


def test_a_legacy_commit_loses_no_rule_of_a_racing_program(bare: Rig) -> None:
    script = "for n in $(seq 1 150); do iptables-%s -w 10 -A INPUT -s 10.9.0.$n -j ACCEPT; done"
    racing = subprocess.Popen(bare.host.enter("sh", "-c", script % bare.variant))
    while racing.poll() is None:
        bare.firewall("apply")
        bare.firewall("remove")
    assert racing.wait(timeout=30) == 0
    assert len([line for line in bare.save() if "-A INPUT" in line]) == 150


def test_a_foreign_change_is_reported_within_a_second_and_the_agents_is_not(bare: Rig) -> None:
    if bare.variant != "nft":
        pytest.skip("legacy rules have no events: the daemon looks every CHECK_EVERY_S")
    bare.firewall("watch")
    bare.firewall("apply")
    time.sleep(0.3)
    assert bare.firewall("events") == []
    began = time.monotonic()
    bare.iptables("-t", "nat", "-F")
    while not (events := bare.firewall("events")):
        assert time.monotonic() - began < 1
        time.sleep(0.02)
    assert any("iptables" in by for by in events[0])
    bare.firewall("apply")
    time.sleep(0.3)
    assert bare.firewall("events") == []


def test_repairs_are_counted_and_damped_in_a_fight(bare: Rig) -> None:
    bare.firewall("apply")
    bare.firewall("written_by", ["flusher (4711)"])
    reports = []
    for _ in range(22):
        bare.iptables("-t", "nat", "-F", "POSTROUTING")
        reports.append(bare.firewall("apply"))
    assert [report["repairs"] for report in reports] == [*range(1, 21), 20, 20]
    assert [report["held_back"] for report in reports] == [False] * 20 + [True] * 2
    assert "flusher (4711)" in conditions(reports[-1])["firewall-contested"]
    assert bare.firewall("apply", ingress={"eth0": []})["held_back"] is False
