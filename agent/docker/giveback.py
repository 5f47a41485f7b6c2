"""Leaving: Docker gets its former configuration back, and what remains to do is said.

Taking ``bip`` out of daemon.json is not enough. dockerd keeps the address docker0 has, even
if docker0 is deleted before it starts: it is in its own store (seen on 26.1). So docker0 is
first moved back by a restart with its former address as ``bip``, and then the original file
is put in place, which needs no second restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import structlog

from agent.docker.decide import Held, Word
from agent.docker.journal import Journal, Phase
from agent.docker.jsonspan import JsonValue
from agent.docker.managed import ManagedDocker
from agent.docker.planning import pools_of
from agent.docker.reading import OWN_NETWORK, EngineReading
from agent.docker.report import RestoreReport
from agent.docker.wants import BIP, POOLS

__all__ = ["GiveBack", "docker0_of_old"]

_log = structlog.get_logger("docker")

_DOCKERS_OWN = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
"""What Docker takes docker0's network from when nobody says otherwise (20.10 to 28)."""


def docker0_of_old(taken: Iterable[IPv4Network], lease: IPv4Network) -> IPv4Interface | None:
    """Return an address for docker0 as Docker itself would choose it, None when all are taken.

    Args:
        taken: Destinations of the host's routes.
        lease: docker0's network until now, which is about to be free.
    """
    busy = [network for network in taken if network != lease]
    for network in _DOCKERS_OWN:
        if not any(network.overlaps(other) for other in busy):
            return IPv4Interface((network.network_address + 1, network.prefixlen))
    return None


class GiveBack:
    """Takes our keys out of daemon.json and lets Docker forget them.

    Args:
        docker: What to give back, and by which rules.
        routes: Reads the destinations of the host's routes.
    """

    def __init__(
        self, docker: ManagedDocker, routes: Callable[[], tuple[IPv4Network, ...]]
    ) -> None:
        self._docker = docker
        self._engine = docker.engine
        self._store = docker.store
        self._restarter = docker.restarter
        self._routes = routes

    def restore(self, *, may_restart: bool = True, force: bool = False) -> RestoreReport:
        """Take back what we gave Docker, and restart it if that is needed and allowed.

        daemon.json's keys return to what they were, and our network goes. Doing it twice does
        nothing the second time. Killed in between, it can be done again.

        Args:
            may_restart: False: only the file.
            force: Restart also under running containers.

        Raises:
            DockerConfigError: daemon.json does not parse any more or cannot be written.
            StateError: The journal cannot be read.
            Stopped: The agent stops.
        """
        reading = self._engine.read()
        done, todo = self._remove_network(reading)
        journal = self._store.journal()
        if journal is None:
            return RestoreReport(done=done, todo=todo, facts=self._engine.facts())
        report = self._restore_file(journal, reading, may_restart=may_restart, force=force)
        return replace(report, done=(*done, *report.done), todo=(*todo, *report.todo))

    def needs_restart(self, reading: EngineReading) -> bool:
        """Whether giving back would restart Docker: it has values that we gave it.

        Raises:
            StateError: The journal cannot be read.
        """
        journal = self._store.journal()
        return journal is not None and _in_force(journal, reading)

    def _remove_network(self, reading: EngineReading) -> tuple[tuple[str, ...], tuple[str, ...]]:
        own = reading.own_network
        if own is None or not own.ours:
            return (), ()
        problem = self._docker.own_network.remove(reading, why="this host leaves the mesh")
        if problem:
            return (), (f"{problem.cause}; docker network rm {OWN_NETWORK} when it is empty",)
        return (f"removed Docker network {OWN_NETWORK}",), ()

    def _restore_file(
        self, journal: Journal, reading: EngineReading, *, may_restart: bool, force: bool
    ) -> RestoreReport:
        if not reading.facts.reachable:
            kept = self._kept(journal, reading)
            return _report(self.put_back(), kept, reading, journal)
        if not _in_force(journal, reading):
            return _report(self.put_back(), (), reading, journal)
        word = Word.NOW_UNDER_CONTAINERS if force else Word.NONE
        held: Held | None = ("no restart was asked for", "")
        if may_restart:
            held = self._docker.held(reading.facts, word=word)
        if not held:
            with self._docker.turn(asked=True) as not_ours:
                held = not_ours or self._docker.held_now(word=word)
                if not held:
                    return self.move_back(reading)
        todo = f"restart Docker when it suits you: docker0 still has {reading.bip} ({held[0]})"
        address = self._former(journal, reading)
        if address is not None:
            todo += f"; it keeps it unless started once with --bip={address}"
        return _report(self.put_back(), (todo,), reading, journal)

    def _kept(self, journal: Journal, reading: EngineReading) -> tuple[str, ...]:
        """What is left to do at a Docker that does not answer and had docker0 on the lease."""
        bip = journal.change(BIP)
        if journal.phase is Phase.WRITTEN or bip is None or bip.before not in {None, "null"}:
            return ()  # it never had it, or daemon.json says where docker0 goes
        try:
            ours = IPv4Interface(str(bip.ours[-1]))
        except ValueError:
            return ()
        address = journal.bridge_before or docker0_of_old(self._routes(), ours.network)
        why = f"Docker does not answer ({reading.facts.problem})"
        keeps = f"docker0 keeps {ours}, which is no longer ours"
        return (f"{why}: {keeps}, unless Docker is started once with --bip={address}",)

    def move_back(self, reading: EngineReading) -> RestoreReport:
        """Restart with docker0's former address, then put the file back.

        The caller has looked whether Docker may be restarted now.
        """
        journal = self._store.journal()
        if journal is None:
            return RestoreReport(done=(), todo=(), facts=reading.facts)
        former = self._former(journal, reading)
        if former is not None:
            ours = tuple(change.path for change in journal.changes if change.path != BIP)
            self._store.change(self._store.read(), {BIP: str(former)}, drop=ours)
            outcome = self._restarter.plain(lambda seen: seen.bip == former)
            done = self.put_back()
        else:
            done = self.put_back()
            outcome = self._restarter.plain(lambda seen: seen.facts.reachable)
        if outcome.failure:
            todo = f"Docker did not come back: {outcome.failure}; look at Docker's log"
            return _report(done, (todo,), outcome.reading, journal)
        _log.info("docker-given-back", bridge=str(outcome.reading.bip))
        told = f"Docker was restarted; docker0 is {outcome.reading.bip or 'absent'}"
        return _report((*done, told), (), outcome.reading, journal)

    def put_back(self) -> tuple[str, ...]:
        """Return the keys of daemon.json to what they were; Docker is not restarted."""
        changed = self._store.restore()
        return (f"{self._store.path} is as it was before",) if changed else ()

    def _former(self, journal: Journal, reading: EngineReading) -> IPv4Interface | None:
        """Return docker0's address to be; None when daemon.json will say it."""
        bip = journal.change(BIP)
        if bip is None or bip.before not in {None, "null"} or reading.bip is None:
            return None
        before = journal.bridge_before
        if before and not bip.is_ours(before):
            return IPv4Interface(before)
        return docker0_of_old(self._routes(), reading.bip.network)


def _in_force(journal: Journal, reading: EngineReading) -> bool:
    """Whether the running engine has a value that we gave it."""
    bip, pools = journal.change(BIP), journal.change(POOLS)
    if not reading.facts.reachable:
        return False
    if bip is not None and bip.is_ours(str(reading.bip)):
        return True
    have: JsonValue = [{"base": str(base), "size": size} for base, size in reading.pools or ()]
    return pools is not None and pools.is_ours(have)


def _report(
    done: tuple[str, ...], todo: tuple[str, ...], reading: EngineReading, journal: Journal
) -> RestoreReport:
    """Return the report, with the networks that keep a subnet from the lease's pools."""
    pools = journal.change(POOLS)
    ours = pools_of(pools.ours[-1]) if pools else ()
    left = [
        f"docker network rm {network.name}: it keeps {network.subnet}, which is no longer ours"
        for network in reading.facts.networks
        if not network.default and any(network.subnet.subnet_of(base) for base, _ in ours)
    ]
    return RestoreReport(done=done, todo=(*todo, *left), facts=reading.facts)
