"""What would keep dockerd from starting, or from using what we write, found beforehand. Pure.

Each finding is a named condition. A *blocking* one means that daemon.json is not written,
because the next start of dockerd would fail or would not use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

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
from agent.model import Condition, DockerNetwork, Severity
from agent.model.family import read_address, read_network, within

__all__ = [
    "Finding",
    "doubled_keys",
    "file_conflicts",
    "flag_conflicts",
    "foreign_keys",
    "network_conflicts",
    "not_routable",
]

_FLAGS: Mapping[str, KeyPath] = {
    "bip": BIP,
    "default-address-pools": POOLS,
    "mtu": MTU,
    "default-network-opts": NETWORK_MTU,
}
_FALSE = frozenset({"false", "False", "FALSE", "f", "F", "0"})
"""What Go takes for false."""

_WAY_OUT = "remove it from {where} and restart Docker, or set docker.manage = false"


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition, whether it blocks, and the keys that must not be written."""

    condition: Condition
    blocks: bool = False
    keys: tuple[KeyPath, ...] = ()


def flag_conflicts(
    desired: DesiredDocker, sources: Mapping[str, Flags], document: Document
) -> tuple[Finding, ...]:
    """Find what a command line of dockerd says against the file we would write.

    A key given both as a flag and in the file stops dockerd (all versions): so a key that
    is a flag is never written. If the flag says what we want, that is all; else it blocks,
    save for the MTU.

    Args:
        desired: What Docker should have.
        sources: Flags by where they were seen ("the unit", "the running dockerd").
        document: daemon.json now.
    """
    found: dict[tuple[str, str], Finding] = {}
    for where, flags in sources.items():
        for name, path in _FLAGS.items():
            given = flags.get(name)
            if given:
                finding = _flag(desired, name, path, given, where)
                found.setdefault((finding.condition.name, name), finding)
        bridge = flags.get("bridge")
        if bridge:
            finding = _bridge(bridge[-1], f"--bridge of {where}")
            found.setdefault((finding.condition.name, "bridge"), finding)
        if flags.get("hosts") and document.has(("hosts",)):
            found.setdefault(("docker-hosts-conflict", ""), _hosts(flags.get("hosts"), where))
        if _FALSE.intersection(flags.get("iptables")[-1:]):
            found.setdefault(("docker-iptables-off", ""), _iptables_off(f"--iptables of {where}"))
        for finding in _outside(desired, flags, document, where):
            found.setdefault((finding.condition.name, ""), finding)
    return tuple(found.values())


def _outside(
    desired: DesiredDocker, flags: Flags, document: Document, where: str
) -> Iterator[Finding]:
    """Yield the flags that lead elsewhere: to another file, or out of docker0's range."""
    for path in flags.get("config-file")[-1:]:
        if path != document.source:
            yield _elsewhere(path, document, where)
    for cidr in flags.get("fixed-cidr"):
        yield from _fixed_cidr(desired, cidr, f"--fixed-cidr of {where}").values()
    for gateway in flags.get("default-gateway"):
        if not _inside(gateway, desired):
            yield _gateway(gateway, desired, f"--default-gateway of {where}")


def doubled_keys(sources: Mapping[str, Flags], document: Document) -> tuple[Finding, ...]:
    """Find keys that are in the file and a flag as well: dockerd starts with neither of the two.

    A running one may have been started before the second was written. From 23.0 dockerd itself
    says so when it is asked to check the file; older ones say it when they do not come back.

    Args:
        sources: Flags by where they were seen.
        document: daemon.json as it is to be.
    """
    found: dict[str, Finding] = {}
    for where, flags in sources.items():
        for name in flags.names:
            if document.has((name,)) and name != "hosts":  # which has a condition of its own
                found.setdefault(name, _doubled(name, document.source, where))
    return tuple(found.values())


def _doubled(name: str, source: str, where: str) -> Finding:
    condition = Condition(
        name="docker-flag-conflict",
        subject=name,
        cause=f"{name} is in {source} and a flag of {where}: dockerd does not start with both",
        hint="take it out of one of them; of the unit with a drop-in (ExecStart= twice), see"
        " systemctl cat docker",
        severity=Severity.ERROR,
    )
    return Finding(condition, blocks=True)


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
    said = " ".join(given)
    condition = Condition(
        name="docker-flag-conflict",
        subject=name,
        cause=f"{where} has {name} as a flag: {said}"
        + ("" if same or not wanted else f"; wanted is {' '.join(wanted)}"),
        hint=f"dockerd does not start with {name} both as a flag and in daemon.json; "
        + _WAY_OUT.format(where=where),
        severity=Severity.INFO if same else Severity.WARNING if minor else Severity.ERROR,
    )
    return Finding(condition, blocks=not same and not minor, keys=(path,))


def file_conflicts(desired: DesiredDocker, document: Document, version: str) -> tuple[Finding, ...]:
    """Find keys of daemon.json that speak against ``desired``, or stop this engine.

    Args:
        desired: What Docker should have.
        document: daemon.json now.
        version: The engine's, "" when nobody knows it.
    """
    unknown = unknown_keys(document.names(), parse_version(version))
    found = [_unknown(name, document.source, version) for name in unknown]
    source = document.source
    bridge = document.value(("bridge",))
    if isinstance(bridge, str) and bridge:
        found.append(_bridge(bridge, f'"bridge" in {source}'))
    cidr = document.value(("fixed-cidr",))
    if isinstance(cidr, str) and cidr:
        found += _fixed_cidr(desired, cidr, f'"fixed-cidr" in {source}').values()
    gateway = document.value(("default-gateway",))
    if isinstance(gateway, str) and gateway and not _inside(gateway, desired):
        found.append(_gateway(gateway, desired, f'"default-gateway" in {source}'))
    if document.value(("iptables",)) is False:
        found.append(_iptables_off(f'"iptables" in {source}'))
    return tuple(found)


def network_conflicts(
    desired: DesiredDocker, networks: Iterable[DockerNetwork]
) -> tuple[Condition, ...]:
    """Find networks that lie where docker0 is to be: dockerd would not start with both.

    Args:
        desired: What Docker should have.
        networks: Every bridge network.
    """
    return tuple(
        Condition(
            name="docker-network-in-the-way",
            subject=network.name,
            cause=f"Docker network {network.name} has {network.subnet}, which overlaps"
            f" {desired.bip.network}, docker0's range to be",
            hint=f"docker network rm {network.name}; nothing is written before",
            severity=Severity.ERROR,
        )
        for network in networks
        if not network.default and network.subnet.overlaps(desired.bip.network)
    )


def _unknown(name: str, source: str, version: str) -> Finding:
    condition = Condition(
        name="docker-key-unknown",
        subject=name,
        cause=f"{source} has {name}, which Docker {version} does not know: its next start fails",
        hint="remove it, or upgrade Docker; nothing was written",
        severity=Severity.ERROR,
    )
    return Finding(condition, blocks=True)


def _bridge(name: str, where: str) -> Finding:
    if name == "none":
        cause = f"{where} is none: this Docker has no docker0"
    else:
        cause = f"{where} is {name}: this Docker uses a bridge of the operator's, not docker0"
    hint = "dockerd refuses bip beside it; " + _WAY_OUT.format(where="there")
    condition = Condition(name="docker-bridge-set", cause=cause, hint=hint, severity=Severity.ERROR)
    return Finding(condition, blocks=True)


def _fixed_cidr(desired: DesiredDocker, cidr: str, where: str) -> dict[tuple[str, str], Finding]:
    try:
        if within(read_network(cidr, strict=False), desired.bip.network):
            return {}
    except ValueError:
        pass  # dockerd would not take it either: said as outside
    condition = Condition(
        name="docker-fixed-cidr-outside",
        cause=f"{where} is {cidr}, outside docker0's {desired.bip.network}",
        hint=f"change it to a range inside {desired.bip.network}, or remove it",
        severity=Severity.ERROR,
    )
    return {(condition.name, ""): Finding(condition, blocks=True)}


def _inside(address: str, desired: DesiredDocker) -> bool:
    try:
        return read_address(address) in desired.bip.network
    except ValueError:
        return False


def _gateway(gateway: str, desired: DesiredDocker, where: str) -> Finding:
    condition = Condition(
        name="docker-default-gateway-outside",
        cause=f"{where} is {gateway}, outside docker0's {desired.bip.network}:"
        " dockerd does not start with that",
        hint=f"change it to an address inside {desired.bip.network}, or remove it",
        severity=Severity.ERROR,
    )
    return Finding(condition, blocks=True)


def _hosts(given: tuple[str, ...], where: str) -> Finding:
    condition = Condition(
        name="docker-hosts-conflict",
        cause=f'"hosts" is in daemon.json and {where} has -H {" -H ".join(given)}: '
        "dockerd does not start with both",
        hint="take -H out of the unit with a drop-in (ExecStart= twice), or hosts out of the file",
        severity=Severity.ERROR,
    )
    return Finding(condition, blocks=True)


def _elsewhere(path: str, document: Document, where: str) -> Finding:
    condition = Condition(
        name="docker-config-elsewhere",
        cause=f"{where} has --config-file={path}: dockerd does not read {document.source}",
        hint=f'set docker.daemon_json = "{path}", or remove the flag',
        severity=Severity.ERROR,
    )
    return Finding(condition, blocks=True)


def _iptables_off(where: str) -> Finding:
    condition = Condition(
        name="docker-iptables-off",
        cause=f"{where} is false: Docker isolates and publishes nothing itself",
        hint="make sure that your own rules do; Hostmesh only lets mesh traffic pass",
    )
    return Finding(condition)


def foreign_keys(
    document: Document,
    journal: UndoJournal | None,
    values: Mapping[KeyPath, JsonValue],
    *,
    replace: bool,
) -> tuple[Finding, ...]:
    """Find keys that the operator set to something else: theirs until they give their word.

    Args:
        document: daemon.json now.
        journal: What we wrote before; None for nothing.
        values: What we would write.
        replace: The operator's word.
    """
    found: list[Finding] = []
    for path, wanted in values.items():
        if document.value(path) is None or replace:  # null means unset to dockerd
            continue
        value = document.value(path)
        change = journal.change(path) if journal else None
        if same_json(value, wanted) or (change and change.is_ours(value)):
            continue
        found.append(_foreign(document, path, wanted))
    return tuple(found)


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


def not_routable(
    networks: Iterable[DockerNetwork], desired: DesiredDocker, *, attached_by_network: bool = False
) -> tuple[Condition, ...]:
    """Name the networks outside the lease: their containers are not reachable from the mesh.

    Args:
        networks: Every bridge network.
        desired: Which subnets are routed.
        attached_by_network: New networks are not in the lease either: the way in is our network.
    """
    return tuple(
        Condition(
            name="network-not-routable",
            subject=network.name,
            cause=f"Docker network {network.name} is {network.subnet}, outside {desired.subnet}",
            hint="docker network connect hostmesh CONTAINER gives its containers an address that is"
            if attached_by_network
            else f"docker network rm {network.name} and create it again: "
            "a new one gets a subnet inside the lease",
            severity=Severity.INFO,
        )
        for network in networks
        if not network.default
        and not network.internal
        and not any(within(network.subnet, each) for each in desired.subnets)
    )
