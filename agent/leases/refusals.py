"""What keeps a host from having its lease, as a condition."""

from __future__ import annotations

from agent.errors import ClaimConflict, HostmeshError, MeshConfigError, NoFreeSubnet
from agent.leases.request import GraceError
from agent.leases.rivals import IdentityInUseError
from agent.model import Condition, Severity

__all__ = ["condition_of"]


def condition_of(error: HostmeshError) -> Condition:
    """Name what keeps this host from having its lease."""
    names: tuple[tuple[type[HostmeshError], str], ...] = (
        (IdentityInUseError, "machine-id-cloned"),
        (ClaimConflict, "lease-taken"),
        (NoFreeSubnet, "no-free-subnet"),
        (MeshConfigError, "mesh-config-missing"),
        (GraceError, "claims-held-back"),
    )
    name = next((name for kind, name in names if isinstance(error, kind)), "lease-not-held")
    return Condition(name=name, cause=error.message, hint=error.hint, severity=Severity.ERROR)
