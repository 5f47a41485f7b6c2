"""The ranges that a mesh may have on this host.

The config in etcd is untrusted input: it can route any destination to another host. So each
host holds it against what its own operator allows, and against ranges that no mesh may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from agent.model.condition import first_few
from agent.model.family import Network, meet, within
from agent.model.host import Needed
from agent.model.mesh import MeshConfig

__all__ = ["NEVER_IN_A_MESH", "PRIVATE_RANGES", "Bounds", "Problem", "Unusable", "forbidden_range"]

PRIVATE_RANGES: Final[tuple[Network, ...]] = (
    ip_network("10.0.0.0/8"),
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("100.64.0.0/10"),
    ip_network("fc00::/7"),
)
"""RFC 1918, RFC 6598 (shared address space) and RFC 4193: what ``mesh.within`` is by default."""

NEVER_IN_A_MESH: Final[tuple[Network, ...]] = (
    ip_network("0.0.0.0/8"),
    ip_network("127.0.0.0/8"),
    ip_network("169.254.0.0/16"),
    ip_network("224.0.0.0/4"),
    ip_network("240.0.0.0/4"),
    ip_network("::/8"),
    ip_network("fe80::/10"),
    ip_network("ff00::/8"),
)
"""This network, loopback, link-local (a cloud's metadata service), multicast, reserved."""


def forbidden_range(network: Network) -> Network | None:
    """Return the range that no mesh may have and ``network`` meets; None when there is none."""
    return next((each for each in NEVER_IN_A_MESH if meet(each, network)), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why something in etcd is not used.

    Attributes:
        hint: A way out that belongs to this reason, "" without one.
    """

    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return self.reason

    @classmethod
    def of(cls, error: ValueError) -> Problem:
        """Return what an error of a decoder or of :meth:`Bounds.check` says."""
        return error.problem if isinstance(error, Unusable) else cls(str(error))


class Unusable(ValueError):
    """A value that others wrote and that this host cannot use; ``problem`` says why."""

    def __init__(self, reason: str, *, hint: str) -> None:
        super().__init__(reason)
        self.problem = Problem(reason, hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits that this host sets to a config.

    Attributes:
        allowed: ``mesh.within`` of agent.toml.
        kept: CIDRs outside of it that were in use before this host had that setting. They stay
            valid, and nothing else does.
        needed: Addresses that this host must reach beside the mesh: no CIDR may hold one.
        in_force: CIDRs that this host uses now. They are not refused for what they hold: the
            routes in question are left out.
    """

    allowed: tuple[Network, ...] = PRIVATE_RANGES
    kept: tuple[Network, ...] = ()
    needed: tuple[Needed, ...] = ()
    in_force: tuple[Network, ...] = ()

    def check(self, config: MeshConfig) -> MeshConfig:
        """Return ``config`` if this host may use it.

        Raises:
            Unusable: One of its ranges is not allowed here; the reason is fit to be shown.
        """
        for name, cidr in _named(config):
            if problem := self.problem(cidr):
                ways = "; or ".join(filter(None, ("agentctl config set --cidr CIDR", problem.hint)))
                raise Unusable(f"{name} {cidr} {problem}", hint=ways)
        return config

    def problem(self, cidr: Network) -> Problem | None:
        """Return why no mesh of this host may have ``cidr``, None when it may."""
        met = forbidden_range(cidr)
        if met is not None:
            return Problem(f"meets {met}, which no mesh may have")
        if not self._allows(cidr) and not any(within(cidr, each) for each in self.kept):
            return Problem(
                f"is outside mesh.within of this host ({', '.join(map(str, self.allowed))})",
                "add the range to mesh.within on every host: within ="
                f" [{self.widened((cidr,))}] under [mesh] in agent.toml, and agentctl reload",
            )
        held = tuple(each for each in self.needed if each.address in cidr)
        if held and cidr not in self.in_force:
            return Problem(
                f"holds {first_few(held)}, which this host needs",
                "agentctl config init proposes a range without these addresses",
            )
        return None

    def outside(self, config: MeshConfig) -> tuple[Network, ...]:
        """Return the ranges of ``config`` that ``allowed`` does not hold."""
        return tuple(each for each in config.cidrs if not self._allows(each))

    def widened(self, cidrs: tuple[Network, ...]) -> str:
        """Write ``mesh.within`` as it must be in agent.toml to hold ``cidrs``, too."""
        return ", ".join(f'"{each}"' for each in (*self.allowed, *cidrs))

    def _allows(self, cidr: Network) -> bool:
        return any(within(cidr, each) for each in self.allowed)


def _named(config: MeshConfig) -> tuple[tuple[str, Network], ...]:
    return (("Network", config.cidr), *(("Previous", each) for each in config.previous))
