"""The lab's LAN: one network namespace with a bridge, and a cable to each machine.

No interface ever exists in the machine's own namespace: cables are made inside the LAN's,
with their other end created straight in the machine's of the lab.
"""

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from hostmesh_lab import cgroups, shell
from hostmesh_lab.errors import LabError
from hostmesh_lab.procs import Proc

LAN = IPv4Network("192.168.50.0/24")
GATEWAY = LAN[1]
OUTSIDE = IPv4Address("203.0.113.7")
STRANGER = LAN[200]
BRIDGE = "lan"
MAX_HOSTS = 180
_IP_TIMEOUT_S = 20.0


def host_address(index: int) -> IPv4Address:
    """Where host number `index` (from 1) is on the LAN."""
    if not 1 <= index <= MAX_HOSTS:
        raise LabError(f"a lab has at most {MAX_HOSTS} hosts")
    return LAN[10 + index]


def etcd_address(index: int) -> IPv4Address:
    """Where etcd member number `index` (from 1) is on the LAN."""
    return LAN[1 + index]


def mac_of(address: IPv4Address) -> str:
    """A card keeps its address over reboots: derived, so that it need not be stored."""
    return "02:68:" + ":".join(f"{byte:02x}" for byte in address.packed)


@dataclass(frozen=True)
class Port:
    """How a machine is plugged into the LAN."""

    name: str
    address: IPv4Address
    mtu: int = 1500
    gateway: bool = True
    outside: bool = False

    @property
    def interface(self) -> IPv4Interface:
        return IPv4Interface(f"{self.address}/{LAN.prefixlen}")


def start_holder(group: Path) -> Proc:
    """Start the lab's PID 1 in namespaces of its own, and build the bridge."""
    cgroups.create(group)
    script = Path(__file__).parent / "guest/holder.py"
    process = subprocess.Popen(
        [
            *in_group(group),
            "unshare",
            "--fork",
            "--kill-child",
            "--pid",
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--",
            sys.executable,
            "-I",
            "-S",
            "-B",
            str(script),
        ],
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
    ip_batch(
        holder,
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {BRIDGE} up",
        ],
    )
    return holder


def in_group(group: Path) -> list[str]:
    """The start of a command line that runs the rest inside a cgroup."""
    return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]


def ip_batch(proc: Proc, lines: list[str]) -> None:
    """Run several `ip` commands in the network namespace of a process."""
    shell.run(
        ["nsenter", f"--net=/proc/{proc.pid}/ns/net", "ip", "-batch", "-"],
        timeout_s=_IP_TIMEOUT_S,
        stdin="\n".join(lines) + "\n",
        doing="setting up the lab's network",
    )


def plug(holder: Proc, machine: Proc, port: Port) -> None:
    """Lay a cable from the bridge to a machine and give the machine its address."""
    end = f"eth0 address {mac_of(port.address)} mtu {port.mtu} netns {machine.pid}"
    ip_batch(
        holder,
        [
            f"link add {port.name} mtu {port.mtu} type veth peer name {end}",
            f"link set {port.name} master {BRIDGE} up",
        ],
    )
    inside = [
        "link set lo up",
        f"address add {port.interface} brd + dev eth0",
        "link set eth0 up",
    ]
    if port.gateway:
        inside.append(f"route add default via {GATEWAY}")
    if port.outside:
        inside.append(f"address add {OUTSIDE}/32 dev lo")
    ip_batch(machine, inside)


def unplug(holder: Proc, name: str) -> None:
    """Pull a machine's cable, if it is still there: its namespace may end only a little later."""
    with contextlib.suppress(LabError):
        ip_batch(holder, [f"link delete {name}"])


def check_sources(holder: Proc, name: str, address: str, *, on: bool) -> None:
    """Have a machine's port drop what it sends from another address, as clouds and switches do."""
    rule = ["-i", name, "-p", "IPv4", "!", "--ip-src", address, "-j", "DROP"]
    for chain in ("FORWARD", "INPUT"):
        shell.run(
            [
                *("nsenter", f"--net=/proc/{holder.pid}/ns/net"),
                *("ebtables", "-A" if on else "-D", chain, *rule),
            ],
            timeout_s=_IP_TIMEOUT_S,
            doing="setting up the source check of a port",
        )
