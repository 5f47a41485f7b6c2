"""From the rules of version 0.1.1 to those of today, and back, under traffic."""

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.firewall.rig.rig import C0, PEER, PEER_CONTAINER, PEER_SUBNET, Rig, conditions
from tests.netns.firewall.test_packets import ALL, WORLD

pytestmark = pytest.mark.netns

OLD_RULES = (Path(__file__).parent / "rules_0_1_1.txt").read_text()
"""Rules that agent 0.1.1 writes for this rig. They name sets, which it fills before."""
OLD_SETS = (
    ("hostmesh-peers", "hash:ip", (PEER,)),
    ("hostmesh-published", "hash:ip,port", ("10.65.0.2,tcp:80", "10.65.128.2,tcp:80")),
    ("hostmesh-senders", "hash:net,iface", ()),
)
KNOWN = re.compile(r"(\d+) packets transmitted, (\d+) received")


@contextlib.contextmanager
def pinging(rig: Rig, source: str) -> Iterator[None]:
    """Ping a container every 10 ms meanwhile; none is lost."""
    argv = rig.at["peer"].enter("ping", "-O", "-i", "0.01", "-I", source, C0)
    ping = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert ping.stdout is not None
    with ping:
        for line in ping.stdout:
            if "bytes from" in line:
                break
        yield
        for _ in range(20):  # after the change as well
            assert "icmp_seq=" in ping.stdout.readline()
        ping.send_signal(signal.SIGINT)
        found = KNOWN.search(ping.stdout.read())
    assert found is not None
    assert found[1] == found[2], f"{found[0]} from {source}"


def old_sets(rig: Rig) -> None:
    for name, kind, members in OLD_SETS:
        rig.host.run("ipset", "-exist", "create", name, kind)
        for member in members:
            rig.host.run("ipset", "-exist", "add", name, member)


def test_promise_12_an_upgrade_and_a_downgrade_lose_no_packet(docked: Rig) -> None:
    old_sets(docked)
    docked.restore(OLD_RULES.replace("FORWARD 1 -m comment", "DOCKER-USER 1 -m comment"))
    with pinging(docked, PEER), pinging(docked, PEER_CONTAINER):
        docked.firewall("apply")
    docked.expect(*ALL)
    assert docked.members("hostmesh-in-eth0") == [PEER_SUBNET, PEER]
    assert "hostmesh-peers" not in docked.host.run("ipset", "list", "-n")
    with pinging(docked, PEER), pinging(docked, PEER_CONTAINER):
        # The older agent fills its sets first, then replaces each chain of its own whole.
        old_sets(docked)
        docked.restore(re.sub(r"^-I .*\n", "", OLD_RULES, flags=re.MULTILINE))
    docked.expect(*WORLD)


def test_a_set_that_an_operators_rule_names_stays_with_a_condition(bare: Rig) -> None:
    """As the hints of version 0.1.1 advised: a rule that spares hosts of the mesh."""
    old_sets(bare)
    rule = ("-i", "eth0", "-m", "set", "!", "--match-set", "hostmesh-peers", "src", "-j", "LOG")
    bare.iptables("-I", "FORWARD", *rule)
    report = bare.firewall("apply")
    found_conditions = conditions(report)["firewall-set-in-use"]
    assert "hostmesh-peers" in found_conditions
    assert bare.members("hostmesh-peers") == [PEER]
    bare.iptables("-D", "FORWARD", *rule)
    assert "firewall-set-in-use" not in conditions(bare.firewall("apply"))
    assert bare.members("hostmesh-peers") == []


def test_a_set_of_an_interface_that_mesh_traffic_left_is_removed(bare: Rig) -> None:
    bare.firewall("apply", ingress={"eth0": [], "tun0": [PEER]})
    assert bare.members("hostmesh-in-tun0") == [PEER]
    report = bare.firewall("apply")
    assert report["differs"] is True
    names = bare.host.run("ipset", "list", "-n").split()
    assert sorted(names) == ["hostmesh-in-eth0", "hostmesh-published", "hostmesh-senders"]
