"""The configuration of a machine of the lab, kept beside its disk for later boots."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostmesh_lab.underlay.topology import Port


@dataclass(frozen=True)
class Bind:
    """A file or folder of the machine that runs the lab, shown inside."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Restart:
    """PID 1's reaction to a service that ends unasked."""

    delay_s: float
    max_delay_s: float
    burst: int = 0


@dataclass(frozen=True)
class Service:
    """A program that PID 1 supervises. `ready` says how it is known to be up."""

    name: str
    argv: list[str]
    ready: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    restart: Restart | None = None
    autostart: bool = True
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0
    afterwards: list[list[str]] = field(default_factory=list)

    @property
    def log(self) -> str:
        return f"/var/log/{self.name}.log"


@dataclass(frozen=True)
class Config:
    """Everything needed to boot a machine, now or again. `address` is its first port's first."""

    lab: str
    name: str
    kind: str
    suite: str
    address: str
    layers: list[str]
    services: list[Service]
    ports: list[Port] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    commands: list[list[str]] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> "Config":
        raw = json.loads(path.read_text())
        raw["services"] = [
            Service(**{**item, "restart": Restart(**item["restart"]) if item["restart"] else None})
            for item in raw["services"]
        ]
        raw["binds"] = [Bind(**item) for item in raw["binds"]]
        raw["ports"] = [Port(**item) for item in raw["ports"]]
        return cls(**raw)
