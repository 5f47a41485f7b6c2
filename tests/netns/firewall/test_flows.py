"""Freeing masqueraded flows, by the thousand, in the kernel's own table."""

import itertools
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from agent.kernel.firewall.conntrack import Flows
from agent.mesh.firewall import DesiredFirewall, Ingress
from tests.netns.netlab import Host

pytestmark = pytest.mark.netns

WANTS = DesiredFirewall(
    cidr=IPv4Network("10.64.0.0/10"),
    lease=IPv4Network("10.65.0.0/16"),
    ingress=(Ingress("eth0", frozenset()),),
)
WRONG, RIGHT = 10_500, 500


@pytest.fixture
def tracked() -> Iterator[Host]:
    """A host that tracks masqueraded flows: to the mesh, which is wrong, and to the world."""
    host = Host()
    ends = itertools.chain(
        (("10.66.0.5", 1024 + number) for number in range(WRONG)),
        (("203.0.113.7", 1024 + number) for number in range(RIGHT)),
    )
    flows = "".join(
        f"-I -p udp -s 10.65.0.2 -d {to} --sport 20000 --dport {port} --src-nat 192.0.2.1 -t 600\n"
        for to, port in ends
    )
    run = subprocess.run
    host.call(run, ["iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "ACCEPT"], check=True)
    host.call(run, ["conntrack", "-R", "-"], input=flows.encode(), capture_output=True, check=True)
    yield host
    host.close()


def count(host: Host) -> int:
    done = host.call(subprocess.run, ["conntrack", "-C"], capture_output=True, check=True)
    return int(done.stdout)


def test_every_masqueraded_flow_is_freed_and_none_to_the_world(tracked: Host) -> None:
    assert count(tracked) == WRONG + RIGHT
    look = tracked.call(Flows().free_masqueraded, WANTS, {})
    assert (look.freed, look.left, look.complete) == (WRONG, 0, True)
    assert count(tracked) == RIGHT


def test_promise_10_a_look_that_takes_long_stops_and_the_next_goes_on(tracked: Host) -> None:
    ticks = itertools.count(step=0.5)
    look = tracked.call(Flows(lambda: next(ticks)).free_masqueraded, WANTS, {})
    assert look.freed < WRONG
    assert (look.freed + look.left, look.complete) == (WRONG, False)
    assert tracked.call(Flows().free_masqueraded, WANTS, {}).freed == look.left
    assert count(tracked) == RIGHT
