"""The one network of ours, for a Docker whose own configuration may not be touched.

``docker.attach = "network"``: a bridge network ``hostmesh`` on the whole lease, made through
Docker's API. Nothing restarts, daemon.json stays as it is, and containers are connected to it
when it suits their operator. Docker masquerades what leaves it for the world; inside the mesh
the firewall's rules keep the true addresses, as they do for docker0.
"""

from __future__ import annotations

from typing import Final

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
    NetworkReading,
)
from agent.errors import DockerError
from agent.mesh.firewall import ACCESS_LABEL, Access
from agent.model import OWN_BRIDGE, Condition, Severity

__all__ = ["OwnNetwork"]

_log = structlog.get_logger("docker")

_NAMES_SHOWN: Final = 5


class OwnNetwork:
    """Makes, replaces and removes the network; one that containers use is never taken away.

    Args:
        engine: Where it lives.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def is_right(self, reading: EngineReading, desired: DesiredDocker) -> bool:
        """Whether the lease is there; a wrong MTU alone does not make it unusable."""
        own = reading.own_network
        return own is not None and own.ours and own.subnet == desired.subnet

    def ensure(self, reading: EngineReading, desired: DesiredDocker) -> Condition | None:
        """Make the network as ``desired`` has it; return what stands in the way.

        Args:
            reading: The engine now.
            desired: The lease and its MTU.
        """
        own = reading.own_network
        if own is not None and not own.ours:
            return _name_taken(own)
        if own is not None:
            wrong = _wrong(own, desired)
            if not wrong:
                return None
            problem = self.remove(reading, why=wrong)
            if problem:
                return problem
        return self._create(reading, desired)

    def remove(self, reading: EngineReading, *, why: str) -> Condition | None:
        """Remove our network; return what stands in the way, None when there is none now.

        Args:
            reading: The engine now.
            why: For the operator, when containers use it.
        """
        own = reading.own_network
        if own is None or not own.ours:
            return None
        try:
            users = self._engine.users_of(own.id)
            if users:
                return _in_use(own, users, why)
            self._engine.remove_network(own.id)
        except DockerError as error:
            return _refused(f"Docker did not remove network {OWN_NETWORK}: {error.message}")
        _log.info("docker-network-removed", network=OWN_NETWORK, subnet=str(own.subnet))
        return None

    def _create(self, reading: EngineReading, desired: DesiredDocker) -> Condition | None:
        options = {BRIDGE_NAME: OWN_BRIDGE}
        if desired.mtu is not None:
            options[NETWORK_DRIVER_MTU] = str(desired.mtu)
        labels = {OWN_LABEL: "true", ACCESS_LABEL: str(Access.OPEN)}
        try:
            self._engine.create_bridge(OWN_NETWORK, desired.subnet, options=options, labels=labels)
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


def _wrong(own: NetworkReading, desired: DesiredDocker) -> str:
    """Say what of the network is not as wanted, "" when all is."""
    if own.subnet != desired.subnet:
        return f"it is {own.subnet} and the lease is {desired.subnet}"
    if own.bridge != OWN_BRIDGE:
        return f"its bridge is {own.bridge}, wanted {OWN_BRIDGE}"
    wanted = desired.mtu or DOCKER_MTU
    if own.mtu != wanted:
        return f"its MTU is {own.mtu}, wanted {wanted}"
    return ""


def _in_use(own: NetworkReading, users: tuple[str, ...], why: str) -> Condition:
    shown = ", ".join(users[:_NAMES_SHOWN]) + (" and more" if len(users) > _NAMES_SHOWN else "")
    return Condition(
        name="docker-network-in-use",
        cause=f"network {OWN_NETWORK} ({own.subnet}) must go: {why}; it has {shown}",
        hint=f"docker network disconnect {OWN_NETWORK} {users[0]}, and so on; the agent does"
        " the rest",
    )


def _name_taken(own: NetworkReading) -> Condition:
    return Condition(
        name="docker-network-name-taken",
        cause=f"there is a network {OWN_NETWORK} ({own.subnet}) that Hostmesh did not make",
        hint=f"it is yours and was left alone: docker network rm {OWN_NETWORK}, and make it"
        " again by another name",
        severity=Severity.ERROR,
    )


def _refused(what: str) -> Condition:
    return Condition(
        name="docker-network-refused",
        cause=what,
        hint="it is tried again; remove the network in the way, or give its range back",
        severity=Severity.ERROR,
    )
