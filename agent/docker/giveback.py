"""Leaving: Docker gets its former configuration back, and what remains to do is said.

Taking ``bip`` out of daemon.json is not enough. dockerd keeps the address docker0 has, even
if docker0 is deleted before it starts: it is in its own store (seen on 26.1). So docker0 is
first moved back by a restart with its former address as ``bip``, and then the original file
is put in place, which needs no second restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv4Network

import structlog

from agent.docker.configurator import Settings
from agent.docker.decide import held_back
from agent.docker.engine import Engine, EngineReading
from agent.docker.journal import Journal
from agent.docker.jsonspan import JsonValue
from agent.docker.planning import pools_of
from agent.docker.report import RestoreReport
from agent.docker.restarter import Restarter
from agent.docker.service import DockerService
from agent.docker.store import DaemonJsonStore
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
        settings: When Docker may be restarted.
        engine: The engine.
        store: daemon.json.
        service: dockerd as a service.
        restarter: Restarts it.
        routes: Reads the destinations of the host's routes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        store: DaemonJsonStore,
        service: DockerService,
        restarter: Restarter,
        routes: Callable[[], tuple[IPv4Network, ...]],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._service = service
        self._restarter = restarter
        self._routes = routes

    def restore(self, *, may_restart: bool = True, force: bool = False) -> RestoreReport:
        """Return daemon.json's keys to what they were, and restart Docker if that is allowed.

        Doing it twice does nothing the second time. Killed in between, it can be done again.

        Args:
            may_restart: False: only the file.
            force: Restart also under running containers.

        Raises:
            DockerConfigError: daemon.json does not parse any more or cannot be written.
            StateError: The journal cannot be read.
            Stopped: The agent stops.
        """
        journal = self._store.journal()
        reading = self._engine.read()
        if journal is None:
            return RestoreReport(done=(), todo=(), facts=reading.facts)
        if not _in_force(journal, reading):
            return _report(self._put_back(), (), reading, journal)
        why = self._held(reading, force=force) if may_restart else "no restart was asked for"
        if why:
            todo = f"restart Docker when it suits you: docker0 still has {reading.bip} ({why})"
            address = self._former(journal, reading)
            if address is not None:
                todo += f"; it keeps it unless started once with --bip={address}"
            return _report(self._put_back(), (todo,), reading, journal)
        return self._move_back(journal, reading)

    def _move_back(self, journal: Journal, reading: EngineReading) -> RestoreReport:
        """Restart with docker0's former address, then put the file back."""
        former = self._former(journal, reading)
        if former is not None:
            ours = tuple(change.path for change in journal.changes if change.path != BIP)
            self._store.change(self._store.read(), {BIP: str(former)}, drop=ours)
            outcome = self._restarter.plain(lambda seen: seen.bip == former)
            done = self._put_back()
        else:
            done = self._put_back()
            outcome = self._restarter.plain(lambda seen: seen.facts.reachable)
        if outcome.failure:
            todo = f"Docker did not come back: {outcome.failure}; look at Docker's log"
            return _report(done, (todo,), outcome.reading, journal)
        _log.info("docker-given-back", bridge=str(outcome.reading.bip))
        told = f"Docker was restarted; docker0 is {outcome.reading.bip or 'absent'}"
        return _report((*done, told), (), outcome.reading, journal)

    def _put_back(self) -> tuple[str, ...]:
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

    def _held(self, reading: EngineReading, *, force: bool) -> str:
        cannot = self._service.can_restart()
        held = held_back(
            reading.facts,
            policy=self._settings.restart,
            expendable=self._settings.expendable,
            forced=force,
        )
        return cannot or (held[0] if held else "")


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
