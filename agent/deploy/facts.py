"""Read what deploy/ansible/scripts/facts.sh printed on a host."""

from __future__ import annotations

import base64
import binascii
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from agent.model.family import Network, read_interface
from agent.settings.text import printable, whole_number

__all__ = ["HostFacts", "read_facts"]

_MOST_LINES = 20_000
_HEADER = "# Written by Ansible"


@dataclass(frozen=True)
class HostFacts:
    """One host as it is now.

    Attributes:
        system, release, codename: debian, 13, trixie.
        machine: A hash of its machine-id.
        python: Version of Debian's Python, as (3, 13); () for none.
        docker: Version of the engine; "missing" or "stopped".
        source: Its address on the way out, as the agent finds it.
        used: The networks of its addresses and routes.
        clock_off_s: Its clock against this machine's.
        installed: Version of the package; "" for none.
        settings: What agent.toml says; None where there is no usable one.
        restart_pending: It is a host of a mesh, and waits for a restart of Docker.
    """

    uid: int = 0
    system: str = ""
    release: str = ""
    codename: str = ""
    architecture: str = ""
    hostname: str = ""
    machine: str = ""
    init: str = ""
    python: tuple[int, ...] = ()
    free_mb: int = 0
    docker: str = "missing"
    containers: int = 0
    swarm: str = ""
    source: str = ""
    addresses: tuple[str, ...] = ()
    used: tuple[Network, ...] = ()
    listens: frozenset[int] = frozenset()
    installed: str = ""
    other_installation: str = ""
    etcd_runs: bool = False
    etcd_cluster: str = ""
    settings: dict[str, Any] | None = field(default=None, hash=False)
    settings_of_ansible: bool = False
    restart_pending: bool = False
    clock_off_s: float = 0.0

    @property
    def needs_restart(self) -> bool:
        """Return whether Docker must restart: it has no subnet of the mesh, or names to ask."""
        return self.settings is None or self.restart_pending


def read_facts(text: str, received_s: float) -> HostFacts:
    """Return the facts that a host printed, each a line NAME VALUE.

    Args:
        text: From the host: untrusted, so every value is made printable.
        received_s: When it came, in seconds since 1970.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines()[:_MOST_LINES]:
        name, _, value = line.strip().partition(" ")
        found[name].append(printable(value.strip()))
    last = {name: values[-1] for name, values in found.items()}
    system = [*last.get("system", "").split(), "", "", ""]
    toml = _decoded(last.get("settings", ""))
    now = whole_number(last.get("now", ""), digits=12)
    return HostFacts(
        uid=_number(last.get("uid", "")),
        system=system[0],
        release=system[1],
        codename=system[2],
        architecture=last.get("architecture", ""),
        hostname=last.get("hostname", ""),
        machine=last.get("machine", ""),
        init=last.get("init", ""),
        python=tuple(_number(part) for part in last.get("python", "").split(".") if part),
        free_mb=_number(last.get("free_mb", "")),
        docker=last.get("docker", "missing"),
        containers=_number(last.get("containers", "")),
        swarm=last.get("swarm", ""),
        source=last.get("source", ""),
        addresses=tuple(text.partition("/")[0] for text in found["address"]),
        used=_networks([*found["address"], *found["route"]]),
        listens=frozenset(_number(text) for text in found["listens"]),
        installed=last.get("installed", ""),
        other_installation=last.get("other_installation", ""),
        etcd_runs=last.get("etcd_unit") in ("active", "activating"),
        etcd_cluster=last.get("etcd_cluster", ""),
        settings=_settings(toml),
        settings_of_ansible=toml.startswith(_HEADER),
        restart_pending=_number(last.get("restart_pending", "")) > 0,
        clock_off_s=0.0 if now is None else now - received_s,
    )


def _number(text: str) -> int:
    return whole_number(text, digits=9) or 0


def _networks(texts: list[str]) -> tuple[Network, ...]:
    networks = []
    for text in texts:
        try:
            networks.append(read_interface(text).network)
        except ValueError:
            continue
    return tuple(dict.fromkeys(networks))


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""


def _settings(toml: str) -> dict[str, Any] | None:
    """Return the settings of a file that has any: the package's own has sections without keys."""
    try:
        sections = tomllib.loads(toml)
    except tomllib.TOMLDecodeError:
        return None
    return {name: section for name, section in sections.items() if section} or None
