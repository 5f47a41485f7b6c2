"""hostmesh-dns: parse flags and serve one address until stopped."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from agent import __version__, log
from agent.dns.forwarding.upstreams import RESOLV_CONFS
from agent.dns.server import SNAPSHOT_FOLDER, Options, serve
from agent.dns.status import STATUS_FOLDER
from agent.model.family import Address, read_address
from agent.model.names import NAME_SERVERS
from agent.settings import LogSettings
from agent.systemd_notify import notify

__all__ = ["main", "parser"]

_FIRST_DESCRIPTOR: Final = 3
_DESCRIPTORS: Final = 16384
"""A query under way has a socket for each upstream that was asked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run hostmesh-dns; return the exit status."""
    arguments = parser().parse_args(argv)
    log.configure(
        LogSettings(),
        stream=sys.stderr,
        is_tty=sys.stderr.isatty(),
        journald="JOURNAL_STREAM" in os.environ,
    )
    _raise_limit()
    systemd = os.environ.get("NOTIFY_SOCKET", "")
    options = Options(
        address=arguments.listen,
        port=arguments.port,
        snapshot=arguments.snapshot,
        resolv_confs=tuple(arguments.resolv_conf or RESOLV_CONFS),
        status=arguments.status,
        inherited=_inherited(os.environ),
    )
    gc.freeze()  # what is imported stays: no collection need look at it
    try:
        asyncio.run(
            serve(
                options, lambda: notify(systemd, "READY=1"), lambda: notify(systemd, "WATCHDOG=1")
            )
        )
    except OSError as error:
        structlog.get_logger("agent.dns").error(
            "cannot-serve",
            address=f"{options.address} port {options.port}",
            reason=error.strerror,
            hint=f"see which program has the port: ss -lnp 'src {options.address}'",
        )
        return 1
    return 0


def _inherited(environ: Mapping[str, str]) -> tuple[socket.socket, ...]:
    """Return the sockets that systemd hands over (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return ()
    count = int(environ.get("LISTEN_FDS", "0"))
    return tuple(socket.socket(fileno=_FIRST_DESCRIPTOR + each) for each in range(count))


def _raise_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(most, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def parser() -> argparse.ArgumentParser:
    """Return the command line of hostmesh-dns."""
    found = argparse.ArgumentParser(
        prog="hostmesh-dns",
        description="Answer names of the mesh for this host's containers, and forward all others"
        " to the host's own name servers.",
    )
    found.add_argument(
        "--listen",
        type=_address,
        default=NAME_SERVERS[0],
        metavar="ADDRESS",
        help=f"service address (default {NAME_SERVERS[0]})",
    )
    found.add_argument("--port", type=int, default=53, help="UDP and TCP port (default 53)")
    found.add_argument(
        "--snapshot",
        type=Path,
        default=SNAPSHOT_FOLDER,
        metavar="FOLDER",
        help=f"names that the agent writes (default {SNAPSHOT_FOLDER})",
    )
    found.add_argument(
        "--resolv-conf",
        type=Path,
        action="append",
        metavar="FILE",
        help="file that names the upstreams (default /etc/resolv.conf, and systemd-resolved's)",
    )
    found.add_argument(
        "--status",
        type=Path,
        default=STATUS_FOLDER,
        metavar="FOLDER",
        help=f"where the status file goes (default {STATUS_FOLDER})",
    )
    found.add_argument("--version", action="version", version=f"hostmesh {__version__}")
    return found


def _address(text: str) -> Address:
    try:
        return read_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
