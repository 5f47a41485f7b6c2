"""Backends by name. A new one is a module here and a line in :data:`agent.model.BACKENDS`."""

from __future__ import annotations

import functools
import importlib
from typing import Final, cast

from agent.errors import MeshConfigError
from agent.mesh.backends.base import (
    Backend,
    HostObjects,
    KernelObject,
    PeerObjects,
    ThisHost,
    TunnelPort,
    outer_mtu,
    published_by,
)
from agent.model import (
    BACKENDS,
    DEFAULT_BACKEND,
    BackendChoice,
    HostId,
    MeshConfig,
    Uplink,
    family_of,
)
from agent.model.untrusted import Fields

__all__ = [
    "Backend",
    "HostObjects",
    "KernelObject",
    "PeerObjects",
    "ThisHost",
    "TunnelPort",
    "any_host",
    "backend_by_name",
    "backend_names",
    "container_mtu",
    "published_by",
    "refuse_options",
]

_LARGEST_MTU: Final = 65_535


def backend_by_name(name: str) -> Backend | None:
    """Return the backend that flannel calls ``name``, None when this version does not have it."""
    place = BACKENDS.get(name)
    return None if place is None else _load(place)


@functools.cache
def _load(place: str) -> Backend:
    """Import a backend: only the one that the mesh uses costs memory."""
    module, _, name = place.partition(":")
    return cast("Backend", getattr(importlib.import_module(module), name)())


def backend_names() -> tuple[str, ...]:
    """Return the name of every backend that this version has, for messages."""
    return tuple(BACKENDS)


def container_mtu(uplink: Uplink, config: MeshConfig | None) -> int:
    """Return the largest packet of a container: what the uplink carries less the outer headers.

    Args:
        config: None while it is not known: the default backend's.
    """
    if config is None:
        return _mtu_of(BackendChoice(DEFAULT_BACKEND), uplink)
    return min(_mtu_of(each, uplink) for each in config.choices)


def _mtu_of(choice: BackendChoice, uplink: Uplink) -> int:
    backend = backend_by_name(choice.name)
    overhead = backend.overhead(family_of(uplink.node_address)) if backend else 0
    try:
        return outer_mtu(uplink, Fields(choice.data.fields if choice.data else {})) - overhead
    except ValueError:  # the condition backend-options-unusable says so
        return uplink.mtu - overhead


def refuse_options(config: MeshConfig) -> None:
    """Raise MeshConfigError when a backend of ``config`` cannot use its options on any host."""
    for choice in config.choices:
        backend = backend_by_name(choice.name)
        if backend is None:
            continue
        try:
            backend.host_objects(any_host(config.using(choice)))
        except ValueError as error:
            raise MeshConfigError(f"backend {choice.name}: {error}") from error


def any_host(config: MeshConfig) -> ThisHost:
    """Return a host that has not joined yet, has no neighbour and can use every backend.

    Only what the config and a peer's record say matters to it.
    """
    uplink = Uplink(
        index=0,
        name="",
        mtu=_LARGEST_MTU,
        node_address=config.cidr.network_address,
        on_link=config.cidr,
        wireguard_key="any",
    )
    return ThisHost(
        config=config,
        uplink=uplink,
        on_link=(),
        subnets=(),
        host_id=HostId("0" * 32),
        protocol=0,
        table=0,
        metric=0,
    )
