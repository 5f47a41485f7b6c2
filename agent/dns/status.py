"""The status file of a server process, which the agent reads for metrics and conditions."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from agent.disk import replace_file
from agent.dns.counters import Counters
from agent.dns.forwarding.upstreams import Upstreams
from agent.dns.snapshot_folder import SnapshotFolder
from agent.dns.zone import Zone

__all__ = ["STATUS_FOLDER", "STATUS_S", "document", "status_file", "write_status"]

STATUS_FOLDER: Final = Path("/run/hostmesh-dns")
STATUS_S: Final = 1.0
"""The file is written again this often; an older one is of a process that does not run well."""


def status_file(folder: Path, address: object) -> Path:
    """Return the path of the file of the process that serves an address."""
    return folder / f"{address}.json"


def document(
    zone: Zone, folder: SnapshotFolder, upstreams: Upstreams, counters: Counters, under_way: int
) -> dict[str, Any]:
    """Return the status.

    Returns:
        ``domain``: "" before the first snapshot. ``snapshot_age_s``: None before the first.
        ``upstreams``: in the order of resolv.conf.
    """
    local = zone.local
    return {
        "pid": os.getpid(),
        "domain": local.domain if local else "",
        "serial": local.serial if local else 0,
        "complete": bool(local and local.complete),
        "fresh": folder.fresh,
        "snapshot_age_s": None if folder.age_s is None else round(folder.age_s, 1),
        "damaged_files": folder.damaged,
        "hosts": len(zone.hosts()),
        "names": zone.names,
        "under_way": under_way,
        "upstreams": [
            {"address": each.address, "failing": each.failing} for each in upstreams.servers
        ],
        "counters": asdict(counters),
    }


def write_status(folder: Path, address: object, status: dict[str, Any]) -> None:
    """Replace the file; a folder that is not there, or is full, must not stop the server."""
    try:
        replace_file(status_file(folder, address), [json.dumps(status).encode(), b"\n"], 0o644)
    except OSError:
        return
