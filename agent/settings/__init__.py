"""What the operator tells the agent on this host: /etc/hostmesh/agent.toml, environment, flags."""

from agent.settings.load import KEYS, SECTIONS, load_settings, overrides_from_flags
from agent.settings.sections import (
    DEFAULT_PATH,
    AgentSettings,
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
    RestartPolicy,
    RouteSettings,
    Settings,
)

__all__ = [
    "DEFAULT_PATH",
    "KEYS",
    "SECTIONS",
    "AgentSettings",
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
    "RestartPolicy",
    "RouteSettings",
    "Settings",
    "load_settings",
    "overrides_from_flags",
]
