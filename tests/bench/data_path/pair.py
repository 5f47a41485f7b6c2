"""Two hosts and their containers in network namespaces, without Docker, built layer by layer.

container -- host -- LAN -- host -- container
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from hostmesh_lab import shell
from hostmesh_lab.wait import wait_until

from tests.bench.data_path.ways import CIDR, LEASES, Way, rules_by_hand
from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Process
from tests.netns.firewall.rig.rig import BRIDGES, HERE

BRIDGE = "docker0"
ENGINE = "28.5"
_DEADLINE_S = 60.0


class Space:
    """A network namespace, held by a process that ends with the stack."""

    def __init__(self, stack: ExitStack) -> None:
        process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        stack.callback(process.wait)
        stack.callback(process.kill)
        self.pid = process.pid
        own = Path("/proc/self/ns/net").readlink()
        wait_until(
            lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != own, _DEADLINE_S, "a namespace"
        )
        for name in ("all", "default"):
            self.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
        self.ip("link set lo up")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs a program in it."""
        return ["nsenter", "-t", str(self.pid), "-n", *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program in it to its end."""
        return shell.run(self.enter(argv), timeout_s=_DEADLINE_S, stdin=stdin).stdout

    def ip(self, *lines: str) -> None:
        """Run several `ip` commands in it."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, name: str, value: int) -> None:
        """Set one of its kernel settings."""
        self.run("sysctl", "-qw", f"{name}={value}")


class Host(Space):
    """One of the two hosts, on the LAN, and its container once it has one.

    Attributes:
        number: 0 or 1.
    """

    def __init__(self, stack: ExitStack, lan: Space, number: int) -> None:
        super().__init__(stack)
        self._stack = stack
        self.number = number
        self.address = f"192.168.9.{number + 1}"
        self.lease = LEASES[number]
        self.container: Space | None = None
        cable(self, "eth0", lan, f"h{number}")
        lan.ip(f"link set h{number} master lan up")
        self.ip(f"addr add {self.address}/24 dev eth0", "link set eth0 up")

    @property
    def end(self) -> Space:
        """Return the place where programs run."""
        return self.container or self

    @property
    def end_address(self) -> str:
        """Return the address of that place."""
        return self.lease.replace(".0.0/16", ".0.2") if self.container else self.address

    def add_container(self) -> None:
        """Add a second namespace, routed: the host forwards between two cards."""
        gateway = self.lease.replace(".0.0/16", ".0.1")
        self.container = Space(self._stack)
        cable(self.container, "eth0", self, "veth0")
        self.container.ip(
            f"addr add {self.end_address}/17 dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
        )
        self.ip(
            "link set veth0 up",
            f"addr add {gateway}/17 dev veth0",
            f"route add {LEASES[1 - self.number]} via 192.168.9.{2 - self.number}",
        )
        self.sysctl("net.ipv4.ip_forward", 1)

    def add_bridge(self) -> None:
        """Put the container's cable into a bridge, as Docker does."""
        gateway = self.lease.replace(".0.0/16", ".0.1")
        self.ip(
            f"addr del {gateway}/17 dev veth0",
            f"link add {BRIDGE} type bridge",
            f"addr add {gateway}/17 dev {BRIDGE}",
            f"link set {BRIDGE} up",
            f"link set veth0 master {BRIDGE}",
        )
        self.filter_bridges(on=False)

    def filter_bridges(self, *, on: bool) -> None:
        """Have frames pass iptables where they enter a bridge, or only where they are routed."""
        self.sysctl("net.bridge.bridge-nf-call-iptables", int(on))

    def add_docker(self) -> None:
        """Add Docker's rules."""
        text = docker_text(ENGINE).replace("10.65.", self.lease.removesuffix("0.0/16"))
        self.run("iptables-nft-restore", "--noflush", stdin=text)
        self.run("iptables-nft", "-P", "FORWARD", "DROP")

    def add_rules_by_hand(self) -> None:
        """Add the three rules that an operator would write."""
        for rule in rules_by_hand(self.lease):
            self.run("iptables-nft", *rule)

    def add_rules(self) -> None:
        """Have the agent's firewall add its rules and sets for the other host."""
        other = 1 - self.number
        quiet = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh"]
        driver = Process(self.enter([*quiet, sys.executable, str(HERE / "driver.py"), "nft"]))
        prefix = self.lease.removesuffix("0.0/16")
        wants = {
            "cidr": CIDR,
            "lease": self.lease,
            "ingress": {"eth0": [f"192.168.9.{other + 1}", LEASES[other]]},
            "networks": [
                {"bridge": bridge, "subnet": subnet.replace("10.65.", prefix)}
                for bridge, (subnet, *_) in BRIDGES.items()
            ],
            "containers": [],
            "node_address": self.address,
            "default_access": "open",
        }
        try:
            for operation in ("want_sources", "apply"):
                driver.send({"op": operation, "wants": wants})
                assert "result" in driver.receive()
        finally:
            driver.close()

    def cards(self) -> list[tuple[Space, str]]:
        """Return every card of the host and of its container."""
        inside = [(self.container, "eth0"), (self, "veth0")] if self.container else []
        return [*inside, (self, "eth0")]


def cable(one: Space, name: str, two: Space, end: str) -> None:
    """Lay a cable between two namespaces."""
    one.ip(f"link add {name} type veth peer name {end} netns {two.pid}")


def open_pair(stack: ExitStack) -> tuple[Host, Host]:
    """Return two hosts on a LAN of their own."""
    lan = Space(stack)
    lan.ip(
        "link add lan type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set lan up"
    )
    return Host(stack, lan, 0), Host(stack, lan, 1)


def way_of(pair: tuple[Host, Host]) -> Way:
    """Return the way between the ends of a pair."""
    client, server = pair
    return Way(client.end.enter, server.end.enter, server.end_address)
