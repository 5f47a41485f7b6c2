"""Change the backend of a running mesh in three steps, so that no packet is lost. Pure.

*prepare*: every host sets both backends up, publishes for both and accepts packets by both.
*switch*: every host sends by the new one. *finish*: every host gives the old one up.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.errors import MeshConfigError
from agent.model import BackendChoice, BackendData, Lease, MeshConfig, View

__all__ = ["Step", "absent", "awaited", "live", "read_options", "step_config", "unable"]


class Step(enum.StrEnum):
    """One step of the change, in order."""

    PREPARE = "prepare"
    SWITCH = "switch"
    FINISH = "finish"


def read_options(text: str | None) -> BackendData | None:
    """Read options such as ``VNI=7,Port=4789``; a value is JSON where it can be, else text.

    Raises:
        ValueError: One has no name or no value, or there are too many; the message says which.
    """
    found: dict[str, Any] = {}
    for each in text.split(",") if text else ():
        name, separator, value = each.partition("=")
        if not name or not separator or name.lower() == "type":
            raise ValueError(f"{each!r} is not an option such as VNI=7")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    options = BackendData.of(found)
    if found and options is None:
        raise ValueError("the options have more than 1 KiB")
    return options


def step_config(
    now: MeshConfig, backend: str, step: Step, options: BackendData | None = None
) -> MeshConfig:
    """Return the config after ``step`` of the change to ``backend``. A step may be repeated.

    Args:
        options: Of ``backend``; None leaves those that it has.

    Raises:
        MeshConfigError: Another change is under way, or an earlier step is missing.
    """
    in_use, other = now.backend, now.accepted
    if step is Step.PREPARE:
        if in_use == backend:
            return replace(now, backend_options=options or now.backend_options)
        if other is not None and other.name != backend:
            raise MeshConfigError(
                f"the mesh changes between {in_use} and {other.name}",
                hint=f"agentctl config set --backend {in_use} --finish ends that",
            )
        kept = other.data if other else None
        return replace(now, accepted=BackendChoice(backend, options or kept))
    if step is Step.SWITCH and in_use != backend:
        if other is None or other.name != backend:
            raise MeshConfigError(
                f"backend {backend} is not prepared",
                hint=f"agentctl config set --backend {backend} --prepare",
            )
        left = BackendChoice(in_use, now.backend_options)
        return replace(now, backend=backend, backend_options=other.data, accepted=left)
    if step is Step.FINISH:
        if in_use != backend:
            raise MeshConfigError(
                f"hosts still send by {in_use}",
                hint=f"agentctl config set --backend {backend} --switch; to stay with {in_use}:"
                f" agentctl config set --backend {in_use} --finish",
            )
        return replace(now, accepted=None)
    return now


def awaited(view: View, backend: str, step: Step) -> tuple[Lease, ...]:
    """Return the leases of live hosts that have not followed ``step`` yet.

    A host without heartbeat is not waited for: it follows when it comes back. A flannel host has
    none, counts as live, and never follows.
    """
    return tuple(each for each in live(view) if not _has_followed(each, backend, step))


def live(view: View) -> tuple[Lease, ...]:
    """Return the leases of hosts with a heartbeat, and those of flannel hosts, which have none."""
    return tuple(each for each in view.leases if _is_live(each, view.heartbeats))


def absent(view: View, backend: str) -> tuple[Lease, ...]:
    """Return the leases of hosts without heartbeat that finish cuts off until their agents run."""
    behind = (each for each in view.leases if not _has_followed(each, backend, Step.SWITCH))
    return tuple(each for each in behind if not _is_live(each, view.heartbeats))


def unable(view: View, backend: str) -> tuple[Lease, ...]:
    """Return the leases whose hosts will not follow: those of flannel with another backend."""
    return tuple(each for each in awaited(view, backend, Step.PREPARE) if each.host_id is None)


def _has_followed(lease: Lease, backend: str, step: Step) -> bool:
    other = lease.accepted.name if lease.accepted else ""
    match step:
        case Step.PREPARE:
            return backend in (lease.backend, other)
        case Step.SWITCH:
            return lease.backend == backend
        case Step.FINISH:
            return lease.backend == backend and not other


def _is_live(lease: Lease, heartbeats: Mapping[Any, object]) -> bool:
    return lease.host_id is None or lease.host_id in heartbeats
