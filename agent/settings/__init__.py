"""The agent's settings on this host: /etc/hostmesh/agent.toml, the environment and flags."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.settings.load import KEYS, SECTIONS, load_settings, overrides_from_flags
    from agent.settings.sections import (
        DEFAULT_PATH,
        AgentSettings,
        Docker0Share,
        DockerAttach,
        DockerSettings,
        EtcdSettings,
        FirewallSettings,
        FirewallVariant,
        HostSettings,
        LeaseSettings,
        LogFormat,
        LogLevel,
        LogSettings,
        MeshSettings,
        MetricsSettings,
        RestartPolicy,
        RouteSettings,
        Settings,
        UiSettings,
        WireGuardSettings,
    )

__all__ = [
    "DEFAULT_PATH",
    "KEYS",
    "SECTIONS",
    "AgentSettings",
    "Docker0Share",
    "DockerAttach",
    "DockerSettings",
    "EtcdSettings",
    "FirewallSettings",
    "FirewallVariant",
    "HostSettings",
    "LeaseSettings",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "MeshSettings",
    "MetricsSettings",
    "RestartPolicy",
    "RouteSettings",
    "Settings",
    "UiSettings",
    "WireGuardSettings",
    "load_settings",
    "overrides_from_flags",
]

_IN_LOAD = frozenset({"KEYS", "SECTIONS", "load_settings", "overrides_from_flags"})


def __getattr__(name: str) -> object:
    """Import on first use (PEP 562): agentctl needs none of it while the agent answers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "load" if name in _IN_LOAD else "sections"
    found: object = getattr(importlib.import_module(f"agent.settings.{module}"), name)
    globals()[name] = found
    return found
