"""The kernel and its programs take what is written for either family; only IPv4 is switched on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, subprocess, sys
from ipaddress import ip_address
from agent.kernel.firewall import open_firewall
from agent.mesh.firewall import Ingress, PublishedPort, Sender
from agent.model.family import FAMILIES
from dataclasses import replace
from tests.unit.firewall.wanted import RANGES, network, sources, wants

variant, version = sys.argv[1], int(sys.argv[2])
family = next(each for each in FAMILIES if each.version == version)
networks = (
    network("docker0", 0, "open", family=family),
    network("br-a", 128, "published", family=family),
    network("br-i", 130, "closed", internal=True, family=family),
)
inside = next(iter(networks[1].subnet.hosts()))
wanted = replace(
    wants(*networks, family=family, ingress=(
        Ingress("eth0", frozenset()),
        Ingress("tun0", sources(300, family) | {RANGES[family][1]}),
    )),
    published=frozenset({PublishedPort(inside, "sctp", 80)}),
    senders=frozenset({Sender(inside, "docker0")}),
)
firewall = open_firewall(variant, family=family)
firewall.want_sources(wanted)
firewall.apply(wanted)
after = firewall.check(wanted)
shown = firewall.show()
fewer = replace(wanted, ingress=wanted.ingress[:1], published=frozenset())
firewall.want_sources(fewer)
firewall.apply(fewer)
firewall.want_sources(wanted)
again = firewall.check(wanted)
removed = firewall.remove()
left = subprocess.run(["ipset", "list", "-n"], capture_output=True, text=True).stdout
print(json.dumps([after.edits, shown, again.edits, left]))
"""


@pytest.mark.parametrize("version", [pytest.param(4, marks=pytest.mark.full), 6])
def test_rules_and_sets_of_a_family_are_taken_as_they_are_written(
    variant: str, version: int
) -> None:
    """A process of its own: python-iptables stays bound to the namespace it was first used in."""
    argv = ["unshare", "-n", sys.executable, "-c", SCRIPT, variant, str(version)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    differs, shown, after_less, left = json.loads(done.stdout.splitlines()[-1])
    suffix = "" if version == 4 else "6"
    assert differs == []
    assert f"ipset hostmesh-in{suffix}-tun0: 301 members" in shown
    assert f"ipset hostmesh-in{suffix}-eth0: 0 members" in shown
    assert " sctp 80" in shown
    assert f"ipset hostmesh-published{suffix}: 1 to add, 0 to remove" in after_less
    assert f"ipset hostmesh-in{suffix}-tun0: 301 to add, 0 to remove" in after_less
    assert left == ""
