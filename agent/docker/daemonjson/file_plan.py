"""Plan what to write into daemon.json, and what a restart would bring. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from agent.docker.daemonjson.conflicts import (
    Finding,
    doubled_keys,
    file_conflicts,
    flag_conflicts,
    foreign_keys,
)
from agent.docker.daemonjson.desired import (
    BIP,
    MTU,
    NETWORK_MTU,
    POOLS,
    DesiredDocker,
    keys_for,
)
from agent.docker.daemonjson.document import Document, JsonValue, KeyPath
from agent.docker.daemonjson.flags import Flags
from agent.docker.daemonjson.names import plan_names
from agent.docker.daemonjson.store import Snapshot
from agent.docker.daemonjson.undo_journal import digest, undo
from agent.docker.engine.reading import DOCKER_MTU
from agent.model import Condition
from agent.model.family import Interface, Network, read_interface, read_network

__all__ = ["FilePlan", "attempt_name", "fixable", "plan_file", "pools_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """A change of daemon.json.

    Attributes:
        values: Keys to set.
        drop: Keys to return to what they were before.
        conditions: What speaks against it, or is worth knowing.
        blocked: Nothing must be written.
    """

    values: Mapping[KeyPath, JsonValue]
    drop: tuple[KeyPath, ...] = ()
    conditions: tuple[Condition, ...] = ()
    blocked: bool = False


def plan_file(
    desired: DesiredDocker,
    snapshot: Snapshot,
    flags: Mapping[str, Flags],
    *,
    version: str,
    replace: bool,
) -> FilePlan:
    """Return the change after which Docker's next start brings ``desired``.

    Args:
        desired: What Docker should have.
        snapshot: The file now.
        flags: dockerd's command lines by where they were seen.
        version: The engine's, "" when it is not known.
        replace: The operator allows that their own keys are replaced.
    """
    wanted = keys_for(desired, version)
    findings: tuple[Finding, ...] = (
        *flag_conflicts(desired, flags, snapshot.document),
        *foreign_keys(snapshot.document, snapshot.journal, wanted, replace=replace),
    )
    left_out = {path for finding in findings for path in finding.keys}
    names, trouble = plan_names(desired.names, snapshot, flags, replace=replace)
    values = {path: value for path, value in wanted.items() if path not in left_out} | dict(names)
    ours = snapshot.journal.changes if snapshot.journal else ()
    drop = tuple(
        change.path
        for change in ours
        if change.path not in values
        and change.is_in(snapshot.document)
        and not (change.path == NETWORK_MTU and not version)
    )
    # Dropped keys (this engine does not know them, or has them as flags) conflict with nothing.
    left = undo(snapshot.document, [change for change in ours if change.path in drop])
    findings += (*file_conflicts(desired, left, version), *doubled_keys(flags, left))
    return FilePlan(
        values=values,
        drop=drop,
        conditions=(*(finding.condition for finding in findings), *trouble),
        blocked=any(finding.blocks for finding in findings),
    )


def attempt_name(values: Mapping[KeyPath, JsonValue], file: bytes | None, version: str) -> str:
    """Return a name for trying these values on that file with that engine.

    A failure is remembered under it: the same name would fail the same way.
    """
    keys = json.dumps([[list(path), value] for path, value in values.items()])
    return digest(f"{keys}\n{digest(file)}\n{version}".encode())


def fixable(
    desired: DesiredDocker,
    differences: Mapping[KeyPath, str],
    document: Document,
    flags: Mapping[str, Flags],
) -> Mapping[KeyPath, str]:
    """Return the differences that a restart with this file and these flags would end."""
    given = {name: value for each in flags.values() for name, value in each.values}
    ends = {
        BIP: _interface(given.get("bip") or document.value(BIP)) == desired.bip,
        POOLS: not any(each.get("default-address-pools") for each in flags.values())
        and pools_of(document.value(POOLS)) == desired.pools,
        MTU: str(given.get("mtu") or document.value(MTU) or DOCKER_MTU) == str(desired.mtu),
    }
    return {path: what for path, what in differences.items() if ends.get(path)}


def _interface(value: JsonValue) -> Interface | None:
    try:
        return read_interface(value) if isinstance(value, str) else None
    except ValueError:
        return None


def pools_of(value: JsonValue) -> tuple[tuple[Network, int], ...]:
    """Return ``default-address-pools`` as (base, prefix length); what is no pool is left out."""
    found = []
    for pool in value if isinstance(value, list) else ():
        base = pool.get("base") if isinstance(pool, dict) else None
        size = pool.get("size") if isinstance(pool, dict) else None
        try:
            if isinstance(base, str) and isinstance(size, int):
                found.append((read_network(base), size))
        except ValueError:
            return ()
    return tuple(found)
