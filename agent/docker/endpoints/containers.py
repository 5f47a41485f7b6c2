"""Read what Docker says of its running containers. Pure; the text is any user's of Docker."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.docker.engine.containers import container_name
from agent.model.endpoint import NAMES_MOST, Health, is_usable, usable_name
from agent.model.family import Address, read_address

__all__ = ["Listed", "Place", "RunningContainer", "inspected", "listed"]

_ID: Final = re.compile(r"[0-9a-f]{64}")
_SHORT: Final = 12

_PROJECT: Final = "com.docker.compose.project"
_SERVICE: Final = "com.docker.compose.service"

_HEALTH: Final = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)\Z")
"""Ends the status in a list: "Up 2 hours (healthy)", "Up 1 second (health: starting)"."""


@dataclass(frozen=True, slots=True)
class Place:
    """A container's place in one network.

    Attributes:
        network: The network's id.
        aliases: In order, without the container's own name.
    """

    network: str
    address: Address
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """The part of a container that a list of all says, to be compared with the whole.

    Attributes:
        made_s: Unix time at which it was created.
        places: Network's id and address of each.
    """

    id: str
    name: str
    health: Health
    places: frozenset[tuple[str, Address]]
    made_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningContainer:
    """A running container, from its inspection.

    Attributes:
        left_out: How many of its names are not used: they are too long, too many or no names.
    """

    id: str
    name: str
    project: str = ""
    service: str = ""
    health: Health = Health.NONE
    places: tuple[Place, ...] = ()
    left_out: int = 0

    def agrees(self, other: Listed) -> bool:
        """Return whether a list shows nothing newer of this container."""
        places = frozenset((each.network, each.address) for each in self.places)
        return (self.name, self.health, places) == (other.name, other.health, other.places)

    def without(self, network: str) -> RunningContainer:
        """Return it without its place in a network."""
        kept = tuple(each for each in self.places if each.network != network)
        return replace(self, places=kept)


def listed(raw: Iterable[Mapping[str, Any]]) -> tuple[Listed, ...]:
    """Return the containers of ``GET /containers/json``, the oldest first."""
    found = (
        Listed(
            id=_identity(each),
            name=usable_name(container_name(each), _identity(each)),
            health=_health_in(str(each.get("Status") or "")),
            places=frozenset((network, address) for network, address, _ in _places(each)),
            made_s=int(each.get("Created") or 0),
        )
        for each in raw
    )
    return tuple(sorted(found, key=lambda each: (each.made_s, each.id)))


def inspected(raw: Mapping[str, Any]) -> RunningContainer | None:
    """Return the container of ``GET /containers/ID/json``, None when it does not run."""
    state = raw["State"]
    if not state.get("Running"):
        return None
    identity = _identity(raw)
    given = str(raw.get("Name") or "").removeprefix("/")
    name = usable_name(given, identity)
    left_out = int(name != given)
    labels = (raw.get("Config") or {}).get("Labels") or {}
    places = []
    for network, address, aliases in _places(raw):
        kept, dropped = _aliases(aliases, name, identity)
        left_out += dropped
        places.append(Place(network, address, kept))
    return RunningContainer(
        id=identity,
        name=name,
        project=_label(labels, _PROJECT),
        service=_label(labels, _SERVICE),
        health=_health_of((state.get("Health") or {}).get("Status")),
        places=tuple(places),
        left_out=left_out,
    )


def _identity(raw: Mapping[str, Any]) -> str:
    identity = raw["Id"]
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise ValueError(f"no id of a container: {str(identity)[:80]!r}")
    return identity


def _label(labels: Mapping[str, Any], key: str) -> str:
    value = labels.get(key)
    return value if isinstance(value, str) and is_usable(value) else ""


def _aliases(found: Iterable[object], name: str, identity: str) -> tuple[tuple[str, ...], int]:
    """Return the names to use, in order, and how many are left out; Docker adds the short id."""
    given = {each for each in found if isinstance(each, str)} - {name, identity[:_SHORT], ""}
    usable = sorted(each for each in given if is_usable(each))[:NAMES_MOST]
    return tuple(usable), len(given) - len(usable)


def _places(raw: Mapping[str, Any]) -> Iterator[tuple[str, Address, Iterable[object]]]:
    """Yield network's id, address and aliases of the first networks by name."""
    networks = (raw.get("NetworkSettings") or {}).get("Networks") or {}
    for _, place in sorted(networks.items())[:NAMES_MOST]:
        with contextlib.suppress(ValueError):  # no IPv4 address there
            address = read_address(place.get("IPAddress") or "")
            yield str(place.get("NetworkID")), address, place.get("Aliases") or ()


def _health_in(status: str) -> Health:
    found = _HEALTH.search(status)
    return Health(found[1]) if found else Health.NONE


def _health_of(status: object) -> Health:
    return next((each for each in Health if each == status), Health.NONE)
