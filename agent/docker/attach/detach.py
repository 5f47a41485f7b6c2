"""Give Docker its previous configuration back, and say what is left to the operator.

Taking ``bip`` out of daemon.json is not enough. dockerd keeps the address that docker0 has, even
if docker0 is deleted before it starts: the address is in its own store (seen on 26.1). So docker0
is first moved back by a restart with its previous address as ``bip``, and then the original file
is put in place, which needs no second restart.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import structlog

from agent.docker.attach.managed import ManagedDocker
from agent.docker.attach.own_network import remove_network
from agent.docker.daemonjson.desired import BIP, POOLS
from agent.docker.daemonjson.document import JsonValue, KeyPath
from agent.docker.daemonjson.file_plan import pools_of
from agent.docker.daemonjson.store import Snapshot
from agent.docker.daemonjson.undo_journal import Phase, UndoJournal
from agent.docker.engine.reading import OWN_NETWORK, EngineReading
from agent.docker.networks.maker import NetworkMaker
from agent.docker.report import DetachReport
from agent.docker.service.restart_policy import Hold, Override, blocking_containers
from agent.model import first_few
from agent.model.family import (
    Interface,
    Network,
    family_of,
    meet,
    read_interface,
    read_network,
    within,
)

__all__ = ["DetachTerms", "Detacher", "free_bridge_address", "read_routes"]

_log = structlog.get_logger("docker")

_DOCKERS_OWN: Final[tuple[Network, ...]] = (
    *(ip_network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *(ip_network(f"192.168.{third}.0/20") for third in range(0, 256, 16)),
)
"""Where Docker takes docker0's network from without a setting (20.10 to 28)."""


@dataclass(frozen=True, slots=True)
class DetachTerms:
    """How Docker is to be given back.

    Attributes:
        force: Restart it also under running containers.
        asked: The operator waits for it. Otherwise Docker must have been idle for a while.
        again: The command that does it under running containers.
    """

    force: bool = False
    asked: bool = True
    again: str = "agentctl leave --force"


class Detacher:
    """Takes Hostmesh's keys out of daemon.json and lets Docker forget them.

    As long as the running Docker has values of Hostmesh, the journal stays, so that it can be
    done again. daemon.json has docker0's previous address meanwhile: any start of Docker moves it
    back, and then the file becomes what it was.

    Args:
        docker: What to give back, and by which rules.
        networks: Knows the networks that were made by records.
        routes: Reads the destinations of the host's routes.
    """

    def __init__(
        self,
        docker: ManagedDocker,
        networks: NetworkMaker,
        routes: Callable[[], tuple[Network, ...]] | None = None,
    ) -> None:
        self._docker = docker
        self._networks = networks
        self._engine = docker.engine
        self._store = docker.store
        self._restarter = docker.restarter
        self._routes = routes or read_routes

    def detach(self, terms: DetachTerms = DetachTerms()) -> DetachReport:
        """Take back what Docker was given, and restart it if that is needed and allowed.

        daemon.json's keys return to what they were, and networks that the agent made go. Doing it
        twice does nothing the second time. Killed in between, it can be done again.

        Raises:
            DockerConfigError: daemon.json does not parse any more or cannot be written.
            StateError: The journal cannot be read.
            Stopped: The agent stops.
        """
        reading = self._engine.read()
        done, todo = self._remove_networks(reading)
        journal = self._store.journal()
        if journal is None:
            return DetachReport(done=done, todo=todo, facts=self._engine.facts())
        report = self._restore_file(journal, reading, terms)
        return replace(report, done=(*done, *report.done), todo=(*todo, *report.todo))

    def needs_restart(self, reading: EngineReading) -> bool:
        """Return whether detaching would restart Docker: it has values that it was given.

        Raises:
            StateError: The journal cannot be read.
        """
        journal = self._store.journal()
        return journal is not None and _in_force(journal, reading)

    def move_back(self, reading: EngineReading) -> DetachReport:
        """Restart with docker0's previous address, then put the file back.

        The caller has looked whether Docker may be restarted now.
        """
        journal = self._store.journal()
        if journal is None:
            return DetachReport(facts=reading.facts)
        previous = self._write_previous(journal) if reading.bip is not None else None
        if previous is not None:
            outcome = self._restarter.plain(lambda seen: seen.bip == previous)
            done = self.put_back()
        else:
            done = self.put_back()
            outcome = self._restarter.plain(lambda seen: seen.facts.reachable)
        if outcome.failure:
            todo = f"Docker did not come back: {outcome.failure}; look at Docker's log"
            return _report(done, (todo,), outcome.reading, journal)
        _log.info("docker-given-back", bridge=str(outcome.reading.bip))
        restarted = f"Docker was restarted; docker0 is {outcome.reading.bip or 'absent'}"
        return _report((*done, restarted), (), outcome.reading, journal)

    def put_back(self) -> tuple[str, ...]:
        """Return the keys of daemon.json to what they were; Docker is not restarted."""
        changed = self._store.restore()
        return (f"{self._store.path} is as it was before",) if changed else ()

    def _remove_networks(self, reading: EngineReading) -> tuple[tuple[str, ...], tuple[str, ...]]:
        done, todo = self._networks.remove_unused()
        if reading.own_network is None:
            return done, todo
        problem = remove_network(self._engine, reading, why="this host leaves the mesh")
        if problem:
            left = f"{problem.cause}; docker network rm {OWN_NETWORK} when it is empty"
            return done, (*todo, left)
        return (*done, f"removed Docker network {OWN_NETWORK}"), todo

    def _restore_file(
        self, journal: UndoJournal, reading: EngineReading, terms: DetachTerms
    ) -> DetachReport:
        if not reading.facts.reachable and _keeps_address(journal):
            self._write_previous(journal)
            why = f"Docker does not answer ({reading.facts.problem})"
            keeps = f"docker0 keeps {_lease_values(journal)[-1]} until Docker starts again"
            return _report((), (f"{why}: {keeps}",), reading, journal)
        if not _in_force(journal, reading):
            return _report(self.put_back(), (), reading, journal)
        override = Override.CONTAINERS if terms.force else Override.NONE
        with self._docker.restart_permission(reading.facts, override, asked=terms.asked) as hold:
            if not hold:
                return self.move_back(reading)
        self._write_previous(journal)
        return _report((), (self._still(reading, hold, terms),), reading, journal)

    def _still(self, reading: EngineReading, hold: Hold, terms: DetachTerms) -> str:
        """Return why docker0 has the lease still, and what ends that."""
        facts = reading.facts
        names = blocking_containers(facts, self._docker.settings.expendable)
        uses = f"docker0 still uses {reading.bip}"
        if not names or facts.live_restore:
            return f"{uses}: {hold.why}. {hold.hint}"
        verb, them = ("are", "they") if len(names) > 1 else ("is", names[0])
        because = f"because {first_few(names)} {verb} running"
        return f"{uses} {because}. When {them} may stop: {terms.again}"

    def _write_previous(self, journal: UndoJournal) -> Interface | None:
        """Let Docker's next start move docker0 back.

        Returns:
            docker0's address to be, None where daemon.json has the operator's own.
        """
        snapshot = self._store.read()
        previous = self._previous(journal, snapshot)
        values: dict[KeyPath, JsonValue] = {BIP: str(previous)} if previous else {}
        drop = tuple(change.path for change in journal.changes if change.path not in values)
        self._store.change(snapshot, values, drop=drop, bridge_back=str(previous or ""))
        return previous

    def _previous(self, journal: UndoJournal, snapshot: Snapshot) -> Interface | None:
        bip, now = journal.change(BIP), snapshot.document.value(BIP)
        if bip is None or bip.before not in {None, "null"}:
            return None
        if snapshot.document.has(BIP) and not bip.is_ours(now):
            return None  # the operator's by now
        lease = _lease_values(journal)
        if journal.bridge_before and journal.bridge_before not in lease:
            return read_interface(journal.bridge_before)
        return free_bridge_address(self._routes(), read_interface(lease[-1]).network)


def free_bridge_address(taken: Iterable[Network], lease: Network) -> Interface | None:
    """Return an address for docker0 as Docker itself would choose it, None when all are taken.

    Args:
        taken: Destinations of the host's routes.
        lease: docker0's network until now, which is about to be free.
    """
    busy = [network for network in taken if network != lease]
    for network in _DOCKERS_OWN:
        if not any(meet(network, other) for other in busy):
            first = int(network.network_address) + 1
            return family_of(network).interface((first, network.prefixlen))
    return None


def read_routes(table: Path = Path("/proc/net/route")) -> tuple[Network, ...]:
    """Return the destinations of the main routing table, the default route left out."""
    found = []
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return ()
    for line in lines:
        fields = line.split()
        destination, mask = (struct.pack("=I", int(fields[i], 16)) for i in (1, 7))
        if any(mask):
            text = f"{socket.inet_ntoa(destination)}/{socket.inet_ntoa(mask)}"
            found.append(read_network(text, strict=False))
    return tuple(found)


def _lease_values(journal: UndoJournal) -> tuple[str, ...]:
    """Return docker0's addresses that a lease gave it, the newest last.

    Once docker0 is being given back its previous address is among the values that were written.
    It was there before as well where a lost journal was made anew: then it is the lease's.
    """
    bip = journal.change(BIP)
    ours = tuple(str(value) for value in bip.ours) if bip else ()
    return tuple(value for value in ours if value != journal.bridge_before) or ours


def _keeps_address(journal: UndoJournal) -> bool:
    """Return whether a Docker that does not answer has docker0's address in its own store."""
    bip = journal.change(BIP)
    if bip is None or bip.before not in {None, "null"}:
        return False  # daemon.json says where docker0 goes
    giving_back = len(bip.ours) > 1 and str(bip.ours[-1]) == journal.bridge_before
    return giving_back or journal.phase is not Phase.WRITTEN


def _in_force(journal: UndoJournal, reading: EngineReading) -> bool:
    """Return whether the running engine has a value that it was given."""
    if not reading.facts.reachable:
        return False
    if str(reading.bip) in _lease_values(journal):
        return True
    pools = journal.change(POOLS)
    have: JsonValue = [{"base": str(base), "size": size} for base, size in reading.pools or ()]
    return pools is not None and pools.is_ours(have)


def _report(
    done: tuple[str, ...], todo: tuple[str, ...], reading: EngineReading, journal: UndoJournal
) -> DetachReport:
    """Return the report, with the networks that keep a subnet from the lease's pools."""
    pools = journal.change(POOLS)
    ours = pools_of(pools.ours[-1]) if pools else ()
    left = [
        f"docker network rm {network.name}: it keeps {network.subnet}, which is no longer this"
        " host's"
        for network in reading.facts.networks
        if not network.default and any(within(network.subnet, base) for base, _ in ours)
    ]
    return DetachReport(done=done, todo=(*todo, *left), facts=reading.facts)
