"""Answer requests of the control socket about checks of all peers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.daemon.api.connection import Paths
from agent.daemon.api.mesh_handlers import newest_view
from agent.daemon.checks.documents import checks_document
from agent.daemon.checks.job import CheckJob
from agent.daemon.checks.last_check import LastCheck
from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.freshness import Freshness
from agent.errors import UsageError
from agent.etcd.kv import Record
from agent.mesh.check.result import CheckSummary
from agent.model import HostId
from agent.registry.records.checks import CHECKS

__all__ = ["CheckHandlers"]

Document = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class CheckHandlers:
    """The functions behind the paths. Runs in the control socket's threads.

    Args:
        freshness: How old the newest view is.
        read_checks: Reads what every host published from etcd.
    """

    cell: StateCell
    job: CheckJob
    freshness: Callable[[], Freshness]
    read_checks: Callable[[], Mapping[HostId, CheckSummary]]

    def paths(self) -> Paths:
        """Return the paths that only read."""
        return Paths(read={"/v1/check": self.last, "/v1/checks": self.every})

    def changes(self) -> Paths:
        """Return the path that changes something."""
        return Paths(change={"/v1/check": self.keep})

    def last(self) -> Document:
        """``GET /v1/check``: the last check of this host."""
        return LastCheck(self.cell.now.settings.agent.run_dir).document()

    def every(self) -> Document:
        """``GET /v1/checks``: the last check that each host published."""
        now_s = time.time()
        return checks_document(
            newest_view(self.cell),
            self.cell.now.mesh.host_id,
            self.read_checks(),
            now_s,
            freshness=self.freshness().document(now_s),
            own_problem=self.job.problem,
        )

    def keep(self, body: Document) -> Document:
        """``POST /v1/check``: publish the summary of a check, whose whole is in the run folder."""
        value = json.dumps(body).encode()
        try:
            summary = CHECKS.read(self.cell.now.mesh.host_id, Record(b"", value))
        except ValueError as error:
            raise UsageError(f"the summary of a check cannot be used: {error}") from error
        self.job.keep(summary)
        return {"version": 1, "done": ["the check is kept, and its summary published"], "todo": []}
