"""Containers that run here and their addresses on bridge networks, from the API's answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

__all__ = ["Attachment", "Container", "container_name", "containers_of"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's place in one network.

    Attributes:
        network: The network's id.
        mac: As Docker says it, "" when it does not.
    """

    network: str
    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Container:
    """A running container; without attachments it shares the host's network or has none."""

    id: str
    name: str
    attachments: tuple[Attachment, ...]


def containers_of(listed: Iterable[Mapping[str, Any]]) -> tuple[Container, ...]:
    """The containers of ``GET /containers/json``."""
    return tuple(
        Container(str(each.get("Id")), container_name(each), tuple(_attachments(each)))
        for each in listed
    )


def _attachments(listed: Mapping[str, Any]) -> Iterable[Attachment]:
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    for found in networks.values():
        with contextlib.suppress(ValueError):  # no IPv4 address there
            address = IPv4Address(found.get("IPAddress") or "")
            mac = str(found.get("MacAddress") or "")
            yield Attachment(str(found.get("NetworkID")), address, mac)


def container_name(container: Mapping[str, Any]) -> str:
    """Return the name of a container from a list of them."""
    names = container.get("Names") or [str(container.get("Id"))[:12]]
    return str(names[0]).removeprefix("/")
