"""Read the settings again.

A file with any mistake is refused whole, and the previous settings stay in use. Of a valid one, the
keys in ``LIVE`` are used at once. The others were used to build the agent: a condition names them
until the agent is restarted or the file has the old values again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import Apply, ConditionsFound, SettingsRead
from agent.errors import SettingsError
from agent.model import Condition, Severity
from agent.settings import SECTIONS, LogSettings, Settings

__all__ = ["LIVE", "Change", "Source", "compare", "outcome", "reload"]

LIVE = frozenset(
    {
        "check.every_s",
        "check.start_command",
        "docker.expendable",
        "docker.manage",
        "docker.replace",
        "docker.restart",
        "firewall.access",
        "firewall.check_s",
        "host.link",
        "host.node_address",
        "host.public_endpoint",
        "host.uplink",
        "lease.empty_cluster_grace_s",
        "log.format",
        "log.level",
        "mesh",
        "networks.allow",
        "routes.probe",
        "routes.resync_s",
        "routes.sweep_grace_s",
    }
)
"""Keys, and whole sections, that are used without a restart."""


@dataclass(frozen=True, slots=True)
class Change:
    """The difference that new settings make.

    Attributes:
        settings: Those in use from now on: the old ones with the live keys of the new.
        live: Names that are used at once, in order.
        waiting: Names that wait for a restart, in order.
    """

    settings: Settings
    live: tuple[str, ...]
    waiting: tuple[str, ...]


def compare(now: Settings, read: Settings) -> Change:
    """Compare new settings with those in use. Pure."""
    live: list[str] = []
    waiting: list[str] = []
    sections: dict[str, Any] = {}
    for name in SECTIONS:
        old, new = getattr(now, name), getattr(read, name)
        if old == new:
            continue
        if name in LIVE:
            live.append(name)
            sections[name] = new
            continue
        keys = [each.name for each in dataclasses.fields(old)]
        changed = [key for key in keys if getattr(old, key) != getattr(new, key)]
        taken = {key: getattr(new, key) for key in changed if f"{name}.{key}" in LIVE}
        live += [f"{name}.{key}" for key in taken]
        waiting += [f"{name}.{key}" for key in changed if key not in taken]
        sections[name] = dataclasses.replace(old, **taken)
    return Change(dataclasses.replace(now, **sections), tuple(live), tuple(waiting))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the command line says that settings come from.

    Attributes:
        load: Reads file, environment and flags as at start; raises SettingsError.
    """

    load: Callable[[], Settings]
    configure_log: Callable[[LogSettings], None]


def reload(load: Callable[[], Settings], cell: StateCell, apply: Apply) -> Change:
    """Read the settings again and apply the live ones. For the loop's thread.

    Args:
        load: As in :class:`Source`.
        cell: Has the settings in use.

    Raises:
        SettingsError: Something is wrong with them; nothing was changed.
    """
    log = structlog.get_logger("agent.settings")
    try:
        read = load()
    except SettingsError as error:
        log.warning("settings-refused", problems=list(error.problems))
        apply(ConditionsFound(ConditionSource.SETTINGS, (_refused(error),)))
        raise
    change = compare(cell.now.settings, read)
    if change.live:
        apply(SettingsRead(change.settings))
    log.info("settings-read", changed=list(change.live), waiting=list(change.waiting))
    apply(ConditionsFound(ConditionSource.SETTINGS, _waiting(change.waiting)))
    return change


def outcome(change: Change) -> Mapping[str, Any]:
    """``POST /v1/reload``: lines for the operator."""
    done = [f"in use now: {', '.join(change.live)}"] if change.live else []
    todo = [f"{each.cause}: {each.hint}" for each in _waiting(change.waiting)]
    return {"version": 1, "done": done, "todo": todo}


def _refused(error: SettingsError) -> Condition:
    return Condition(
        name="settings-refused",
        severity=Severity.ERROR,
        cause="; ".join(error.problems),
        hint="the previous settings are still in use; correct the file and run agentctl reload, a"
        " restart would fail",
    )


def _waiting(names: tuple[str, ...]) -> tuple[Condition, ...]:
    if not names:
        return ()
    return (
        Condition(
            name="settings-need-restart",
            cause=f"{', '.join(names)} changed and cannot change while the agent runs",
            hint="systemctl restart hostmesh-agent; routes, rules and containers stay",
        ),
    )
