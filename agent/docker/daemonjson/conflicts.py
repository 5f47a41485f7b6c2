"""Find what would keep dockerd from starting, or from using what is written. Pure.

Each finding is a named condition. A *blocking* one means that daemon.json is not written,
because the next start of dockerd would fail or would not use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.docker.daemonjson.desired import (
    BIP,
    MTU,
    NETWORK_MTU,
    POOLS,
    DesiredDocker,
    parse_version,
)
from agent.docker.daemonjson.document import Document, JsonValue, KeyPath, same_json
from agent.docker.daemonjson.flags import Flags
from agent.docker.daemonjson.known_keys import unknown_keys
from agent.docker.daemonjson.undo_journal import UndoJournal
from agent.model import Condition, Severity
from agent.model.family import read_address, read_network, within

__all__ = ["Finding", "doubled_keys", "file_conflicts", "flag_conflicts", "foreign_keys"]

_FLAGS: Final[Mapping[str, KeyPath]] = {
    "bip": BIP,
    "default-address-pools": POOLS,
    "mtu": MTU,
    "default-network-opts": NETWORK_MTU,
}
_FALSE: Final = frozenset({"false", "False", "FALSE", "f", "F", "0"})
"""Go takes these for false."""

_WAY_OUT: Final = "remove it from {where} and restart Docker, or set docker.manage = false"


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition, whether it blocks, and the keys that must not be written."""

    condition: Condition
    blocks: bool = True
    keys: tuple[KeyPath, ...] = ()


def flag_conflicts(
    desired: DesiredDocker, sources: Mapping[str, Flags], document: Document
) -> tuple[Finding, ...]:
    """Find what a command line of dockerd says against the file that would be written.

    A key given both as a flag and in the file stops dockerd (all versions): so a key that
    is a flag is never written. If the flag says what is desired, that is all; else it blocks,
    save for the MTU.

    Args:
        desired: What Docker should have.
        sources: Flags by where they were seen ("the unit", "the running dockerd").
        document: daemon.json now.
    """
    found: dict[tuple[str, str], Finding] = {}
    for where, flags in sources.items():
        for finding in _flag_conflicts(desired, where, flags, document):
            found.setdefault((finding.condition.name, finding.condition.subject), finding)
    return tuple(found.values())


def _flag_conflicts(
    desired: DesiredDocker, where: str, flags: Flags, document: Document
) -> Iterator[Finding]:
    for name, path in _FLAGS.items():
        given = flags.get(name)
        if given:
            yield _flag(desired, name, path, given, where)
    for bridge in flags.get("bridge")[-1:]:
        yield _bridge(bridge, f"--bridge of {where}")
    if flags.get("hosts") and document.has(("hosts",)):
        yield Finding(
            Condition(
                name="docker-hosts-conflict",
                cause=f'"hosts" is in daemon.json and {where} has -H'
                f" {' -H '.join(flags.get('hosts'))}: dockerd does not start with both",
                hint="take -H out of the unit with a drop-in (ExecStart= twice), or hosts out of"
                " the file",
                severity=Severity.ERROR,
            )
        )
    if _FALSE.intersection(flags.get("iptables")[-1:]):
        yield _iptables_off(f"--iptables of {where}")
    for file in flags.get("config-file")[-1:]:
        if file != document.source:
            yield Finding(
                Condition(
                    name="docker-config-elsewhere",
                    cause=f"{where} has --config-file={file}: dockerd does not read"
                    f" {document.source}",
                    hint=f'set docker.daemon_json = "{file}", or remove the flag',
                    severity=Severity.ERROR,
                )
            )
    for cidr in flags.get("fixed-cidr"):
        yield from _fixed_cidr(desired, cidr, f"--fixed-cidr of {where}")
    for gateway in flags.get("default-gateway"):
        yield from _gateway(desired, gateway, f"--default-gateway of {where}")


def file_conflicts(desired: DesiredDocker, document: Document, version: str) -> tuple[Finding, ...]:
    """Find keys of daemon.json that speak against ``desired``, or stop this engine.

    Args:
        desired: What Docker should have.
        document: daemon.json now.
        version: The engine's, "" when it is not known.
    """
    return tuple(_file_conflicts(desired, document, version))


def _file_conflicts(desired: DesiredDocker, document: Document, version: str) -> Iterator[Finding]:
    source = document.source
    for name in unknown_keys(document.names(), parse_version(version)):
        yield Finding(
            Condition(
                name="docker-key-unknown",
                subject=name,
                cause=f"{source} has {name}, which Docker {version} does not know: its next start"
                " fails",
                hint="remove it, or upgrade Docker; nothing was written",
                severity=Severity.ERROR,
            )
        )
    bridge, cidr, gateway = (
        value if isinstance(value, str) else ""
        for value in map(document.value, (("bridge",), ("fixed-cidr",), ("default-gateway",)))
    )
    if bridge:
        yield _bridge(bridge, f'"bridge" in {source}')
    if cidr:
        yield from _fixed_cidr(desired, cidr, f'"fixed-cidr" in {source}')
    if gateway:
        yield from _gateway(desired, gateway, f'"default-gateway" in {source}')
    if document.value(("iptables",)) is False:
        yield _iptables_off(f'"iptables" in {source}')


def doubled_keys(sources: Mapping[str, Flags], document: Document) -> tuple[Finding, ...]:
    """Find keys that are in the file and a flag as well: dockerd starts with neither of the two.

    A running one may have been started before the second was written. From 23.0 dockerd itself
    says so when it is asked to check the file; older ones say it when they do not come back.

    Args:
        sources: Flags by where they were seen.
        document: daemon.json as it is to be.
    """
    found: dict[str, str] = {}
    for where, flags in sources.items():
        for name in flags.names:
            if document.has((name,)) and name != "hosts":  # which has a condition of its own
                found.setdefault(name, where)
    return tuple(
        Finding(
            Condition(
                name="docker-flag-conflict",
                subject=name,
                cause=f"{name} is in {document.source} and a flag of {where}: dockerd does not"
                " start with both",
                hint="take it out of one of them; of the unit with a drop-in (ExecStart= twice),"
                " see systemctl cat docker",
                severity=Severity.ERROR,
            )
        )
        for name, where in found.items()
    )


def foreign_keys(
    document: Document,
    journal: UndoJournal | None,
    values: Mapping[KeyPath, JsonValue],
    *,
    replace: bool,
) -> tuple[Finding, ...]:
    """Find keys that the operator set to something else: theirs until they allow otherwise.

    Args:
        document: daemon.json now.
        journal: What was written before; None for nothing.
        values: What would be written.
        replace: The operator allows it.
    """
    found: list[Finding] = []
    for path, wanted in values.items():
        value = document.value(path)
        if value is None or replace:  # null means unset to dockerd
            continue
        change = journal.change(path) if journal else None
        if same_json(value, wanted) or (change and change.is_ours(value)):
            continue
        found.append(_foreign(document, path, wanted))
    return tuple(found)


def _flag(
    desired: DesiredDocker, name: str, path: KeyPath, given: tuple[str, ...], where: str
) -> Finding:
    wanted = {
        "bip": (str(desired.bip),),
        "default-address-pools": tuple(f"base={b},size={s}" for b, s in desired.pools),
        "mtu": (str(desired.mtu),),
    }.get(name, ())
    same = given == wanted
    minor = path in {MTU, NETWORK_MTU} or (path == POOLS and not desired.pools)
    condition = Condition(
        name="docker-flag-conflict",
        subject=name,
        cause=f"{where} has {name} as a flag: {' '.join(given)}"
        + ("" if same or not wanted else f"; wanted is {' '.join(wanted)}"),
        hint=f"{_WAY_OUT.format(where=where)}; dockerd does not start with {name} both as a flag"
        " and in daemon.json",
        severity=Severity.INFO if same else Severity.WARNING if minor else Severity.ERROR,
    )
    return Finding(condition, blocks=not same and not minor, keys=(path,))


def _foreign(document: Document, path: KeyPath, wanted: JsonValue) -> Finding:
    minor = path in {MTU, NETWORK_MTU}
    name = ".".join(path)
    condition = Condition(
        name="docker-operator-key",
        subject=name,
        cause=f"{document.source} has {name} = {document.raw(path)}; wanted is {wanted}",
        hint="it is yours and was left alone; agentctl docker restart --now --replace replaces it,"
        " docker.replace = true for good (leaving the mesh brings it back)",
        severity=Severity.WARNING if minor else Severity.ERROR,
    )
    return Finding(condition, blocks=not minor, keys=(path,))


def _bridge(name: str, where: str) -> Finding:
    what = "has no docker0" if name == "none" else "uses a bridge of the operator's, not docker0"
    return Finding(
        Condition(
            name="docker-bridge-set",
            cause=f"{where} is {name}: this Docker {what}",
            hint=f"{_WAY_OUT.format(where='there')}; dockerd refuses bip beside it",
            severity=Severity.ERROR,
        )
    )


def _iptables_off(where: str) -> Finding:
    condition = Condition(
        name="docker-iptables-off",
        cause=f"{where} is false: Docker isolates and publishes nothing itself",
        hint="make sure that your own rules do; Hostmesh only lets mesh traffic pass",
    )
    return Finding(condition, blocks=False)


def _fixed_cidr(desired: DesiredDocker, cidr: str, where: str) -> Iterator[Finding]:
    docker0 = desired.bip.network
    try:
        inside = within(read_network(cidr, strict=False), docker0)
    except ValueError:  # dockerd would not take it either
        inside = False
    if not inside:
        yield Finding(
            Condition(
                name="docker-fixed-cidr-outside",
                cause=f"{where} is {cidr}, outside docker0's {docker0}",
                hint=f"change it to a range inside {docker0}, or remove it",
                severity=Severity.ERROR,
            )
        )


def _gateway(desired: DesiredDocker, gateway: str, where: str) -> Iterator[Finding]:
    docker0 = desired.bip.network
    try:
        inside = read_address(gateway) in docker0
    except ValueError:
        inside = False
    if not inside:
        yield Finding(
            Condition(
                name="docker-default-gateway-outside",
                cause=f"{where} is {gateway}, outside docker0's {docker0}: dockerd does not start"
                " with that",
                hint=f"change it to an address inside {docker0}, or remove it",
                severity=Severity.ERROR,
            )
        )
