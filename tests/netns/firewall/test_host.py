"""Conditions, variants, policy, sizes and errors, on the real programs."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.firewall.dockerrules import docker_text
from tests.netns.firewall.fwlab import C0, PEER_CONTAINER, STRANGER, WANTS, Rig
from tests.netns.firewall.probing import Probe

pytestmark = pytest.mark.netns


def conditions(report: dict[str, Any]) -> dict[str, str]:
    return {condition["name"]: condition["cause"] for condition in report["conditions"]}


def test_an_operators_rule_that_shuts_the_mesh_off_is_quoted(docked: Rig) -> None:
    assert "operator-blocks-mesh" not in conditions(docked.firewall("apply"))
    docked.iptables("-I", "DOCKER-USER", "-i", "eth0", "-j", "DROP")
    report = docked.firewall("apply")
    assert report["differs"] is False
    assert "-A DOCKER-USER -i eth0 -j DROP" in conditions(report)["operator-blocks-mesh"]
    docked.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))


def test_what_shuts_the_mesh_off_where_ours_cannot_come_before_it_is_quoted(bare: Rig) -> None:
    """Neither can be undone by an ACCEPT of ours: the probes prove it."""
    other = "legacy" if bare.variant == "nft" else "nft"
    for table, rule, variant in (
        ("mangle", ("-I", "FORWARD", "-i", "eth0", "-j", "DROP"), bare.variant),
        ("filter", ("-I", "FORWARD", "-i", "eth0", "-j", "DROP"), other),
        ("filter", ("-P", "FORWARD", "DROP"), other),
    ):
        bare.iptables("-t", table, *rule, variant=variant)
        bare.driver.send({"op": "reopen", "arguments": [bare.variant]})
        bare.driver.receive()
        told = conditions(bare.firewall("apply"))["operator-blocks-mesh"]
        assert " ".join(rule).replace("-I", "-A") in told
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
        undo = ("-P", "FORWARD", "ACCEPT") if rule[0] == "-P" else ("-D", *rule[1:])
        bare.iptables("-t", table, *undo, variant=variant)
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))


@contextlib.contextmanager
def nft_tables(rig: Rig, family: int, tables: tuple[str, ...], *lines: str) -> Iterator[None]:
    """Tables made with nft, filled by ``lines`` of Python."""

    def run(word: str, *more: str) -> None:
        made = [f"nft.table('{word}', name='{table}')" for table in tables]
        script = (
            "from pyroute2.nftables.expressions import genex\n"
            "from pyroute2.nftables.main import NFTables\n"
            f"with NFTables(nfgen_family={family}) as nft:\n"
        )
        script += "".join(f"    {line}\n" for line in (*made, *more))
        rig.host.run(sys.executable, "-c", script)

    run("add", *lines)
    try:
        yield
    finally:
        run("del")


def test_chains_of_nft_that_drop_what_they_do_not_accept_are_told(bare: Rig) -> None:
    """As firewalld and Debian's /etc/nftables.conf make them, beside iptables' own."""
    bare.iptables("-P", "FORWARD", "DROP")
    told = bare.firewall("apply")["conditions"]
    assert "operator-nft-chain" not in {condition["name"] for condition in told}
    chains = [
        f"nft.chain('add', table='{table}', name='{hook}', hook='{hook}', type='filter',"
        f" policy={policy})"
        for table, policy in (("firewalld", 1), ("filter", 0))
        for hook in ("input", "forward")
    ]
    reject = "expressions=([genex('reject', {'TYPE': 2, 'ICMP_CODE': 3})],)"
    rules = [
        f"nft.rule('add', table='firewalld', chain='{hook}', {reject})"
        for hook in ("input", "forward")
    ]
    with nft_tables(bare, 1, ("firewalld", "filter"), *chains, *rules):
        bare.driver.send({"op": "reopen", "arguments": [bare.variant]})
        bare.driver.receive()
        told = bare.firewall("apply")["conditions"]
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
    assert {each["subject"] for each in told if each["name"] == "operator-nft-chain"} == {
        "inet firewalld forward",
        "inet filter forward",
    }


def test_dockers_lost_jumps_are_a_condition_and_are_not_forged(docked: Rig) -> None:
    assert "docker-rules-missing" not in conditions(docked.firewall("apply"))
    docked.iptables("-F")
    report = docked.firewall("apply")
    assert "filter FORWARD" in conditions(report)["docker-rules-missing"]
    assert not [line for line in docked.save() if line.startswith("-A FORWARD -j DOCKER")]


def test_rules_in_the_other_variant_are_moved(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.driver.send({"op": "reopen", "arguments": [other]})
    bare.driver.receive()
    bare.firewall("apply")
    bare.driver.send({"op": "reopen", "arguments": [bare.variant]})
    bare.driver.receive()
    report = bare.firewall("apply")
    assert report["variant"] == bare.variant
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]
    assert [line for line in bare.save() if "HOSTMESH" in line]
    assert bare.firewall("check")["differs"] is False


def test_auto_goes_where_dockers_rules_are(bare: Rig) -> None:
    bare.restore(docker_text("26.1"))
    bare.driver.send({"op": "reopen", "arguments": ["auto"]})
    bare.driver.receive()
    assert bare.firewall("apply")["variant"] == bare.variant
    assert [line for line in bare.save() if "HOSTMESH" in line]


def test_docker_in_both_variants_is_a_condition(docked: Rig, engine: str) -> None:
    other = "legacy" if docked.variant == "nft" else "nft"
    docked.restore(docker_text(engine), variant=other)
    said = conditions(docked.firewall("apply"))
    assert f"iptables-{other}" in said["firewall-stale-variant"]


@contextlib.contextmanager
def broken(rig: Rig, variant: str) -> Iterator[None]:
    """The programs of a variant end with an error; a new life of the agent meets that."""
    program = f"/usr/sbin/xtables-{variant}-multi"
    rig.host.run("mount", "--bind", "/bin/false", program)
    try:
        rig.driver.send({"op": "reopen", "arguments": [rig.variant]})
        rig.driver.receive()
        yield
    finally:
        rig.host.run("umount", program)


@pytest.fixture
def broken_other(bare: Rig) -> Iterator[str]:
    """The variant that ours are not in."""
    other = "legacy" if bare.variant == "nft" else "nft"
    with broken(bare, other):
        yield other


def test_promise_9_ours_that_are_left_in_a_broken_variant_are_an_error_of_leaving(
    bare: Rig,
) -> None:
    """Nobody can look there, and the set that they name cannot go: it is not said to be done."""
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.driver.send({"op": "reopen", "arguments": [other]})
    bare.driver.receive()
    bare.firewall("apply")
    with broken(bare, other):
        assert "firewall-variant-unreadable" in conditions(bare.firewall("apply"))
        bare.driver.send({"op": "remove", "arguments": []})
        assert "a rule still names it" in bare.driver.receive()["message"]
    assert bare.firewall("remove")["differs"]
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]
    assert "hostmesh" not in bare.host.run("ipset", "list", "-n")


def test_promise_9_a_broken_other_variant_costs_a_condition_and_nothing_else(
    bare: Rig, broken_other: str
) -> None:
    bare.restore(docker_text("28.5"))
    report = bare.firewall("apply")
    assert report["variant"] == bare.variant
    assert f"iptables-{broken_other}" in conditions(report)["firewall-variant-unreadable"]
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))
    assert bare.firewall("apply")["differs"] is False
    removed = bare.firewall("remove")["edits"]
    assert [edit for edit in removed if edit.startswith(f"{broken_other}: not looked at")]
    assert not [line for line in bare.save() if "HOSTMESH" in line]
    assert "hostmesh" not in bare.host.run("ipset", "list", "-n")


@pytest.mark.parametrize("table", ["filter", "mangle"])
def test_rules_that_only_nft_can_show_do_not_stop_what_does_not_need_them(
    bare: Rig, table: str
) -> None:
    """The nft variant is not ours to write to, or the table is none that ours belong in."""
    bare.driver.send({"op": "reopen", "arguments": [bare.variant]})
    bare.driver.receive()
    odd = f"table='{table}', chain='odd'"
    lines = (
        f"nft.chain('add', table='{table}', name='odd')",
        f"nft.rule('add', {odd}, expressions=([genex('ct', {{'DREG': 1, 'KEY': 0}})],))",
    )
    with nft_tables(bare, 2, (table,), *lines):
        if (bare.variant, table) == ("nft", "filter"):
            bare.driver.send({"op": "apply", "wants": {**WANTS}})
            assert "another program wrote it" in bare.driver.receive()["message"]
            return
        report = bare.firewall("apply")
        own, other = "firewall-table-unreadable", "firewall-variant-unreadable"
        told = {name: cause for name, cause in conditions(report).items() if name in {own, other}}
        if bare.variant == "nft":
            assert "mangle" in told.pop(own)
        elif table == "filter":
            assert "another program wrote it" in told.pop(other)
        assert told == {}
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))
        assert bare.firewall("apply")["differs"] is False


def test_the_variant_that_settings_name_may_be_the_one_docker_is_not_in(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.restore(docker_text("28.5"), variant=other)
    bare.driver.send({"op": "reopen", "arguments": [bare.variant]})
    bare.driver.receive()
    told = conditions(bare.firewall("apply"))
    assert list(told) == ["firewall-variant-mismatch"]
    assert f"iptables-{other}" in told["firewall-variant-mismatch"]
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
    bare.driver.send({"op": "reopen", "arguments": ["auto"]})
    bare.driver.receive()
    assert conditions(bare.firewall("apply")) == {}
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))


def test_what_an_older_docker_left_in_the_other_iptables_moves_nothing(
    bare: Rig, tmp_path: Path
) -> None:
    """Docker writes with ``bare.variant``; its chains there are flushed and deleted."""
    other = "legacy" if bare.variant == "nft" else "nft"
    (tmp_path / "iptables").symlink_to(f"/usr/sbin/xtables-{bare.variant}-multi")
    dockerd = subprocess.Popen(["/bin/sleep", "120"], env={"PATH": str(tmp_path)})
    try:
        for variant in (bare.variant, other):
            bare.restore(docker_text("26.1"), variant=variant)
        bare.driver.send({"op": "reopen", "arguments": ["auto"], "dockerd": dockerd.pid})
        bare.driver.receive()
        assert bare.firewall("apply")["variant"] == bare.variant
        for table in ("filter", "nat", "raw"):
            bare.iptables("-t", table, "-F")
            bare.iptables("-t", table, "-X")
        bare.firewall("later")
        report = bare.firewall("apply")
    finally:
        dockerd.kill()
        dockerd.wait(5)
    assert report["variant"] == bare.variant
    assert set(conditions(report)) == {"docker-rules-missing", "firewall-stale-variant"}
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]


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
    report = bare.firewall("apply", peers=peers)
    assert time.monotonic() - began < 6
    assert report["peers_added"] == count
    assert bare.save() == rules
    assert len(few.splitlines()) == len(set(few.splitlines())) + few.count("COMMIT") - 1
    assert bare.firewall("check", peers=peers)["differs"] is False
    assert bare.firewall("apply")["peers_removed"] == count


def test_a_set_of_another_type_is_not_taken_over(bare: Rig) -> None:
    bare.host.run("ipset", "create", "hostmesh-peers", "hash:net")
    bare.driver.send({"op": "apply", "wants": {**WANTS}})
    reply = bare.driver.receive()
    assert reply["error"] == "FirewallError"
    assert "hash:net" in reply["message"]


def test_members_with_more_than_an_address_are_read_too(bare: Rig) -> None:
    """Somebody made the set with counters and timeouts before us."""
    bare.host.run("ipset", "create", "hostmesh-peers", "hash:ip", "counters", "timeout", "600")
    for address in ("10.9.9.9", "10.9.9.10"):
        bare.host.run("ipset", "add", "hostmesh-peers", address)
    report = bare.firewall("apply")
    assert (report["peers_added"], report["peers_removed"]) == (1, 2)
    assert bare.firewall("check")["differs"] is False


def test_a_set_that_somebody_changed_is_put_right_and_counted(bare: Rig) -> None:
    bare.firewall("apply")
    bare.host.run("ipset", "flush", "hostmesh-peers")
    report = bare.firewall("apply")
    assert (report["peers_added"], report["repairs"]) == (1, 1)
    bare.host.run("ipset", "add", "hostmesh-peers", "10.9.9.9")
    report = bare.firewall("apply")
    assert (report["peers_removed"], report["repairs"]) == (1, 2)
    assert bare.firewall("apply", peers=[])["repairs"] == 2
    assert bare.firewall("apply", peers=[])["repairs"] == 2


def test_show_says_where_ours_stand_and_what_they_counted(docked: Rig) -> None:
    docked.firewall("apply")
    docked.reach(Probe("peer", C0, "tcp81", PEER_CONTAINER))
    text = docked.firewall("show")
    assert "filter DOCKER-USER" in text
    assert "1 members" in text
    line = next(line for line in text.splitlines() if "hostmesh: open network" in line)
    assert "[0:0]" not in line


def test_the_dry_run_is_what_restore_takes(docked: Rig) -> None:
    text = docked.firewall("render")
    docked.host.run("ipset", "create", "hostmesh-peers", "hash:ip")
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


def test_a_change_of_somebody_elses_is_told_within_a_second_and_our_own_is_not(bare: Rig) -> None:
    if bare.variant != "nft":
        pytest.skip("legacy rules notify nobody: the daemon looks every CHECK_EVERY_S")
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


def test_repairs_are_counted_and_damped_where_somebody_fights(bare: Rig) -> None:
    bare.firewall("apply")
    bare.firewall("written_by", ["flusher (4711)"])
    reports = []
    for _ in range(22):
        bare.iptables("-t", "nat", "-F", "POSTROUTING")
        reports.append(bare.firewall("apply"))
    assert [report["repairs"] for report in reports] == [*range(1, 21), 20, 20]
    assert [report["held_back"] for report in reports] == [False] * 20 + [True] * 2
    assert "flusher (4711)" in conditions(reports[-1])["firewall-contested"]
    assert bare.firewall("apply", peers=[])["held_back"] is False


def test_only_the_own_variant_holds_rules_and_nothing_new_is_made_elsewhere(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    before = bare.save(variant=other)
    bare.firewall("apply")
    bare.firewall("check")
    bare.firewall("remove")
    assert bare.save(variant=other) == before
