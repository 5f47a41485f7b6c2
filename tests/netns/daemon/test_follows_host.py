"""The daemon itself, without etcd and Docker, follows what the monitor tells of the host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.daemon import app as compose
from agent.daemon.core.reload import Source
from agent.daemon.state.events import Event, Stop
from agent.kernel.netlink_monitor import KernelEvent, NeighbourChange
from agent.settings import load_settings
from tests.netns.netlab import Host
from tests.netns.routes.scene import scene
from tests.waiting import eventually

pytestmark = pytest.mark.netns

ETCD = IPv4Address("203.0.113.5")


@pytest.fixture
def one(host: Host) -> Host:
    """192.0.2.1 on eth0, 198.51.100.1 on eth1, the default gateway behind eth0."""
    scene(host)
    host.ip("route add default via 192.0.2.254")
    return host


@pytest.fixture
def agent(one: Host, tmp_path: Path) -> Iterator[compose.HostAgent]:
    """Its loop and its monitor run; nothing that would speak to etcd, Docker or iptables does."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "host-id").write_text("0123456789abcdef" * 2)
    (tmp_path / "agent.toml").write_text(
        f'[etcd]\nendpoints = ["http://{ETCD}:2379"]\n'
        f'[agent]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
        "[firewall]\nmanage = false\n[docker]\nmanage = false\n"
    )
    load = partial(load_settings, tmp_path / "agent.toml", {}, {})
    made = compose.HostAgent(one.call(load), Source(load, lambda _settings: None))
    one.call(made._monitor.start)
    loop = one.thread(made._loop.run)
    yield made
    made._inbox.post(Stop())
    loop.join(5)
    made._monitor.stop()
    made._client.close()


def uplink_of(agent: compose.HostAgent) -> str:
    uplink = agent._cell.now.mesh.uplink
    return uplink.name if uplink else ""


def test_the_uplink_follows_the_default_gateway(one: Host, agent: compose.HostAgent) -> None:
    """The timer would look a minute later."""
    eventually(lambda: uplink_of(agent) == "eth0", 5)
    one.ip("route replace default via 198.51.100.254")
    eventually(lambda: uplink_of(agent) == "eth1", 2)


def test_the_uplink_follows_the_route_to_etcd(one: Host, agent: compose.HostAgent) -> None:
    eventually(lambda: uplink_of(agent) == "eth0", 5)
    one.ip("route add 203.0.113.0/24 via 198.51.100.254")
    eventually(lambda: uplink_of(agent) == "eth1", 2)


def test_a_neighbour_hurries_the_prober_and_causes_no_pass(
    agent: compose.HostAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(lambda: uplink_of(agent) == "eth0", 5)  # the loop and the monitor have begun
    posted: list[Event] = []
    monkeypatch.setattr(agent._inbox, "post", posted.append)
    suspect = IPv4Address("192.0.2.11")
    agent._prober.watch(frozenset({suspect}), None)
    agent._on_kernel(KernelEvent(neighbours=(NeighbourChange(suspect, failed=True),)))
    assert agent._prober._hurried == {suspect}
    assert posted == []
    monkeypatch.undo()
