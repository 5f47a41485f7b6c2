"""A host whose daemon follows events that the test posts for etcd and Docker.

Everything from there to the kernel is real. The timer that would look at everything comes a minute
later: what is repaired before that was noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.daemon import app as compose
from agent.daemon.core.reload import Source
from agent.daemon.state.events import Apply, ContactChanged, LeaseChanged, Stop, ViewSeen
from agent.errors import EtcdUnavailable
from agent.model import Lease, View
from agent.registry.copy import CopyFile
from agent.registry.own.identity import host_id
from agent.settings import load_settings
from tests.netns.netlab import Host
from tests.netns.routes.scene import CONFIG, OWN, lease, shown

MACHINE_ID = "0123456789abcdef" * 2
CONTAINER = "10.64.1.5"
PEER = lease("10.64.1.0/24", "192.0.2.11")
PEER_ROUTE = "10.64.1.0/24 via 192.0.2.11 dev eth0"
AGGREGATE = "unreachable 10.64.0.0/10"


@dataclass
class Member:
    """A host whose daemon follows events that the test posts for etcd."""

    host: Host
    agent: compose.HostAgent
    peers: list[Lease] = field(default_factory=lambda: [PEER])
    revision: int = 10

    @property
    def own(self) -> Lease:
        return replace(OWN, host_id=self.agent._host_id)

    def etcd_tells(self, *peers: Lease) -> None:
        self.peers = list(peers)
        self.revision += 1
        leases = (self.own, *peers)
        view = View(cluster_id=1, revision=self.revision, config=CONFIG, leases=leases)
        self.agent._inbox.post(ViewSeen(view))

    def joins(self) -> None:
        self.agent._inbox.post(ContactChanged(None))
        self.etcd_tells(PEER)
        self.agent._inbox.post(LeaseChanged(self.own, ()))

    def end_grace(self) -> None:
        """Have what holds deletions back end now, as `etcd accept` does."""
        cell = self.agent._cell

        def end(_apply: Apply) -> None:
            cell.now = replace(cell.now, grace=cell.now.grace.end())

        self.agent._inbox.ask(end)

    def conditions(self) -> dict[str, str]:
        return {each.condition.name: each.condition.cause for each in self.agent._conditions.all()}

    def hint(self, name: str) -> str:
        found = (each.condition for each in self.agent._conditions.all())
        return next((each.hint for each in found if each.name == name), "")

    def etcd_is_away(self) -> None:
        self.agent._inbox.post(ContactChanged(EtcdUnavailable("no endpoint answers")))

    def diff(self) -> Mapping[str, Any]:
        """Return the document of agentctl diff."""
        return self.agent._control.paths.read["/v1/diff"]()  # type: ignore[return-value]  # a document

    def is_right(self) -> bool:
        return {AGGREGATE, PEER_ROUTE} <= shown(self.host)


def make_agent(
    host: Host,
    folder: Path,
    routes: str = "",
    firewall: str = "manage = false",
) -> compose.HostAgent:
    """Put the daemon together; ``routes`` and ``firewall`` go into its settings."""
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "host-id").write_text(host_id(MACHINE_ID))
    (folder / "agent.toml").write_text(
        '[etcd]\nendpoints = ["http://203.0.113.5:2379"]\n'
        f'[agent]\nstate_dir = "{folder}/state"\nrun_dir = "{folder}/run"\n'
        f"[firewall]\n{firewall}\n[docker]\nmanage = false\n[routes]\n{routes}\n"
    )
    load = partial(load_settings, folder / "agent.toml", {}, {})
    return compose.HostAgent(host.call(load), Source(load, lambda _settings: None))


def leave_a_copy(folder: Path, *peers: Lease) -> None:
    """Write a copy of an earlier run: the host held its subnet, and so did these."""
    own = replace(OWN, host_id=host_id(MACHINE_ID))
    view = View(cluster_id=1, revision=5, config=CONFIG, leases=(own, *peers))
    (folder / "state").mkdir(exist_ok=True)
    CopyFile(folder / "state" / "copy.json").save(view=view, lease=own)


@contextmanager
def running(agent: compose.HostAgent, host: Host) -> Iterator[threading.Thread]:
    """Its loop and its monitor, without what would speak to etcd, Docker or iptables."""
    host.call(agent._monitor.start)
    loop = host.thread(agent._loop.run)
    try:
        yield loop
    finally:
        agent._inbox.post(Stop())
        loop.join(5)
        host.call(agent._stop)
