"""``docker.attach = "daemon"``: the lease goes to docker0 and the pools, by daemon.json."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agent.docker.attach.conditions import (
    engine_conditions,
    error_condition,
    network_conflicts,
    not_routable,
    pending_condition,
    rolled_back_condition,
)
from agent.docker.attach.managed import ManagedDocker
from agent.docker.attach.own_network import remove_network
from agent.docker.daemonjson.desired import (
    BIP,
    DNS,
    NETWORK_MTU,
    POOLS,
    DesiredDocker,
    differences,
)
from agent.docker.daemonjson.file_plan import FilePlan, attempt_name, fixable, plan_file
from agent.docker.daemonjson.files import resolve
from agent.docker.daemonjson.flags import Flags
from agent.docker.daemonjson.names import names_due, unmanaged_names
from agent.docker.daemonjson.store import Snapshot
from agent.docker.daemonjson.undo_journal import Phase
from agent.docker.engine.reading import EngineKind, EngineReading
from agent.docker.report import AttachReport, ConfigFile, Preview
from agent.docker.service.restart_policy import Hold, Override
from agent.docker.service.restarter import Outcome
from agent.errors import HostmeshError
from agent.model import OWN_BRIDGE, Condition, DockerState

__all__ = ["DaemonJsonAttacher"]

_log = structlog.get_logger("docker")

_AGAIN_S = 2.0
"""How soon to look again at what is over soon: another host's restart, a container that ended."""

_OVERTAKEN = frozenset({"docker-absent", "docker-not-answering", "docker-rolled-back"})
"""Conditions that a restart brings up to date."""

_NOT_DOCKER = frozenset({EngineKind.PODMAN, EngineKind.UNSAFE})


@dataclass(slots=True)
class _Pass:
    """One run of :meth:`DaemonJsonAttacher.ensure`: what is known and what was done so far."""

    desired: DesiredDocker
    reading: EngineReading
    flags: Mapping[str, Flags]
    version: str
    override: Override
    conditions: list[Condition]
    replace: bool
    config: ConfigFile = ConfigFile.HELD
    changed: bool = False
    restarted: bool = False
    again_in_s: float | None = None

    def differences(self, reading: EngineReading | None = None) -> Mapping[tuple[str, ...], str]:
        return differences(self.desired, reading or self.reading)

    def is_right(
        self, reading: EngineReading, due: tuple[tuple[str, ...], ...] = (BIP, POOLS)
    ) -> bool:
        left = self.differences(reading)
        return reading.facts.reachable and not any(path in left for path in due)

    def pend(self, what: str, hold: Hold) -> None:
        self.conditions.append(pending_condition(what, hold))
        if hold.soon:
            self.again_in_s = _AGAIN_S


class DaemonJsonAttacher:
    """Brings Docker to the lease and keeps it there. For one thread; a call may take minutes.

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

    def ensure(
        self, desired: DesiredDocker, override: Override = Override.NONE, *, replace: bool = False
    ) -> AttachReport:
        """Make Docker have ``desired``, as far as settings and the running containers let it.

        Args:
            desired: What Docker should have.
            override: The operator's, on a restart; with it earlier failures are forgotten.
            replace: The operator allows, this once, that their own keys are replaced.

        Returns:
            What was found and done; trouble with Docker is a condition in it.

        Raises:
            Refused: Containers run and ``override`` does not reach that far; names those that
                may not be started again.
            Stopped: The agent stops.
        """
        if override is Override.POLICY:
            self._docker.refuse_under_containers()
        job = self._begin(desired, override, replace=replace)
        if not self._docker.settings.manage or job.reading.kind in _NOT_DOCKER:
            job.conditions += self._unmanaged(job)
            return self._report(job)
        if override is not Override.NONE:
            self._failure = None
        try:
            self._settle(job)
            self._work(job)
        except HostmeshError as error:
            job.conditions.append(error_condition(error))
        return self._report(job)

    def preview(self, desired: DesiredDocker) -> Preview:
        """Plan ``desired``. dockerd is asked to check the file; nothing is written."""
        job = self._begin(desired, Override.NONE, replace=False)
        would: list[str] = []
        if self._docker.settings.manage and job.reading.kind not in _NOT_DOCKER:
            try:
                would = self._would(job)
            except HostmeshError as error:
                job.conditions.append(error_condition(error))
        return Preview(job.reading.facts, tuple(would), tuple(job.conditions))

    def _would(self, job: _Pass) -> list[str]:
        snapshot = self._store.read()
        plan = self._plan(job, snapshot)
        job.conditions += plan.conditions
        if plan.blocked:
            return []
        text = self._checked(job, snapshot, plan)
        keys = ", ".join(".".join(path) for path in plan.values)
        would = [f"{self._store.path}: set {keys}"] if text != snapshot.document.text else []
        if job.reading.facts.reachable and job.differences():
            hold = self._docker.hold(job.reading.facts)
            would.append(
                f"Docker is not restarted yet: {hold.why}" if hold else "restart Docker once"
            )
        return would

    # --- the steps of ensure ------------------------------------------------------------

    def _begin(self, desired: DesiredDocker, override: Override, *, replace: bool) -> _Pass:
        reading = self._engine.read()
        used = self._docker.settings.manage and reading.kind not in _NOT_DOCKER
        return _Pass(
            desired=self._docker.with_search(desired),
            reading=reading,
            flags=self._docker.flags() if used else {},
            version=self._known_version(reading),
            override=override,
            conditions=list(engine_conditions(reading)),
            replace=replace or self._docker.settings.replace,
        )

    def _unmanaged(self, job: _Pass) -> tuple[Condition, ...]:
        if job.desired.names is None or job.reading.kind in _NOT_DOCKER:
            return ()
        try:
            document = self._store.read().document
        except HostmeshError:
            return ()  # it is the operator's, and dockerd says what is wrong with it
        return unmanaged_names(job.desired.names, document, self._docker.flags())

    def _settle(self, job: _Pass) -> None:
        """Bring a change that was cut off by a kill, or a dockerd that failed, to an end."""
        journal = self._store.journal()
        if journal is None:
            return
        down = not job.reading.facts.reachable
        gave_up = down and journal.phase is Phase.WRITTEN and self._gave_up()
        if down and not gave_up and self._docker.service.starting():
            # The host went down in the middle of it: the Docker that is about to start
            # reads the file that is there, and waiting for it here would delay the boot.
            if journal.phase is Phase.RESTARTING:
                self._store.mark(Phase.WRITTEN)
            return
        name = self._attempt(job, self._store.read())
        if journal.phase is Phase.RESTARTING:
            self._note(job, self._restarter.resume(name, job.is_right), name)
        elif not down:
            if journal.phase is Phase.ROLLED_BACK:
                self._store.mark(Phase.APPLIED)
        elif journal.phase is Phase.ROLLED_BACK:
            job.reading = self._restarter.start_after_roll_back()
        elif gave_up:
            why = "dockerd failed with the new daemon.json"
            self._note(job, self._restarter.roll_back(name, why), name)

    def _gave_up(self) -> bool:
        """Return whether dockerd failed with the file that is there now.

        A failure before that file was written says nothing about it.
        """
        try:
            age_s = time.time() - resolve(self._store.path).stat().st_mtime
        except OSError:
            return False
        return self._docker.service.failed(started_within_s=age_s if age_s > 0 else math.inf)

    def _work(self, job: _Pass) -> None:
        """Write what differs and restart if that is needed and allowed."""
        snapshot = self._store.read()
        plan = self._plan(job, snapshot)
        job.conditions += plan.conditions
        if self._network_in_the_way(job):
            return
        name = self._attempt(job, snapshot, plan)
        failure = self._remembered(snapshot, name)
        if failure and job.override is Override.NONE:
            job.conditions.append(rolled_back_condition(failure))
            return
        if plan.blocked or self._checked(job, snapshot, plan) is None:
            return
        before = str(job.reading.bip) if job.reading.bip else ""
        written = self._store.change(snapshot, plan.values, drop=plan.drop, bridge_before=before)
        job.config = ConfigFile.WRITTEN
        job.changed = written is not snapshot
        if job.changed:
            keys = [".".join(path) for path in plan.values]
            _log.info("daemon-json-written", path=str(written.path), keys=keys)
        if job.reading.facts.reachable:
            self._restart_if_needed(job, written, name)
        elif job.changed and plan.drop and self._docker.service.failed():
            # A key that was written for a later Docker kept it from starting.
            _log.info("docker-start-due", why="daemon.json had a key that it does not know")
            outcome = self._restarter.apply(name, lambda seen: seen.facts.reachable)
            self._note(job, outcome, name)

    def _checked(self, job: _Pass, snapshot: Snapshot, plan: FilePlan) -> str | None:
        """Return the text to be written, None when dockerd would refuse it."""
        text = self._store.preview(snapshot, plan.values, drop=plan.drop).text
        flags = next(iter(job.flags.values()), Flags())
        refused = self._docker.program.check_config(text, job.version, flags)
        if refused:
            job.conditions.append(refused)
            return None
        return text

    def _network_in_the_way(self, job: _Pass) -> bool:
        """Return whether a network lies where docker0 is to be.

        The one of ``docker.attach = "network"`` is removed first.
        """
        if job.reading.bip == job.desired.bip:
            return False
        why = 'docker.attach is "daemon" now'
        problem = remove_network(self._engine, job.reading, why=why)
        others = [each for each in job.reading.facts.networks if each.bridge != OWN_BRIDGE]
        found = (problem,) if problem else network_conflicts(job.desired, others)
        job.conditions += found
        return bool(found)

    def _restart_if_needed(self, job: _Pass, snapshot: Snapshot, name: str) -> None:
        due = dict(fixable(job.desired, job.differences(), snapshot.document, job.flags))
        if self._network_mtu_due(snapshot):
            due[NETWORK_MTU] = "new networks do not have the mesh's MTU yet"
        if names_due(snapshot) and self._runs_since_before(snapshot):
            asks = "do not ask" if job.desired.names else "still ask"
            due[DNS] = f"containers {asks} this host's name servers"
        if not due:
            if snapshot.journal and snapshot.journal.phase is Phase.WRITTEN:
                self._store.mark(Phase.APPLIED)
            return
        facts, asked = job.reading.facts, job.override is not Override.NONE
        with self._docker.restart_permission(facts, job.override, asked=asked) as hold:
            if hold:
                job.pend("Docker must be restarted: " + "; ".join(due.values()), hold)
                return
            _log.info("docker-restart-due", why=list(due.values()))
            outcome = self._restarter.apply(name, lambda seen: job.is_right(seen, tuple(due)))
        job.restarted = True
        self._note(job, outcome, name)

    def _note(self, job: _Pass, outcome: Outcome, name: str) -> None:
        """Take over what a restart came to."""
        job.reading = outcome.reading
        job.conditions = [each for each in job.conditions if each.name not in _OVERTAKEN]
        job.conditions += engine_conditions(outcome.reading)
        if outcome.failure:
            self._failure = (name, outcome.failure)
            job.conditions.append(rolled_back_condition(outcome.failure))

    def _network_mtu_due(self, snapshot: Snapshot) -> bool:
        """Return whether the running dockerd is older than the file's MTU for new networks."""
        journal = snapshot.journal
        if journal is None or journal.phase is not Phase.WRITTEN:
            return False
        if not journal.change(NETWORK_MTU) or not snapshot.document.has(NETWORK_MTU):
            return False
        return self._runs_since_before(snapshot)

    def _runs_since_before(self, snapshot: Snapshot) -> bool:
        """Return whether the running dockerd is older than the file."""
        process = self._docker.processes.dockerd()
        if process is None:
            return False
        return process.age_s > time.time() - snapshot.path.stat().st_mtime + 1.0

    # --- what is known --------------------------------------------------------------------

    def _plan(self, job: _Pass, snapshot: Snapshot) -> FilePlan:
        return plan_file(job.desired, snapshot, job.flags, version=job.version, replace=job.replace)

    def _attempt(self, job: _Pass, snapshot: Snapshot, plan: FilePlan | None = None) -> str:
        """Return the name under which a failure of this change is remembered."""
        plan = plan or self._plan(job, snapshot)
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
            self._version = self._docker.program.version() or self._version
        return self._version

    def _report(self, job: _Pass) -> AttachReport:
        facts = job.reading.facts
        if not facts.reachable:
            state = DockerState.ABSENT
        else:
            state = DockerState.READY if job.is_right(job.reading) else DockerState.PENDING
        conditions = (*job.conditions, *not_routable(facts.networks, job.desired))
        unique = {(each.name, each.subject): each for each in conditions}
        return AttachReport(
            state=state,
            facts=facts,
            config=job.config,
            changed=job.changed,
            restarted=job.restarted,
            conditions=tuple(unique.values()),
            again_in_s=job.again_in_s,
        )
