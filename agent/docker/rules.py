"""The part of [docker] that a reload changes while the agent runs."""

from __future__ import annotations

from agent.settings import DockerSettings

__all__ = ["RulesInForce"]


class RulesInForce:
    """What may be done to this Docker now. Read by the worker's thread, replaced by the loop's.

    Args:
        settings: [docker] as it was at start.
    """

    def __init__(self, settings: DockerSettings) -> None:
        self._settings = settings

    def adopt(self, settings: DockerSettings) -> None:
        """Let other rules hold from the next look at Docker on."""
        self._settings = settings

    @property
    def manage(self) -> bool:
        """May daemon.json be written and Docker restarted."""
        return self._settings.manage

    @property
    def restart(self) -> str:
        """One of when-idle, always and never."""
        return self._settings.restart

    @property
    def replace(self) -> bool:
        """The operator's word that their own keys may be replaced."""
        return self._settings.replace

    @property
    def expendable(self) -> tuple[str, ...]:
        """Names of containers that may be restarted with Docker."""
        return self._settings.expendable
