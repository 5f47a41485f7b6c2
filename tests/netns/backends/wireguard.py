"""Stages whose nodes have wireguard-go: the kernel here has no wireguard."""

from __future__ import annotations

import contextlib
import shutil
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


def public_key(node: Node) -> str:
    return node.inside(["wg", "show", LINK, "public-key"]).stdout.strip()


def peers_of(node: Node) -> dict[str, tuple[str, str]]:
    """Return endpoint and ranges by public key."""
    lines = node.inside(["wg", "show", LINK, "dump"]).stdout.splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return {row[0]: (row[2], row[3]) for row in rows}
