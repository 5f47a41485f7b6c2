"""What the loop drives: the rooms, and one call for each thing that is asked of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.daemon.joining import Joining
from agent.daemon.known import Known
from agent.daemon.observer import Observer
from agent.daemon.passes import Passes
from agent.daemon.reload import Reloader
from agent.docker.wants import DockerWants
from agent.docker.worker import DockerWorker
from agent.leases.copy import CopyFile
from agent.leases.keeper import Keeper
from agent.model import Condition, HostFacts, Uplink
from agent.model.family import Network

__all__ = ["Rooms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What the loop drives.

    Attributes:
        read_host: A fresh look at links, addresses and foreign routes; given an earlier one, its
            routes count as they are.
        docker_wants: What a subnet and an MTU mean for Docker, by the settings' split.
        check_host: What else on the host would undo our work.
        watch_range: Tells the netlink monitor which routes matter.
        pin: Tells the client of etcd which cluster is the mesh's.
        reloader: Reads the settings again.
        reconnect: Drops etcd's connections when they are bound to an address that is gone.
        observer: Is told what happened.
        finish_leave: Does what a leave could not do yet; what stands in its way.
        probe: Tells the prober which hosts to ask, by which uplink.
    """

    keeper: Keeper
    copy: CopyFile
    read_host: Callable[[HostFacts | None], HostFacts]
    check_host: Callable[[Uplink], tuple[Condition, ...]]
    passes: Passes
    docker: DockerWorker
    docker_wants: Callable[[Network, int | None], DockerWants]
    joining: Joining
    reloader: Reloader
    watch_range: Callable[[Known], None]
    probe: Callable[[Known], None]
    pin: Callable[[int], None]
    reconnect: Callable[[], None]
    observer: Observer
    finish_leave: Callable[[], tuple[Condition, ...]]
