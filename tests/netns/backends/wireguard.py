"""Stages whose nodes have wireguard-go: the kernel here has no wireguard."""

from __future__ import annotations

import contextlib
import shutil
import time
from ipaddress import IPv4Network
from pathlib import Path

from tests.netns.mesh.stage import Node, Stage
from tests.waiting import eventually

LINK = "hm-wg"
START = "wireguard-go hm-wg && ip link set hm-wg alias hostmesh"
EXTRA = f'resync_s = 5\n[wireguard]\nstart_command = ["sh", "-c", "{START}"]\n'


def missing_programs() -> list[str]:
    """Return the tests' missing programs, of Debian's wireguard-go and wireguard-tools."""
    return [each for each in ("wireguard-go", "wg") if shutil.which(each) is None]


def with_own_run(node: Node) -> None:
    """Give the node a /run of its own: the socket of wireguard-go is named after the device."""
    node.binds[str(node.folder / "all-of-run")] = "/run"
    (node.folder / "all-of-run").mkdir(mode=0o755)


def container_of(node: Node) -> None:
    """A bridge with an address in the node's subnet, as docker0 has it."""
    subnet = IPv4Network(node.subnet())
    node.host.ip("link add docker0 type bridge")
    node.host.ip(f"addr add {subnet[1]}/24 dev docker0")
    node.host.ip("link set docker0 up")


def inner(node: Node) -> str:
    """An address in the node's subnet that answers, as a container does."""
    return str(IPv4Network(node.subnet())[1])


def reaches(node: Node, other: Node) -> bool:
    words = ["ping", "-c1", "-W1", "-I", inner(node), inner(other)]
    return node.inside(words).returncode == 0


def all_reached(stage: Stage) -> bool:
    pairs = [(one, two) for one in stage.nodes for two in stage.nodes if one is not two]
    return all(reaches(*pair) for pair in pairs)


def end_wireguard(stage: Stage) -> None:
    """End every wireguard-go: it ends with its device, and would keep the namespace alive."""
    for node in stage.nodes:
        node.inside(["ip", "link", "del", LINK])
    eventually(lambda: not any(_uses(stage.folder, each) for each in _processes()), 10)


def _processes() -> list[Path]:
    return [each for each in Path("/proc").glob("[0-9]*") if _name(each) == "wireguard-go"]


def _name(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text().strip()
    return ""


def _uses(folder: Path, process: Path) -> bool:
    with contextlib.suppress(OSError):
        return str(folder) in (process / "mountinfo").read_text()
    return False


def handshake_age_s(node: Node, key: str) -> float:
    """Seconds since the latest handshake with a peer; infinite without one."""
    for line in node.inside(["wg", "show", LINK, "latest-handshakes"]).stdout.splitlines():
        found, _, when = line.partition("\t")
        if found == key and int(when):
            return time.time() - int(when)
    return float("inf")


def public_key(node: Node) -> str:
    return node.inside(["wg", "show", LINK, "public-key"]).stdout.strip()
