"""Containers that run here, their addresses on bridge networks and their ports, from the API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from agent.model import Attachment, Binding, Container
from agent.model.family import read_address

__all__ = ["container_name", "containers_of"]


def containers_of(listed: Iterable[Mapping[str, Any]]) -> tuple[Container, ...]:
    """Return the containers of ``GET /containers/json``."""
    return tuple(
        Container(
            id=str(each.get("Id")),
            name=container_name(each),
            attachments=tuple(_attachments(each)),
            bindings=frozenset(_bindings(each)),
            paused=each.get("State") in {"paused", "restarting"},
        )
        for each in listed
    )


def container_name(container: Mapping[str, Any]) -> str:
    """Return the name of a container from a list of them."""
    names = [str(each).removeprefix("/") for each in container.get("Names") or ()]
    own = (each for each in names if "/" not in each)  # others are of links to it
    return next(own, str(container.get("Id"))[:12])


def _attachments(listed: Mapping[str, Any]) -> Iterable[Attachment]:
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    for found in networks.values():
        with contextlib.suppress(ValueError):  # no IPv4 address there
            address = read_address(found.get("IPAddress") or "")
            mac = str(found.get("MacAddress") or "")
            yield Attachment(str(found.get("NetworkID")), address, mac)


def _bindings(listed: Mapping[str, Any]) -> Iterable[Binding]:
    """Yield published ports; one that is only exposed has no port of the host."""
    for found in listed.get("Ports") or ():
        if not found.get("PublicPort"):
            continue
        with contextlib.suppress(ValueError):  # an address that is none
            shown_at = ip_address(found.get("IP") or "")
            yield Binding(str(found.get("Type")), int(found["PrivatePort"]), shown_at)
