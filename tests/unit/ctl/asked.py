"""Documents of a fake agent, and ways to run agentctl against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from agent.ctl.main import main

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]

LEASES: dict[str, Any] = {
    "version": 1,
    "cached": False,
    "leases": [
        {
            "subnet": "10.64.0.0/16",
            "host_id": "0" * 32,
            "host_name": "host1",
            "node_address": "192.0.2.1",
            "backend": "host-gw",
            "age_s": 11520.0,
            "ttl_left_s": 86000.0,
            "alive": True,
            "silent_s": None,
            "docker": "ready",
            "own": True,
        }
    ],
    "set_aside": [],
}
STATUS: dict[str, Any] = {
    "version": 1,
    "source": "agent",
    "agent_version": "9.9.9",
    "state": "ready",
    "host": {"id": "0" * 32, "name": "host1", "node_address": "192.0.2.1", "uplink": "eth0"},
    "subnet": "10.64.0.0/16",
    "docker": {"state": "ready", "version": "26.1.5", "bridge": "10.64.0.0/17"},
    "etcd": {
        "connected": True,
        "last_contact_s_ago": 2.0,
        "cluster_id": "abc",
        "revision": 42,
        "cached": False,
    },
    "mesh": {"cidr": "10.64.0.0/10", "subnet_len": 16, "backend": "host-gw"},
    "routes": {"desired": 3, "installed": 3, "drift": 0},
    "peers": [],
    "conditions": [],
}


def run(path: Path, *words: str) -> int:
    return main([*words, "--socket", str(path), "--settings", "/dev/null"])


def agentctl(
    *words: str, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """The program itself, whose output is buffered as it is for operators."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "agent.ctl", *words], env=buffered,
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=30,
    )  # fmt: skip
