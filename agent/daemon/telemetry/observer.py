"""Count what the loop sees and record it in the history.

A repair is drift: an object or rule of the agent differed although desired had not changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent.daemon.telemetry.counters import Counters
from agent.daemon.telemetry.history import History
from agent.errors import HostmeshError
from agent.model import Condition, HostId, Lease, Uplink, View
from agent.model.family import Network
from agent.reconcile.interfaces import Operation
from agent.reconcile.object_kind import Kind
from agent.reconcile.reconciler import Report
from agent.sharedmap import changed_keys

__all__ = ["Observer", "events_not_written", "open_history"]

_NAMED = 10
"""Record that many of the things that happen at once one by one."""


class Observer:
    """Counts and records for the loop and its parts.

    Args:
        history: None keeps counts only.
        clock: Monotonic seconds.
    """

    def __init__(
        self, history: History | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counters = Counters()
        self.history = history
        self._clock = clock
        self._again_s = 0.0
        self._log = structlog.get_logger("agent.loop")

    def happened(self, kind: str, text: str, subject: str = "") -> None:
        """Record one event of any kind."""
        self.counters.events[kind] += 1
        if self.history is not None:
            self.history.record(kind, text, subject)

    def condition_raised(self, condition: Condition) -> None:
        """Record the beginning of a condition."""
        self.happened("condition-raised", f"{condition.name}: {condition.cause}", _about(condition))

    def condition_cleared(self, condition: Condition, after_s: float) -> None:
        """Record the end of a condition."""
        text = f"{condition.name} is over after {after_s:.0f} s"
        self.happened("condition-cleared", text, _about(condition))

    def view_seen(self, before: View | None, now: View | None, own: HostId) -> None:
        """Record the peers that joined or left in a newer view."""
        if before is None or now is None or before is now:
            return
        earlier, later = before.by_subnet, now.by_subnet
        changed = changed_keys(earlier, later)
        was = {each for each in changed if _is_peers(earlier.get(each), own)}
        is_now = {each for each in changed if _is_peers(later.get(each), own)}
        joined = [later[each] for each in sorted(is_now - was)]
        left = [earlier[each] for each in sorted(was - is_now)]
        self._many("peer-joined", "joined", joined)
        self._many("peer-left", "left", left)

    def objects_passed(self, reports: Iterable[Report[Any]], took_s: float) -> None:
        """Count a pass over the keyed objects, and name the drift that it repaired."""
        self.counters.pass_s["routes"].observe(took_s)
        done = 0
        for report in reports:
            done += len(report.done)
            if report.kind is not None:
                self.counters.objects[report.kind.name] = report.desired, report.installed
                self._repaired(report.kind, report.repaired)
        self.counters.plan_size.observe(float(done))

    def _repaired(self, kind: Kind[Any], repairs: Sequence[Operation[Any]]) -> None:
        for number, each in enumerate(repairs):
            self.counters.repairs[f"{kind.name}-{each.reason}"] += 1
            if number < _NAMED:
                text = f"{each.object} was {each.reason} and was put right"
                self.counters.last_repair = text, self._clock()
                self.happened(f"{kind.name}-repaired", text, kind.subject(each.object))
        if len(repairs) > _NAMED:
            more = len(repairs) - _NAMED
            self.happened(f"{kind.name}-repaired", f"and {more} more of kind {kind.name}")

    def rules_passed(self, edits: tuple[str, ...], *, drift: bool, took_s: float) -> None:
        """Record a pass over the rules; ``drift``: another program had changed them."""
        self.counters.pass_s["rules"].observe(took_s)
        if drift:
            self.counters.repairs["rules"] += 1
            text = "; ".join(edits[:3]) + (f"; and {len(edits) - 3} more" if len(edits) > 3 else "")  # noqa: PLR2004 - a line's worth
            text = text or "rules were changed and put right"
            self.counters.last_repair = text, self._clock()
            self.happened("rules-repaired", text)

    def docker_restarted(self) -> None:
        """Record that the agent restarted dockerd."""
        self.counters.docker_restarts += 1
        self.happened("docker-restarted", "dockerd was restarted by the agent")

    def subnet_held(self, subnet: Network) -> None:
        """Record the subnet that is held."""
        self._log.debug("lease-held", subnet=str(subnet))
        self.happened("subnet-held", f"this host holds {subnet}", str(subnet))

    def uplink_changed(self, uplink: Uplink) -> None:
        """Record the new uplink."""
        address = str(uplink.node_address)
        self._log.info("uplink", name=uplink.name, node_address=address, mtu=uplink.mtu)
        text = f"the uplink is {uplink.name} with {address}"
        self.happened("uplink-changed", text, uplink.name)

    def flush(self) -> tuple[Condition, ...] | None:
        """Write the history; return conditions, None when it is not yet time to try again."""
        if self.history is None:
            return ()
        if self._clock() < self._again_s:
            return None
        try:
            self.history.flush()
        except HostmeshError as error:
            self._again_s = self._clock() + 5
            return (events_not_written(error),)
        return ()

    def _many(self, kind: str, word: str, leases: list[Lease]) -> None:
        for lease in leases[:_NAMED]:
            name = lease.host_name or lease.host_id or "a flannel host"
            text = f"{name} at {lease.node_address} {word} with {lease.subnet}"
            self.happened(kind, text, str(lease.subnet))
        if len(leases) > _NAMED:
            self.happened(kind, f"and {len(leases) - _NAMED} hosts more")


def open_history(folder: Path) -> History | None:
    """Return the history in the agent's state directory; None when it cannot be read."""
    try:
        return History(folder)
    except HostmeshError as error:
        structlog.get_logger("agent.events").warning("events-not-kept", reason=error.message)
        return None


def _is_peers(lease: Lease | None, own: HostId) -> bool:
    return lease is not None and lease.host_id != own


def _about(condition: Condition) -> str:
    return f"{condition.name} {condition.subject}".strip()


def events_not_written(error: HostmeshError) -> Condition:
    """Report that the history cannot be written."""
    return Condition(
        name="events-not-written",
        cause=error.message,
        hint=error.hint or "events wait in memory until they can be written",
    )
