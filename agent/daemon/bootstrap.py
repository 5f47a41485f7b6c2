"""Create the mesh's config, in one transaction and off the loop.

From [mesh] of the settings, or again from this host's copy when etcd lost it.
"""

from __future__ import annotations

import threading
import time

from agent.daemon.timers import jittered
from agent.errors import HostmeshError
from agent.leases.registry import Registry
from agent.model import Condition, MeshConfig, Severity

__all__ = ["Bootstrap"]

_RETRY_S = 5.0


class Bootstrap:
    """Writes the config if there is none. The result comes back the normal way, as a view."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._thread: threading.Thread | None = None
        self._not_before_s = 0.0
        self._problem: HostmeshError | None = None

    def ensure(self, config: MeshConfig, *, grace_s: int) -> tuple[Condition, ...]:
        """Start a try unless one is under way or has just failed. Never blocks.

        Args:
            grace_s: For that long only hosts that held a subnet may claim.
        """
        idle = self._thread is None or not self._thread.is_alive()
        if idle and time.monotonic() >= self._not_before_s:
            self._not_before_s = time.monotonic() + jittered(_RETRY_S)
            self._thread = threading.Thread(
                target=self._create, args=(config, grace_s), name="bootstrap", daemon=True
            )
            self._thread.start()
        problem = self._problem
        if problem is None:
            return ()
        return (
            Condition(
                name="mesh-config-not-created",
                severity=Severity.ERROR,
                cause=problem.message,
                hint=problem.hint or "it is tried again",
            ),
        )

    def _create(self, config: MeshConfig, grace_s: int) -> None:
        try:
            self._registry.create_config(config, grace_s=grace_s)
        except HostmeshError as error:
            self._problem = error
            return
        self._problem = None
