"""One process of the name server: its parts, and the loop that runs them."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from agent.dns.admission import Admission
from agent.dns.counters import Counters
from agent.dns.forwarding.by_tcp import forward_by_tcp
from agent.dns.forwarding.by_udp import Forwarder
from agent.dns.forwarding.upstreams import RESOLV_CONFS, Upstreams
from agent.dns.inotify import FolderWatch
from agent.dns.listener import Listener
from agent.dns.responder import Responder
from agent.dns.snapshot import LOCAL_FILE
from agent.dns.snapshot_folder import SnapshotFolder
from agent.dns.status import STATUS_FOLDER, STATUS_S, document, write_status
from agent.dns.zone import Zone
from agent.model.family import Address

__all__ = ["SNAPSHOT_FOLDER", "Options", "serve"]

SNAPSHOT_FOLDER: Final = Path("/var/lib/hostmesh/names")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LOOK_S: Final = 1.0
_LOOK_UNWATCHED_S: Final = 0.1
_DRAIN_S: Final = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a process.

    Attributes:
        address: It answers on this one.
        resolv_confs: The files that name the host's upstreams.
        status: The folder of the status file.
        inherited: Sockets that systemd has opened.
    """

    address: Address
    port: int = 53
    snapshot: Path = SNAPSHOT_FOLDER
    resolv_confs: tuple[Path, ...] = RESOLV_CONFS
    status: Path = STATUS_FOLDER
    inherited: tuple[socket.socket, ...] = ()


class _Follower:
    """Has the snapshot read when it changes: at once by inotify, else within a moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: SnapshotFolder) -> None:
        self._loop = loop
        self._folder = folder
        self._watch: FolderWatch | None = None
        self._watched: int | None = None
        self._stepping = False

    def look(self) -> None:
        """Follow the folder that is there now, and repeat."""
        try:
            inode = self._folder.folder.stat().st_ino
            if self._watch is None or inode != self._watched:
                self._unwatch()
                self._watch, self._watched = FolderWatch(self._folder.folder), inode
                self._loop.add_reader(self._watch.fileno(), self._readable)
        except OSError:
            self._unwatch()
        self._folder.look()
        self._step()
        pause_s = _LOOK_S if self._watch else _LOOK_UNWATCHED_S
        self._loop.call_later(pause_s, self.look)

    def _readable(self) -> None:
        names = self._watch.read() if self._watch else None
        if names is None:
            self._unwatch()
            self._folder.look()
        else:
            # An agent that confirms its snapshot changes this file's time only.
            self._folder.changed(sorted(names, key=lambda name: name != LOCAL_FILE))
        self._step()

    def _step(self) -> None:
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._read_one)

    def _read_one(self) -> None:
        """Read a file; queries are answered between two."""
        self._stepping = False
        if self._folder.step():
            self._step()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._loop.remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None


async def serve(options: Options, ready: Callable[[], None], alive: Callable[[], None]) -> None:
    """Answer queries until SIGTERM or SIGINT.

    Args:
        ready: Called when the snapshot is read and the sockets are open.
        alive: Called every second by the loop.

    Raises:
        OSError: The port cannot be had.
    """
    loop = asyncio.get_running_loop()
    zone, counters = Zone(), Counters()
    folder = SnapshotFolder(options.snapshot, zone, UUID(_BOOT_ID.read_text().strip()).hex)
    upstreams = Upstreams(options.resolv_confs)
    forwarder = Forwarder(loop, upstreams, counters)
    listener = Listener(
        options.address,
        responder=Responder(zone, lambda: folder.fresh),
        admission=Admission(zone),
        forward_udp=forwarder.forward,
        forward_tcp=partial(forward_by_tcp, upstreams, counters),
        counters=counters,
        port=options.port,
    )
    folder.read_all()
    upstreams.look()
    await listener.start(options.inherited)
    _Follower(loop, folder).look()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    _log.info("serving", address=str(options.address), names=zone.names, fresh=folder.fresh)
    ready()

    def report() -> None:
        status = document(zone, folder, upstreams, counters, forwarder.under_way)
        write_status(options.status, options.address, status)
        loop.call_later(STATUS_S, report)

    def tick() -> None:
        alive()
        loop.call_later(_LOOK_S, tick)

    report()
    tick()
    await stopped.wait()
    listener.close()
    await forwarder.drain(_DRAIN_S)
