"""Leaving: Docker gets its former configuration back, and what remains to do is said."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from agent.docker.configurator import Settings
from agent.docker.decide import held_back
from agent.docker.engine import Engine, EngineReading
from agent.docker.journal import Journal
from agent.docker.jsonspan import JsonValue
from agent.docker.report import RestoreReport
from agent.docker.restarter import Restarter
from agent.docker.service import DockerService, Runner
from agent.docker.store import DaemonJsonStore
from agent.docker.wants import BIP, POOLS

__all__ = ["GiveBack", "drop_docker0"]

_log = structlog.get_logger("docker")
_IP_TIMEOUT_S = 10.0
_BY_HAND = "restart Docker when it suits you; until then docker0 keeps {bip}"


def drop_docker0(runner: Runner) -> None:
    """Remove docker0, so that the next start of dockerd makes it anew.

    dockerd takes the address that an existing docker0 has when daemon.json names none (seen
    on 20.10, 26.1 and 28.5), so without this the lease's address would outlive the lease.
    """
    runner.run(("ip", "link", "delete", "dev", "docker0"), _IP_TIMEOUT_S)


class GiveBack:
    """Takes our keys out of daemon.json and lets Docker forget them.

    Args:
        settings: When Docker may be restarted.
        engine: The engine.
        store: daemon.json.
        service: dockerd as a service.
        restarter: Restarts it.
        drop_bridge: Removes docker0.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        store: DaemonJsonStore,
        service: DockerService,
        restarter: Restarter,
        drop_bridge: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._service = service
        self._restarter = restarter
        self._drop_bridge = drop_bridge

    def restore(self, *, may_restart: bool = True, force: bool = False) -> RestoreReport:
        """Return daemon.json's keys to what they were, and restart Docker if that is allowed.

        Doing it twice does nothing the second time.

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
        in_force = _in_force(journal, reading)
        changed = self._store.restore()
        done = [f"{self._store.path} is as it was before"] if changed else []
        if not in_force:
            return RestoreReport(done=tuple(done), todo=(), facts=reading.facts)
        why = self._held(reading, force=force) if may_restart else "no restart was asked for"
        if why:
            todo = f"{_BY_HAND.format(bip=reading.bip)} ({why})"
            return RestoreReport(done=tuple(done), todo=(todo,), facts=reading.facts)
        bip = journal.change(BIP)
        if bip is not None and bip.before is None:
            self._drop_bridge()
        outcome = self._restarter.plain(lambda seen: seen.facts.reachable)
        if outcome.failure:
            todo = f"Docker did not come back: {outcome.failure}; look at journalctl -u docker"
            return RestoreReport(done=tuple(done), todo=(todo,), facts=outcome.reading.facts)
        _log.info("docker-given-back", bridge=str(outcome.reading.bip))
        done.append(f"Docker was restarted; docker0 is {outcome.reading.bip or 'absent'}")
        return RestoreReport(done=tuple(done), todo=(), facts=outcome.reading.facts)

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
