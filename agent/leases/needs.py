"""The field of a heartbeat that says which addresses its host must reach beside the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.leases.untrusted import Fields
from agent.model import Need, Needed

__all__ = ["FIELD", "decode_needs", "encode_needs"]

FIELD = "Needs"
_MOST = 16
_NAMES: Mapping[str, Need] = MappingProxyType(
    {"Etcd": Need.ETCD, "Gateway": Need.GATEWAY, "Resolver": Need.RESOLVER}
)


def decode_needs(fields: Fields) -> tuple[Needed, ...]:
    """Read it; a value that cannot be read costs the advice and not the heartbeat."""
    try:
        needs = fields.object(FIELD)
        return tuple(
            Needed(each, need)
            for name, need in _NAMES.items()
            for each in (needs.addresses(name, _MOST) if needs else ())
        )
    except ValueError:
        return ()


def encode_needs(needed: tuple[Needed, ...]) -> Mapping[str, list[str]] | None:
    """Write it, None when nothing is known."""
    found = {
        name: [str(each.address) for each in needed if each.need is need][:_MOST]
        for name, need in _NAMES.items()
    }
    return {name: addresses for name, addresses in found.items() if addresses} or None
