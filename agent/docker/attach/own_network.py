"""Network ``hostmesh``, for a Docker whose own configuration may not be touched.

``docker.attach = "network"``: a bridge network on the whole lease, made through Docker's API.
Nothing restarts, daemon.json stays as it is, and containers are connected to the network when it
suits their operator. Docker masquerades what leaves it for the world; inside the mesh the
firewall's rules keep the true addresses, as they do for docker0.
"""

from __future__ import annotations

import structlog

from agent.docker.daemonjson.desired import DesiredDocker
from agent.docker.engine.engine import Engine
from agent.docker.engine.reading import (
    BRIDGE_NAME,
    DOCKER_MTU,
    NETWORK_DRIVER_MTU,
    OWN_LABEL,
    OWN_NETWORK,
    EngineReading,
)
from agent.errors import DockerError
from agent.mesh.firewall import ACCESS_LABEL
from agent.model import OWN_BRIDGE, Access, Condition, DockerNetwork, Severity, first_few

__all__ = ["ensure_network", "is_right", "remove_network"]

_log = structlog.get_logger("docker")


def is_right(reading: EngineReading, desired: DesiredDocker) -> bool:
    """Return whether the network has the lease; a wrong MTU alone does not make it unusable."""
    own = reading.own_network
    return own is not None and own.subnet == desired.subnet


def ensure_network(
    engine: Engine, reading: EngineReading, desired: DesiredDocker
) -> Condition | None:
    """Make the network as ``desired`` has it; return what is in the way, None when it is right."""
    own = reading.own_network
    if own is None:
        same_name = (each for each in reading.facts.networks if each.name == OWN_NETWORK)
        other = next(same_name, None)
        return _name_taken(other) if other else _create(engine, reading, desired)
    wrong = _wrong(own, desired)
    if not wrong:
        return None
    return remove_network(engine, reading, why=wrong) or _create(engine, reading, desired)


def remove_network(engine: Engine, reading: EngineReading, *, why: str) -> Condition | None:
    """Remove the network; return what is in the way, None when there is none now.

    One that containers use is never taken away.

    Args:
        engine: Where it is.
        reading: The engine now.
        why: For the operator, when containers use it.
    """
    own = reading.own_network
    if own is None:
        return None
    try:
        users = engine.users_of(own.id)
        if users:
            return _in_use(own, users, why)
        engine.remove_network(own.id)
    except DockerError as error:
        return _refused(f"Docker did not remove network {OWN_NETWORK}: {error.message}")
    _log.info("docker-network-removed", network=OWN_NETWORK, subnet=str(own.subnet))
    return None


def _create(engine: Engine, reading: EngineReading, desired: DesiredDocker) -> Condition | None:
    options = {BRIDGE_NAME: OWN_BRIDGE}
    if desired.mtu is not None:
        options[NETWORK_DRIVER_MTU] = str(desired.mtu)
    labels = {OWN_LABEL: "true", ACCESS_LABEL: str(Access.OPEN)}
    try:
        engine.create_bridge(OWN_NETWORK, desired.subnet, options=options, labels=labels)
    except DockerError as error:
        others = [
            f"{each.name} has {each.subnet}"
            for each in reading.facts.networks
            if each.subnet.overlaps(desired.subnet) and each.name != OWN_NETWORK
        ]
        what = f"Docker did not make network {OWN_NETWORK} on {desired.subnet}: {error.message}"
        return _refused("; ".join((what, *others)))
    _log.info("docker-network-made", network=OWN_NETWORK, subnet=str(desired.subnet))
    return None


def _wrong(own: DockerNetwork, desired: DesiredDocker) -> str:
    """Return how the network differs from ``desired``, "" when it does not."""
    if own.subnet != desired.subnet:
        return f"it is {own.subnet} and the lease is {desired.subnet}"
    if own.bridge != OWN_BRIDGE:
        return f"its bridge is {own.bridge}, wanted {OWN_BRIDGE}"
    wanted = desired.mtu or DOCKER_MTU
    if own.mtu != wanted:
        return f"its MTU is {own.mtu}, wanted {wanted}"
    return ""


def _in_use(own: DockerNetwork, users: tuple[str, ...], why: str) -> Condition:
    return Condition(
        name="docker-network-in-use",
        cause=f"network {OWN_NETWORK} ({own.subnet}) must go: {why}; it has {first_few(users)}",
        hint=f"docker network disconnect {OWN_NETWORK} {users[0]}, and so on; the agent does"
        " the rest",
    )


def _name_taken(other: DockerNetwork) -> Condition:
    return Condition(
        name="docker-network-name-taken",
        cause=f"there is a network {OWN_NETWORK} ({other.subnet}) that Hostmesh did not make",
        hint=f"docker network rm {OWN_NETWORK}, and make yours again by another name",
        severity=Severity.ERROR,
    )


def _refused(what: str) -> Condition:
    return Condition(
        name="docker-network-refused",
        cause=what,
        hint="remove the network in the way, or give its range back; it is tried again",
        severity=Severity.ERROR,
    )
