"""The lab's underlay: one network namespace with a bridge per link, and a cable to each card.

No interface ever exists in this machine's own namespace: cables are made inside the underlay's,
with their other end created straight in the namespace of the lab's machine.
"""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hostmesh_lab import cgroups, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.processes import Proc
from hostmesh_lab.underlay.topology import Link, Port

_IP_TIMEOUT_S = 20.0
_UNSHARE = "unshare --fork --kill-child --pid --net --mount --propagation private".split()


def start_holder(group: Path, links: Sequence[Link]) -> Proc:
    """Start the lab's PID 1 in namespaces of its own, and build the links' bridges."""
    cgroups.create(group)
    script = Path(__file__).parents[1] / "guest/holder.py"
    process = subprocess.Popen(
        [*in_group(group), *_UNSHARE, "--", sys.executable, "-I", "-S", "-B", str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout is not None
    with process.stdout as pipe:
        line = pipe.readline().decode().strip()
    if not line.isdigit():
        raise LabError("the lab's first process did not start", "are namespaces allowed here?")
    holder = Proc.of(int(line))
    lines = ["link set lo up"]
    for link in links:
        lines += [
            f"link add {link.name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {link.name} up",
        ]
    ip_batch(holder, lines)
    return holder


def in_group(group: Path) -> list[str]:
    """Return the start of a command line that runs the rest inside a cgroup."""
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def ip_batch(proc: Proc, lines: list[str]) -> None:
    """Run several `ip` commands in the network namespace of a process."""
    shell.run(
        ["nsenter", f"--net=/proc/{proc.pid}/ns/net", "ip", "-batch", "-"],
        timeout_s=_IP_TIMEOUT_S,
        stdin="\n".join(lines) + "\n",
        doing="setting up the lab's network",
    )


def plug(holder: Proc, machine: Proc, ports: Sequence[Port]) -> None:
    """Lay a cable from its link to each card of a machine, and give the card its addresses."""
    outside, inside = [], ["link set lo up"]
    for port in ports:
        end = f"{port.device} address {port.mac} mtu {port.mtu} netns {machine.pid}"
        outside += [
            f"link add {port.cable} mtu {port.mtu} type veth peer name {end}",
            f"link set {port.cable} master {port.link} up",
        ]
        for address in port.addresses:
            kind = "nodad" if ":" in address else "brd +"
            inside.append(f"address add {address} {kind} dev {port.device}")
        inside.append(f"link set {port.device} up")
        inside += [f"route add default via {gateway}" for gateway in port.gateways]
    ip_batch(holder, outside)
    ip_batch(machine, inside)


def unplug(holder: Proc, ports: Sequence[Port]) -> None:
    """Pull a machine's cables, as far as they are there: its namespace may end a little later."""
    for port in ports:
        with contextlib.suppress(LabError):
            ip_batch(holder, [f"link delete {port.cable}"])


def set_cable(holder: Proc, port: Port, state: str) -> None:
    """Set a cable `down` (no carrier), `silent` (drops all unnoticed), or `up` (mends both)."""
    lines = {
        "down": [f"link set {port.cable} down"],
        "silent": [f"link set {port.cable} nomaster"],
        "up": [f"link set {port.cable} master {port.link}", f"link set {port.cable} up"],
    }
    ip_batch(holder, lines[state])


def drop_udp(holder: Proc, image: Path, link: str, ports: Sequence[int]) -> None:
    """Let a link's switch drop UDP to these ports, and to no other from now on.

    The rule names cables by their prefix, so it holds for machines that boot later, too.
    """
    chosen = ", ".join(map(str, ports))
    rules = [f'iifname "{link}.*" udp dport {{ {chosen} }} counter drop'] if ports else []
    _filter(holder, image, f"drop-{link}", rules)


def check_sources(holder: Proc, image: Path, port: Port, *, on: bool) -> None:
    """Have a card's port drop what it sends from another IPv4 address, as clouds do."""
    own = [text.partition("/")[0] for text in port.addresses if ":" not in text]
    rule = f'iifname "{port.cable}" ip saddr != {{ {", ".join(own)} }} counter drop'
    _filter(holder, image, f"sources-{port.cable}", [rule] if on else [])


def _filter(holder: Proc, image: Path, table: str, rules: Sequence[str]) -> None:
    """Put these rules for what switches forward in the place of a table's.

    nft is the image's: the lab does not ask for it on this machine.
    """
    text = f"add table bridge {table}\ndelete table bridge {table}\n"
    if rules:
        lines = "\n".join(["type filter hook forward priority 0;", *rules])
        text += f"table bridge {table} {{\nchain forward {{\n{lines}\n}}\n}}\n"
    namespace = f"--net=/proc/{holder.pid}/ns/net"
    shell.run(
        ["nsenter", namespace, "chroot", str(image), "/usr/sbin/nft", "-f", "-"],
        timeout_s=_IP_TIMEOUT_S,
        stdin=text,
        doing=f"setting the switches' rules {table}",
    )
