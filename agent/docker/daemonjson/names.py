"""Plan the keys that have containers ask this host's name servers: ``dns``, ``dns-search``. Pure.

dockerd gives their values to each container that it makes, so a change needs a restart. It does not
say which values it uses: the journal says with which file an engine was last seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from agent.docker.daemonjson.desired import DNS, DNS_SEARCH, DockerNames
from agent.docker.daemonjson.document import Document, JsonValue, KeyPath, parse_bytes, same_json
from agent.docker.daemonjson.flags import Flags
from agent.docker.daemonjson.store import Snapshot
from agent.docker.daemonjson.undo_journal import Phase, UndoJournal
from agent.model import Condition, Severity
from agent.model.names import NAME_SERVERS

__all__ = ["names_due", "names_keys", "not_used", "plan_names", "unmanaged_names"]

_SERVERS: Final = [str(each) for each in NAME_SERVERS]


def names_keys(names: DockerNames) -> Mapping[KeyPath, JsonValue]:
    """Return the keys of daemon.json that give containers the mesh's names."""
    search = dict.fromkeys((names.domain, *names.search))
    return {DNS: [*_SERVERS], DNS_SEARCH: [*search]}


def plan_names(
    names: DockerNames | None, snapshot: Snapshot, flags: Mapping[str, Flags], *, replace: bool
) -> tuple[Mapping[KeyPath, JsonValue], tuple[Condition, ...]]:
    """Return the keys to set, and why containers do not get all that they should.

    Args:
        names: None where the mesh has none.
        snapshot: The file now.
        flags: dockerd's command lines by where they were seen.
        replace: The operator allows that their own keys are replaced.
    """
    if names is None:
        return {}, ()
    document, journal = snapshot.document, snapshot.journal
    if not names.served and not _is_written(document, journal):
        return {}, ()
    values: dict[KeyPath, JsonValue] = {}
    for path, wanted in names_keys(names).items():
        where, given = _flagged(path, flags)
        theirs = f"{where} has --{path[0]} {', '.join(given)}" if where else ""
        if not where and not replace and _is_foreign(path, wanted, document, journal):
            theirs = f"{document.source} has {path[0]} = {json.dumps(document.value(path))}"
        if not theirs:
            values[path] = wanted
        elif not same_json([*given], wanted):
            if path == DNS:  # other servers know no short names either
                return {}, (not_used(names, theirs),)
            return values, (_not_searched(names, theirs),)
    return values, ()


def unmanaged_names(
    names: DockerNames | None, document: Document, flags: Mapping[str, Flags]
) -> tuple[Condition, ...]:
    """Return why containers of a Docker that the agent leaves alone do not find names."""
    _, given = _flagged(DNS, flags)
    if names is None or same_json([*given] or document.value(DNS), [*_SERVERS]):
        return ()
    return (not_used(names, "docker.manage is false and Docker has other name servers"),)


def _flagged(path: KeyPath, flags: Mapping[str, Flags]) -> tuple[str, tuple[str, ...]]:
    """Return where dockerd has the key as a flag, and its values: with both it does not start."""
    found = ((where, each.get(path[0])) for where, each in flags.items())
    return next((each for each in found if each[1]), ("", ()))


def _is_written(document: Document, journal: UndoJournal | None) -> bool:
    change = journal.change(DNS) if journal else None
    return change is not None and change.is_in(document)


def _is_foreign(
    path: KeyPath, wanted: JsonValue, document: Document, journal: UndoJournal | None
) -> bool:
    value, change = document.value(path), journal.change(path) if journal else None
    if value is None or same_json(value, wanted):  # null means unset to dockerd
        return False
    return not (change and change.is_ours(value))


def not_used(names: DockerNames, why: str, severity: Severity = Severity.WARNING) -> Condition:
    """Report that containers do not ask this host's name servers."""
    return Condition(
        name="dns-not-used-by-docker",
        cause=f"{why}: containers do not find names under {names.domain}",
        hint=f"give a container the servers: docker run --dns {' --dns '.join(_SERVERS)}"
        f" --dns-search {names.domain}; a dns of your own in daemon.json is replaced by agentctl"
        " docker restart --now --replace (leaving the mesh brings it back)",
        severity=severity,
    )


def _not_searched(names: DockerNames, why: str) -> Condition:
    return Condition(
        name="dns-not-searched",
        cause=f"{why}: containers find whole names under {names.domain}, no short ones",
        hint=f"put {names.domain} first in your dns-search, or have it replaced: agentctl docker"
        " restart --now --replace",
        severity=Severity.INFO,
    )


def names_due(snapshot: Snapshot) -> bool:
    """Return whether no engine was seen yet with the file's name servers and domain.

    Other search domains alone are no reason for a restart: the next one brings them.
    """
    journal = snapshot.journal
    if journal is None or journal.phase is not Phase.WRITTEN:
        return False
    before = parse_bytes(journal.previous.data or b"", source=journal.path)
    return _asked(before) != _asked(snapshot.document)


def _asked(document: Document) -> tuple[JsonValue, JsonValue]:
    servers, search = document.value(DNS), document.value(DNS_SEARCH)
    return servers, search[0] if isinstance(search, list) and search else None
