"""Compare what a lab must not touch: the machine's own network, mounts and cgroups."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostmesh_lab import shell

_TIMEOUT_S = 30.0
# These change by themselves, or by anybody's traffic.
_VOLATILE_KEYS = frozenset(
    ["valid_life_time", "preferred_life_time", "expires", "stats", "stats64", "ageing_timer"]
)
_VOLATILE_SYSCTLS = re.compile(
    r"(^|/)(nf_conntrack_count|tcp_mem|udp_mem|tcp_fastopen_key|stable_secret|base_reachable_time(_ms)?"
    r"|rps_.*|flow_limit.*|nf_conntrack_dccp.*|.*_cookie|netdev_rss_key)$"
)
_OURS = (
    "/etc/docker/daemon.json",
    "/etc/hostmesh",
    "/etc/iproute2/rt_protos.d/hostmesh.conf",
    "/run/hostmesh",
    "/var/lib/hostmesh",
)
_CONTAINER_GROUP = re.compile(r"hostmesh|docker|[0-9a-f]{64}")


@dataclass(frozen=True)
class MachineState:
    """Lines by what they are about: a difference is a line that came or went."""

    lines: frozenset[str]

    def differences(self, later: "MachineState") -> list[str]:
        """Return the changes from this state to a later one, as text."""
        gone = [f"gone: {line}" for line in sorted(self.lines - later.lines)]
        new = sorted(later.lines - self.lines)
        # A module that the kernel loads for a lab's Docker brings settings that were not there
        # before: no setting of the machine's has changed.
        known = set(map(_setting, self.lines))
        return gone + [f"new: {line}" for line in new if _setting(line) in {"", *known}]


def look_at_network() -> MachineState:
    """Record what tests of any kind must leave alone, whatever labs beside them come and go."""
    return MachineState(frozenset([*_network(), *_firewall(), *_sysctls(), *_files()]))


def look(*, lab: str = "") -> MachineState:
    """Record the machine's state. With `lab`, what belongs to other labs is left out."""
    lines = [*look_at_network().lines, *_namespaces(), *_mounts()]
    others = re.compile(rf"hostmesh-lab($|/(?!{re.escape(lab)}(/|$)))")
    lines += [line for line in _cgroups() if not (lab and others.search(line))]
    return MachineState(frozenset(lines))


def _setting(line: str) -> str:
    """Return the name of a sysctl's setting; "" for a line about anything else."""
    return line.partition(" = ")[0] if line.startswith("sysctl ") else ""


def lasting_differences(
    before: MachineState,
    *,
    lab: str = "",
    patience_s: float = 5.0,
    again: Callable[[], MachineState] | None = None,
) -> list[str]:
    """Return the differences that are still there after a while.

    The kernel ends namespaces a moment after their last process, and other programs of the machine
    come and go.

    Args:
        lab: As for :func:`look`, which is how to look again.
        again: Another way to look, the one that `before` comes from.
    """
    deadline = time.monotonic() + patience_s
    while True:
        found = before.differences(look(lab=lab) if again is None else again())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _network() -> Iterator[str]:
    for label, args in (
        ("link", ["link"]),
        ("address", ["address"]),
        ("rule", ["rule"]),
        ("rule6", ["-6", "rule"]),
        ("route", ["route", "show", "table", "all"]),
        ("route6", ["-6", "route", "show", "table", "all"]),
    ):
        text = shell.run(["ip", "-j", *args], timeout_s=_TIMEOUT_S, check=False).stdout.strip()
        for item in json.loads(text) if text else []:
            yield f"{label} {json.dumps(_steady(item), sort_keys=True)}"


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE_KEYS}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _firewall() -> Iterator[str]:
    """Only with tools that are there; legacy tables only if they exist: looking makes them."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    # Not every machine has nft; what our programs could write is seen by iptables alike.
    commands = [["nft", "list", "ruleset"], ["iptables-nft-save"], ["ip6tables-nft-save"]]
    commands.append(["ipset", "save"])
    for names, command in (
        ("ip_tables_names", "iptables-legacy-save"),
        ("ip6_tables_names", "ip6tables-legacy-save"),
    ):
        file = Path("/proc/thread-self/net") / names  # a test may look from a namespace
        commands += [
            [command, "-t", table] for table in (file.read_text().split() if file.exists() else [])
        ]
    for argv in commands:
        program = shutil.which(argv[0], path=path)
        if program is None:
            continue
        text = shell.run([program, *argv[1:]], timeout_s=_TIMEOUT_S, check=False).stdout
        section = ""
        for line in text.splitlines():
            bare = re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", line).strip()
            section = bare if line[:5] == "table" or line[:1] == "*" else section
            if bare and not bare.startswith("#"):
                yield f"firewall {argv[0]} {section}: {bare}"


def _sysctls() -> Iterator[str]:
    for folder, _, names in os.walk("/proc/sys/net"):
        for name in names:
            path = Path(folder) / name
            if _VOLATILE_SYSCTLS.search(str(path)):
                continue
            try:
                yield f"sysctl {path.relative_to('/proc/sys')} = {path.read_text().strip()}"
            except (OSError, UnicodeDecodeError):
                continue


def _files() -> Iterator[str]:
    """Return what an agent would make or change on the machine itself."""
    for path in map(Path, _OURS):
        if path.is_file():
            yield f"file {path} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        elif path.exists():
            yield f"folder {path}"


def _namespaces() -> Iterator[str]:
    folder = Path("/run/netns")
    for entry in folder.iterdir() if folder.is_dir() else ():
        yield f"named network namespace {entry.name}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, source = line.partition(" - ")
        words = fields.split()
        yield f"mount {words[4]} {words[5]} {source}"


def _cgroups() -> Iterator[str]:
    """Groups that containers or labs leave; a machine's services come and go as they like."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if _CONTAINER_GROUP.search(name):
                yield f"cgroup {folder}/{name}"
