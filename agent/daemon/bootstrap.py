"""Create the mesh's config from [mesh] of the settings, in one transaction, off the loop."""

from __future__ import annotations

import threading
import time

import structlog

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
        self._log = structlog.get_logger("agent.bootstrap")

    def ensure(self, config: MeshConfig) -> tuple[Condition, ...]:
        """Start a try unless one is under way or has just failed. Never blocks."""
        idle = self._thread is None or not self._thread.is_alive()
        if idle and time.monotonic() >= self._not_before_s:
            self._not_before_s = time.monotonic() + jittered(_RETRY_S)
            self._thread = threading.Thread(
                target=self._create, args=(config,), name="bootstrap", daemon=True
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

    def _create(self, config: MeshConfig) -> None:
        try:
            self._registry.create_config(config)
        except HostmeshError as error:
            self._problem = error
            return
        self._problem = None
        self._log.info("mesh created", cidr=str(config.cidr), subnet_len=config.subnet_len)
