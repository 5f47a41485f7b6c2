"""The look at the machine around every run of tests (tests/conftest.py) sees what it must."""

from __future__ import annotations

import subprocess

import pytest
from hostmesh_lab import machine_state

from tests.netns.netlab import Host

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    "disturbance",
    [
        "ip link add hm0 type bridge",
        "ip link set lo mtu 1400",
        "ip addr add 10.65.0.1/24 dev lo",
        "ip route add 10.65.0.0/16 dev lo table 77",
        "ip -6 route add fd00:65::/64 dev lo",
        "ip rule add from 10.65.0.0/16 table 77",
        "sysctl -qw net.ipv4.ip_forward=1",
        "iptables-nft -A FORWARD -s 10.65.0.0/16 -j DROP",
        "iptables-legacy -t nat -A POSTROUTING -s 10.65.0.0/16 -j ACCEPT",
        "ip6tables-nft -P FORWARD DROP",
        "ipset create hostmesh-in-eth0 hash:net",
    ],
)
def test_promise_5_whatever_a_test_leaves_behind_is_seen(host: Host, disturbance: str) -> None:
    before = host.call(machine_state.look_at_network)
    assert before.differences(host.call(machine_state.look_at_network)) == []
    host.call(subprocess.run, disturbance.split(), check=True, capture_output=True)
    assert before.differences(host.call(machine_state.look_at_network)) != []
