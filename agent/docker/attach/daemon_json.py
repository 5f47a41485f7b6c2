"""Brings Docker to the lease and keeps it there, with the operator's word at every step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agent.docker.attach.managed import ManagedDocker
from agent.docker.daemonjson.conflicts import network_conflicts, not_routable
from agent.docker.daemonjson.desired import BIP, NETWORK_MTU, POOLS, DesiredDocker, differences
from agent.docker.daemonjson.file_plan import FilePlan, attempt_name, fixable, plan_file
from agent.docker.daemonjson.files import resolve
from agent.docker.daemonjson.flags import Flags
from agent.docker.daemonjson.store import Snapshot
from agent.docker.daemonjson.undo_journal import Phase
from agent.docker.engine.reading import EngineKind, EngineReading
from agent.docker.report import (
    AttachReport,
    ConfigFile,
    engine_conditions,
    error_condition,
    observed,
    pending_condition,
    rolled_back_condition,
)
from agent.docker.service.restart_policy import Override
from agent.errors import HostmeshError
from agent.model import OWN_BRIDGE, Condition, DockerState

__all__ = ["DaemonJsonAttacher"]

_log = structlog.get_logger("docker")

_AGAIN_S = 2.0
"""How soon to look again at what is soon over: another host's turn, a container that ended."""


_OVERTAKEN = frozenset({"docker-absent", "docker-not-answering", "docker-rolled-back"})
"""Conditions that a restart brings up to date."""


@dataclass(slots=True)
class _Pass:
    """One run of :meth:`DaemonJsonAttacher.ensure`: what is known and what was done so far."""

    desired: DesiredDocker
    reading: EngineReading
    flags: Mapping[str, Flags]
    version: str
    override: Override
    conditions: list[Condition]
    replace: bool = False
    config: ConfigFile = ConfigFile.HELD
    changed: bool = False
    restarted: bool = False
    again_in_s: float | None = None

    def differences(self, reading: EngineReading | None = None) -> Mapping[tuple[str, ...], str]:
        seen = reading or self.reading
        return differences(self.desired, bip=seen.bip, pools=seen.pools, mtu=seen.mtu)


class DaemonJsonAttacher:
    """Brings Docker to the lease. For one thread; every call may take minutes.

    Args:
        docker: What to work on, and by which rules.
    """

    def __init__(self, docker: ManagedDocker) -> None:
        self._docker = docker
        self._engine = docker.engine
        self._store = docker.store
        self._restarter = docker.restarter
        self._version = ""
        self._failure: tuple[str, str] | None = None

    def observe(self, desired: DesiredDocker | None = None) -> AttachReport:
        """Look and touch nothing: for a host without a lease, or where Docker is not ours."""
        reading = self._engine.read()
        if desired is None:
            return observed(reading)
        conditions = list(engine_conditions(reading))
        job = _Pass(desired, reading, {}, "", Override.NONE, conditions)
        return self._report(job)

    def ensure(
        self, desired: DesiredDocker, *, override: Override = Override.NONE, replace: bool = False
    ) -> AttachReport:
        """Make Docker have ``desired``, as far as settings and the running containers let it.

        Args:
            desired: What Docker should have.
            override: The operator's, on a restart; with it earlier failures are forgotten.
            replace: The operator allows, this once,, that their own keys may be replaced.

        Returns:
            What was found and done; trouble with Docker is a condition in it.

        Raises:
            Stopped: The agent stops.
        """
        reading = self._engine.read()
        if not self._docker.settings.manage:
            return self.observe(desired)
        job = _Pass(
            desired=desired,
            reading=reading,
            flags=self._docker.flags(),
            version=self._known_version(reading),
            override=override,
            conditions=list(engine_conditions(reading)),
            replace=replace or self._docker.settings.replace,
        )
        if reading.kind in {EngineKind.PODMAN, EngineKind.UNSAFE}:
            return self._report(job)
        if override is not Override.NONE:
            self._failure = None
        try:
            self._settle(job)
            self._work(job)
        except HostmeshError as error:
            job.conditions.append(error_condition(error))
        return self._report(job)

    def restart_now(
        self, desired: DesiredDocker, *, force: bool, replace: bool = False
    ) -> AttachReport:
        """Do what is pending now, on the operator's word.

        Args:
            desired: What Docker should have.
            force: Also under running containers.
            replace: Also in place of the operator's own ``bip`` and pools.

        Raises:
            Refused: Containers run and ``force`` is not given; names those that would not
                come back by themselves.
            Stopped: The agent stops.
        """
        if not force:
            self._docker.refuse_under_containers()
        override = Override.CONTAINERS if force else Override.POLICY
        return self.ensure(desired, override=override, replace=replace)

    # --- the steps of ensure ------------------------------------------------------------

    def _settle(self, job: _Pass) -> None:
        """Bring a change that was cut off by a kill, or a dockerd that failed, to an end."""
        journal = self._store.journal()
        if journal is None:
            return
        down = not job.reading.facts.reachable
        gave_up = down and journal.phase is Phase.WRITTEN and self._gave_up()
        if down and not gave_up and self._docker.service.starting():
            # The host went down in the middle of it: the Docker that is about to start
            # reads the file that there is, and nobody may wait for it here.
            if journal.phase is Phase.RESTARTING:
                self._store.mark(Phase.WRITTEN)
            return
        name = self._attempt(job, self._store.read())
        if journal.phase is Phase.RESTARTING:
            outcome = self._restarter.resume(name, lambda seen: self._right(job, seen))
            self._note(job, outcome.reading, name, outcome.failure)
        elif job.reading.facts.reachable:
            if journal.phase is Phase.ROLLED_BACK:
                self._store.mark(Phase.APPLIED)
        elif journal.phase is Phase.ROLLED_BACK:
            job.reading = self._restarter.start_after_roll_back()
        elif gave_up:
            outcome = self._restarter.roll_back(name, "dockerd failed with the new daemon.json")
            self._note(job, outcome.reading, name, outcome.failure)

    def _gave_up(self) -> bool:
        """Whether dockerd failed with the file that there is now.

        One that had failed before it was written says nothing about it.
        """
        try:
            age_s = time.time() - resolve(self._store.path).stat().st_mtime
        except OSError:
            return False
        return self._docker.service.failed(started_within_s=age_s if age_s > 0 else math.inf)

    def _work(self, job: _Pass) -> None:
        """Write what differs and restart if that is needed and allowed."""
        snapshot = self._store.read()
        plan = plan_file(
            job.desired,
            snapshot,
            job.flags,
            version=job.version,
            replace=job.replace,
        )
        job.conditions += plan.conditions
        if self._network_in_the_way(job):
            return
        name = self._attempt(job, snapshot, plan)
        failure = self._remembered(snapshot, name)
        if failure and job.override is Override.NONE:
            job.conditions.append(rolled_back_condition(failure))
            return
        if plan.blocked:
            return
        refused = self._docker.checker.check(
            self._store.preview(snapshot, plan.values, drop=plan.drop), job.version
        )
        if refused:
            job.conditions.append(refused)
            return
        before = str(job.reading.bip) if job.reading.bip else ""
        written = self._store.change(snapshot, plan.values, drop=plan.drop, bridge_before=before)
        job.config = ConfigFile.WRITTEN
        job.changed = written is not snapshot
        if job.changed:
            _log.info(
                "daemon-json-written",
                path=str(written.path),
                keys=[".".join(path) for path in plan.values],
            )
        if job.reading.facts.reachable:
            self._restart_if_needed(job, written, name)
        elif job.changed and plan.drop and self._docker.service.failed():
            # A key of ours kept it from starting: it was written for a later Docker.
            _log.info("docker-start-due", why="daemon.json had a key that it does not know")
            outcome = self._restarter.apply(name, lambda seen: seen.facts.reachable)
            self._note(job, outcome.reading, name, outcome.failure)

    def _network_in_the_way(self, job: _Pass) -> bool:
        """Whether a network lies where docker0 is to be.

        Ours, of ``docker.attach = "network"``, is taken back first.
        """
        if job.reading.bip == job.desired.bip:
            return False
        own = self._docker.own_network
        problem = own.remove(job.reading, why='docker.attach is "daemon" now')
        others = [each for each in job.reading.facts.networks if each.bridge != OWN_BRIDGE]
        found = (problem,) if problem else network_conflicts(job.desired, others)
        job.conditions += found
        return bool(found)

    def _restart_if_needed(self, job: _Pass, snapshot: Snapshot, name: str) -> None:
        due = dict(fixable(job.desired, job.differences(), snapshot.document, job.flags))
        if self._network_mtu_due(snapshot):
            due[NETWORK_MTU] = "new networks do not have the mesh's MTU yet"
        if not due:
            if snapshot.journal and snapshot.journal.phase is Phase.WRITTEN:
                self._store.mark(Phase.APPLIED)
            return
        what = "Docker must be restarted: " + "; ".join(due.values())
        held = self._docker.held(job.reading.facts, override=job.override)
        if held:
            job.conditions.append(pending_condition(what, *held))
            return
        held = self._docker.unsettled(override=job.override)
        if held:
            job.conditions.append(pending_condition(what, *held))
            job.again_in_s = _AGAIN_S
            return
        with self._docker.restart_lock(asked=job.override is not Override.NONE) as held:
            if held:
                job.conditions.append(pending_condition(what, *held))
                job.again_in_s = _AGAIN_S
                return
            _log.info("docker-restart-due", why=list(due.values()))
            outcome = self._restarter.apply(
                name,
                lambda seen: self._right(job, seen, tuple(due)),
                held_now=lambda: (
                    self._docker.unsettled(override=job.override)
                    or self._docker.held_now(override=job.override)
                ),
            )
        if outcome.held:
            job.reading = outcome.reading
            job.conditions.append(pending_condition(what, *outcome.held))
            job.again_in_s = _AGAIN_S
            return
        job.restarted = True
        self._note(job, outcome.reading, name, outcome.failure)

    def _note(self, job: _Pass, reading: EngineReading, name: str, failure: str) -> None:
        job.reading = reading
        job.conditions = [
            condition for condition in job.conditions if condition.name not in _OVERTAKEN
        ]
        job.conditions += engine_conditions(reading)
        if failure:
            self._failure = (name, failure)
            job.conditions.append(rolled_back_condition(failure))

    def _right(
        self, job: _Pass, reading: EngineReading, due: tuple[tuple[str, ...], ...] = (BIP, POOLS)
    ) -> bool:
        left = job.differences(reading)
        return reading.facts.reachable and not any(path in left for path in due)

    def _network_mtu_due(self, snapshot: Snapshot) -> bool:
        """Whether the running dockerd is older than the file's MTU for new networks."""
        journal = snapshot.journal
        if journal is None or journal.phase is not Phase.WRITTEN:
            return False
        if not journal.change(NETWORK_MTU) or not snapshot.document.has(NETWORK_MTU):
            return False
        process = self._docker.processes.dockerd()
        if process is None:
            return False
        return process.age_s > time.time() - snapshot.path.stat().st_mtime + 1.0

    # --- what is known --------------------------------------------------------------------

    def _attempt(self, job: _Pass, snapshot: Snapshot, plan: FilePlan | None = None) -> str:
        plan = plan or plan_file(
            job.desired, snapshot, job.flags, version=job.version, replace=job.replace
        )
        journal = snapshot.journal
        base = snapshot.content.data
        if journal and journal.phase in {Phase.WRITTEN, Phase.RESTARTING}:
            base = journal.previous.data
        return attempt_name(plan.values, base, job.version)

    def _remembered(self, snapshot: Snapshot, name: str) -> str:
        failure = snapshot.journal.failure if snapshot.journal else None
        if failure and failure.digest == name:
            return failure.reason
        if self._failure and self._failure[0] == name:
            return self._failure[1]
        return ""

    def _known_version(self, reading: EngineReading) -> str:
        if reading.facts.version:
            self._version = reading.facts.version
        elif reading.kind is EngineKind.ABSENT:  # what starts next may be another one
            self._version = self._docker.service.installed_version() or self._version
        return self._version

    def _report(self, job: _Pass) -> AttachReport:
        facts = job.reading.facts
        left = job.differences()
        if not facts.reachable:
            state = DockerState.ABSENT
        elif BIP in left or POOLS in left:
            state = DockerState.PENDING
        else:
            state = DockerState.READY
        unique = {(c.name, c.subject): c for c in job.conditions}
        unique |= {(c.name, c.subject): c for c in not_routable(facts.networks, job.desired)}
        return AttachReport(
            state=state,
            facts=facts,
            config=job.config,
            changed=job.changed,
            restarted=job.restarted,
            conditions=tuple(unique.values()),
            again_in_s=job.again_in_s,
        )
