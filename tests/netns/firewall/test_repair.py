"""One pass repairs any change of the rules, a second finds nothing, others' rules stay."""

import time
from collections.abc import Callable

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text, jumps
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import (
    A1,
    C0,
    HOST,
    NETWORKS,
    PEER,
    PEER_CONTAINER,
    STRANGER,
    Rig,
)

pytestmark = pytest.mark.netns

KEY = (
    (Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER),
    (Probe("peer", C0, "icmp", PEER), "yes"),
    (Probe("c0", PEER_CONTAINER, "tcp81"), C0),
    (Probe("stranger", C0, "tcp81"), None),
    (Probe("peer", A1, "tcp81", PEER_CONTAINER), None),
)
ISOLATED = ((Probe("c0", A1, "tcp81"), None), (Probe("c0", STRANGER, "tcp81"), HOST))
JUMP = '-m comment --comment "hostmesh: everything of ours is in this chain" -j HOSTMESH-'

Disturb = Callable[[Rig, str], None]


def flush_filter(rig: Rig, _engine: str) -> None:
    rig.iptables("-F")


def flush_and_delete(rig: Rig, _engine: str) -> None:
    rig.iptables("-F")
    rig.iptables("-X")


def flush_nat(rig: Rig, _engine: str) -> None:
    rig.iptables("-t", "nat", "-F")


def flush_raw(rig: Rig, _engine: str) -> None:
    rig.iptables("-t", "raw", "-F")


def flush_all_as_firewalld(rig: Rig, engine: str) -> None:
    """A reload: everything goes, Docker writes its own again."""
    for table in ("filter", "nat", "raw"):
        rig.iptables("-t", table, "-F")
        rig.iptables("-t", table, "-X")
    rig.restore(docker_text(engine))


def restart_docker(_rig: Rig, engine: str) -> None:
    """It inserts its jumps and its MASQUERADE at the head again."""
    lines = [*(f"-D {jump.removeprefix('-I ')}" for jump in jumps(engine)), *jumps(engine)]
    _rig.restore("\n".join(["*filter", *lines, "COMMIT", ""]))
    masquerade = "POSTROUTING -s 10.65.0.0/17 ! -o docker0 -j MASQUERADE"
    _rig.restore(f"*nat\n-D {masquerade}\n-I {masquerade}\nCOMMIT\n")


def new_network(rig: Rig, _engine: str) -> None:
    rig.restore(
        "*filter\n-I FORWARD -o br-x -j DOCKER\n-I DOCKER-USER -i br-x -j RETURN\nCOMMIT\n"
        "*nat\n-I POSTROUTING -s 10.65.130.0/24 ! -o br-x -j MASQUERADE\nCOMMIT\n"
    )


def delete_jumps(rig: Rig, _engine: str) -> None:
    rig.restore(f"*filter\n-D DOCKER-USER {JUMP}FORWARD\nCOMMIT\n*nat\n-D POSTROUTING 1\nCOMMIT\n")


def double_jumps(rig: Rig, _engine: str) -> None:
    rig.restore(
        f"*filter\n-I DOCKER-USER {JUMP}FORWARD\n-A FORWARD {JUMP}FORWARD\n-A INPUT {JUMP}FORWARD\n"
        f"COMMIT\n*nat\n-A POSTROUTING {JUMP}POSTROUTING\nCOMMIT\n"
        f"*raw\n-A PREROUTING {JUMP}PREROUTING\n-A OUTPUT -d 10.9.9.9 -j HOSTMESH-PREROUTING\n"
        "COMMIT\n"
    )


def move_jumps(rig: Rig, _engine: str) -> None:
    rig.restore(
        f"*filter\n-D DOCKER-USER {JUMP}FORWARD\n-A FORWARD {JUMP}FORWARD\nCOMMIT\n"
        f"*nat\n-D POSTROUTING 1\n-A POSTROUTING {JUMP}POSTROUTING\nCOMMIT\n"
        f"*raw\n-D PREROUTING 1\n-A PREROUTING {JUMP}PREROUTING\nCOMMIT\n"
    )


def narrow_jumps(rig: Rig, _engine: str) -> None:
    rig.restore(
        f"*filter\n-D DOCKER-USER {JUMP}FORWARD\n-I DOCKER-USER -p tcp {JUMP}FORWARD\nCOMMIT\n"
        f"*nat\n-D POSTROUTING 1\n-I POSTROUTING -s 10.65.0.9 {JUMP}POSTROUTING\nCOMMIT\n"
    )


def insert_above(rig: Rig, _engine: str) -> None:
    rig.iptables("-t", "nat", "-I", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
    rig.iptables("-t", "raw", "-I", "PREROUTING", "-d", C0, "-i", "eth0", "-j", "DROP")


def tamper_inside(rig: Rig, _engine: str) -> None:
    rig.iptables("-D", "HOSTMESH-FORWARD", "1")
    rig.iptables("-I", "HOSTMESH-FORWARD", "-j", "ACCEPT")
    rig.iptables("-t", "nat", "-A", "HOSTMESH-POSTROUTING", "-j", "MASQUERADE")
    rig.iptables("-t", "raw", "-F", "HOSTMESH-PREROUTING")


def older_version(rig: Rig, _engine: str) -> None:
    rig.restore(
        "*filter\n:HOSTMESH-OLD - [0:0]\n:HOSTMESH-OLDER - [0:0]\n"
        "-A HOSTMESH-OLD -j HOSTMESH-OLDER\n-I FORWARD -j HOSTMESH-OLD\nCOMMIT\n"
        "*mangle\n:HOSTMESH-MARK - [0:0]\n"
        "-A PREROUTING -j HOSTMESH-MARK\nCOMMIT\n"
    )


DISTURBANCES: tuple[Disturb, ...] = (
    flush_filter,
    flush_and_delete,
    flush_nat,
    flush_raw,
    flush_all_as_firewalld,
    restart_docker,
    new_network,
    delete_jumps,
    double_jumps,
    move_jumps,
    narrow_jumps,
    insert_above,
    tamper_inside,
    older_version,
)


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_one_pass_repairs_and_a_second_finds_nothing(
    docked: Rig, engine: str, disturb: Disturb
) -> None:
    """Foreign rules are the same lines in the same order before and after the repair."""
    docked.firewall("apply")
    disturb(docked, engine)
    before = docked.foreign()
    assert docked.firewall("check")["differs"] is True
    assert docked.firewall("apply")["differs"] is True
    assert docked.foreign() == before
    assert docked.firewall("check")["edits"] == []
    saved = docked.save()
    assert docked.firewall("apply")["differs"] is False
    assert docked.save() == saved
    dockers_gone = disturb in {flush_filter, flush_and_delete, flush_nat}
    docked.expect(*KEY, *(() if dockers_gone else ISOLATED))


def test_nothing_is_written_when_nothing_differs(docked: Rig) -> None:
    docked.firewall("apply")
    docked.expect(*KEY)
    words = ("-nvxL", "HOSTMESH-FORWARD")
    counted = docked.iptables(*words)
    assert docked.firewall("apply")["differs"] is False
    assert docked.iptables(*words) == counted


def used_tables(lines: list[str]) -> dict[str, list[str]]:
    """The tables that hold anything but empty built-in chains. Which come first varies."""
    tables: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        name = line if line.startswith("*") else name
        tables.setdefault(name, []).append(line)
    return {
        name: said
        for name, said in tables.items()
        if any(line.startswith("-A") or line.endswith(("-", "DROP")) for line in said)
    }


def test_leaving_leaves_no_trace(docked: Rig) -> None:
    before = docked.save()
    docked.firewall("apply")
    assert docked.save() != before
    removed = docked.firewall("remove")
    assert removed["differs"] is True
    assert used_tables(docked.save()) == used_tables(before)
    assert "hostmesh" not in docked.host.run("ipset", "list", "-n")
    assert docked.firewall("remove")["differs"] is False


def test_the_agents_jump_is_behind_the_operators_rules_and_before_the_return(
    docked: Rig, engine: str
) -> None:
    docked.iptables("-I", "DOCKER-USER", "-s", "10.66.0.77", "-j", "DROP")
    docked.firewall("apply")
    docked.iptables("-I", "DOCKER-USER", "-s", "10.66.0.78", "-j", "DROP")
    if engine == "28.5":
        docked.iptables("-A", "DOCKER-USER", "-s", "10.66.0.79", "-j", "DROP")
        assert docked.firewall("apply")["differs"] is True
    rules = [line for line in docked.save() if line.startswith("-A DOCKER-USER")]
    ours = [index for index, line in enumerate(rules) if "HOSTMESH-FORWARD" in line]
    assert ours == [len(rules) - 1 if engine == "28.5" else len(rules) - 2]
    docked.at["peer"].ip("addr replace 10.66.0.77/32 dev lo")
    docked.expect((Probe("peer", C0, "tcp81", "10.66.0.77"), None), *KEY)


def test_docker_appears_and_disappears(bare: Rig) -> None:
    bare.firewall("apply")
    assert any(line.startswith("-A FORWARD") and "HOSTMESH" in line for line in bare.save())
    bare.restore(docker_text("26.1"))
    bare.firewall("apply")
    assert not any(line.startswith("-A FORWARD") and "HOSTMESH" in line for line in bare.save())
    assert any(line.startswith("-A DOCKER-USER") and "HOSTMESH" in line for line in bare.save())
    bare.expect(*KEY)


def test_masqueraded_flows_are_freed_and_others_are_not(docked: Rig) -> None:
    """A running ping keeps the source it began with until its conntrack entry goes."""
    docked.firewall("apply")
    docked.iptables("-t", "nat", "-F", "HOSTMESH-POSTROUTING")
    assert source_of_ping(docked) == {HOST}
    docked.expect((Probe("c0", STRANGER, "udp81"), HOST))
    assert docked.firewall("apply")["freed_flows"] >= 1
    assert source_of_ping(docked) == {C0}
    assert STRANGER in docked.host.run("conntrack", "-L", check=False)


def source_of_ping(rig: Rig) -> set[str]:
    """The source by which the other host sees a ping, always the same one, of a container."""
    rig.at["peer"].seen("icmp")
    rig.at["c0"].ask("icmp", to=PEER_CONTAINER, ident=77, timeout_s=0.5)
    rig.at["c0"].answers(1)
    deadline = time.monotonic() + 2
    while not (seen := rig.at["peer"].seen("icmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return seen


def test_promise_6_flows_that_a_killed_agent_left_masqueraded_are_freed_by_the_next(
    docked: Rig,
) -> None:
    """The rules had been put right, and the agent ended before it came to the flows."""
    docked.firewall("apply")
    docked.iptables("-t", "nat", "-F", "HOSTMESH-POSTROUTING")
    assert source_of_ping(docked) == {HOST}
    docked.restore(docked.firewall("render"))
    docked.reopen(docked.variant)
    report = docked.firewall("apply")
    assert (report["differs"], report["freed_flows"]) == (False, 1)
    assert source_of_ping(docked) == {C0}
    assert docked.firewall("apply")["freed_flows"] == 0


def test_flows_of_a_closed_network_are_rightly_masqueraded_and_stay(docked: Rig) -> None:
    networks = [
        {**network, "labels": {"hostmesh.access": "closed"}}
        if network["bridge"] == "br-app"
        else network
        for network in NETWORKS
    ]
    docked.firewall("apply", networks=networks)
    docked.expect((Probe("a1", PEER_CONTAINER, "udp81"), HOST))
    docked.iptables("-t", "nat", "-F", "HOSTMESH-POSTROUTING")
    report = docked.firewall("apply", networks=networks)
    assert (report["differs"], report["freed_flows"]) == (True, 0)
    assert A1 in docked.host.run("conntrack", "-L", "-p", "udp", check=False)
    assert docked.firewall("apply")["freed_flows"] == 1, "opened: its true source from now on"


def test_peers_own_traffic_is_let_in_and_out_after_docker_lost_its_jumps(docked: Rig) -> None:
    docked.firewall("apply")
    docked.iptables("-P", "FORWARD", "DROP")
    docked.iptables("-F")
    docked.firewall("apply")
    docked.expect((Probe("peer", C0, "tcp81", PEER), PEER), *KEY)
