"""Figures of the firewall, each as a ratio to something measured in the same run.

    .venv/bin/python -m tests.bench.host.firewall [--quick] [--rounds N] [--seconds S]

Transfers are between two hosts in namespaces. A quick run has iptables-nft only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import structlog

from agent.kernel.firewall import Firewall, open_firewall
from agent.mesh.firewall import DesiredFirewall
from agent.mesh.firewall.desired import desired_firewall
from agent.model import DockerFacts, DockerNetwork
from tests.bench.harness import Bench, interleave
from tests.bench.program import Options, main
from tests.bench.statistic import Goal
from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Process
from tests.netns.firewall.rig.rig import BRIDGES, HERE, Namespace
from tests.unit.firewall.wanted import world_of
from tests.waiting import eventually

CIDR = IPv4Network("10.64.0.0/10")
_SEND = """
import socket, sys, time
client = socket.create_connection((sys.argv[1], 5001))
chunk, sent, ends = bytes(1 << 17), 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    sent += client.send(chunk)
client.shutdown(socket.SHUT_WR)
client.recv(1)
print(sent)
"""
_RECEIVE = """
import socket
listener = socket.create_server(("0.0.0.0", 5001))
print("ready", flush=True)
while True:
    taken, _ = listener.accept()
    while taken.recv(1 << 18):
        pass
    taken.sendall(b".")
    taken.close()
"""


def sources(peers: int) -> Iterator[IPv4Network]:
    for number in range(peers):
        yield IPv4Network(int(IPv4Address("172.16.0.2")) + number)
        yield IPv4Network((int(IPv4Address("10.80.0.0")) + (number << 8), 24))


def wants(lease: str = "10.65.0.0/16", peers: int = 10) -> DesiredFirewall:
    networks = tuple(
        DockerNetwork(
            id=bridge, name=bridge, bridge=bridge, subnet=IPv4Network(subnet),
            default=bridge == "docker0", internal=bridge == "br-int",
        )
        for bridge, (subnet, *_) in BRIDGES.items()
    )  # fmt: skip
    world = world_of(CIDR, IPv4Network(lease), DockerFacts(reachable=True, networks=networks))
    return desired_firewall(world, ingress={"eth0": frozenset(sources(peers))})


def ours_of(text: str) -> int:
    return sum(line.startswith("-A HOSTMESH-") for line in text.split("\n"))


def settle(firewall: Firewall, wanted: DesiredFirewall) -> None:
    """Apply it until nothing differs: a pass changes as many sources as it has time for."""
    firewall.want_sources(wanted)
    eventually(lambda: not firewall.apply(wanted).differs, 60)


def rule_count(bench: Bench, firewall: Firewall, variant: str) -> None:
    counts = {}
    for peers in (10, 10_000):
        settle(firewall, wants(peers=peers))
        saved = subprocess.run(
            [f"iptables-{variant}-save"], capture_output=True, text=True, check=True
        )
        counts[peers] = ours_of(saved.stdout)
    bench.fact(f"{variant}: rules at 10 and at 10,000 peers", list(counts.values()))


def idle_pass(bench: Bench, firewall: Firewall, variant: str, peers: int, rounds: int) -> None:
    """A pass that changes nothing against the one program run that it cannot do without."""
    wanted = wants(peers=peers)
    settle(firewall, wanted)

    def ours() -> float:
        began = spent()
        assert not firewall.apply(wanted).differs
        return spent() - began

    def other() -> float:
        began = spent()
        subprocess.run([f"iptables-{variant}-save"], capture_output=True, text=True, check=True)
        return spent() - began

    what = f"{variant}, {peers} peers: a pass that changes nothing, CPU time"
    bench.compare(what, ours, f"iptables-{variant}-save", other, rounds=rounds, goal=Goal(2))


def spent() -> float:
    """Seconds of CPU that this process and its ended children took: load does not change it."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class TwoHosts:
    """container - host - LAN - host - container, Docker 28.5's rules on both hosts."""

    LEASES = ("10.65.0.0/16", "10.66.0.0/16")

    def __init__(self, variant: str, stack: contextlib.ExitStack) -> None:
        self.variant = variant
        self.at: dict[str, Namespace] = {}
        for name in ("lan", "h0", "h1", "c0", "c1"):
            self.at[name] = Namespace(name)
            stack.callback(self.at[name].close)
        for each in self.at.values():
            each.wait()
        self.at["lan"].ip("link add lan type bridge", "link set lan up")
        for index, lease in enumerate(self.LEASES):
            host, prefix = self.at[f"h{index}"], lease.split(".0.0/")[0]
            self._cable(host, "eth0", self.at["lan"], f"h{index}", f"192.168.9.{index + 1}/24")
            self.at["lan"].ip(f"link set h{index} master lan", f"link set h{index} up")
            host.ip("link add docker0 type bridge", f"addr add {prefix}.0.1/17 dev docker0",
                    "link set docker0 up",
                    f"route add {self.LEASES[1 - index]} via 192.168.9.{2 - index}")  # fmt: skip
            self._cable(self.at[f"c{index}"], "eth0", host, "veth0", f"{prefix}.0.2/17")
            host.ip("link set veth0 master docker0", "link set veth0 up")
            self.at[f"c{index}"].ip(f"route add default via {prefix}.0.1")
            host.sysctl(ip_forward=1)
        self.states = {"ours": self._ours(stack), "minimal": self._minimal()}

    def _cable(self, one: Namespace, name: str, two: Namespace, end: str, address: str) -> None:
        words = f"ip link add {name} netns {one.pid} type veth peer name {end} netns {two.pid}"
        subprocess.run(words.split(), check=True)
        one.ip(f"addr add {address} dev {name}", f"link set {name} up")

    def _reset(self, host: Namespace, index: int) -> None:
        empty = "".join(
            f"*{table}\n:{chain} ACCEPT\nCOMMIT\n"
            for table, chain in (("filter", "FORWARD"), ("nat", "OUTPUT"), ("raw", "OUTPUT"))
        )
        host.run(f"iptables-{self.variant}-restore", stdin=empty)
        text = docker_text("28.5").replace("10.65.", f"10.{65 + index}.")
        host.run(f"iptables-{self.variant}-restore", "--noflush", stdin=text)
        host.run(f"iptables-{self.variant}", "-P", "FORWARD", "DROP")

    def _saved(self, host: Namespace) -> str:
        return host.run(f"iptables-{self.variant}-save")

    def _ours(self, stack: contextlib.ExitStack) -> list[str]:
        found = []
        for index, lease in enumerate(self.LEASES):
            host = self.at[f"h{index}"]
            self._reset(host, index)
            driver = Process(host.enter(sys.executable, str(HERE / "driver.py"), self.variant))
            stack.callback(driver.close)
            networks = [
                {"bridge": bridge, "subnet": subnet.replace("10.65.", f"10.{65 + index}.")}
                for bridge, (subnet, *_) in BRIDGES.items()
            ]
            said = {
                "cidr": str(CIDR), "lease": lease, "default_access": "open", "containers": [],
                "ingress": {"eth0": [f"192.168.9.{2 - index}/32", self.LEASES[1 - index]]},
                "node_address": f"192.168.9.{index + 1}", "networks": networks,
            }  # fmt: skip
            driver.send({"op": "apply", "wants": said})
            assert "result" in driver.receive()
            found.append(self._saved(host))
        return found

    def _minimal(self) -> list[str]:
        """Return the three rules that an operator would write by hand (facts of Docker 28)."""
        found = []
        for index, lease in enumerate(self.LEASES):
            host = self.at[f"h{index}"]
            self._reset(host, index)
            for rule in (
                f"-t raw -I PREROUTING -i eth0 -s {CIDR} -d {lease} -j ACCEPT",
                f"-I DOCKER-USER -i eth0 -s {CIDR} -d {lease} -j ACCEPT",
                f"-t nat -I POSTROUTING -s {lease} -d {CIDR} -j ACCEPT",
            ):
                host.run(f"iptables-{self.variant}", *rule.split())
            found.append(self._saved(host))
        return found

    def use(self, state: str) -> None:
        for index, text in enumerate(self.states[state]):
            self.at[f"h{index}"].run(f"iptables-{self.variant}-restore", stdin=text)

    def throughput(self, seconds: float) -> float:
        """Gbit/s of one TCP stream between the two containers."""
        sender = self.at["c0"].enter(sys.executable, "-c", _SEND, "10.66.0.2", str(seconds))
        done = subprocess.run(
            sender, capture_output=True, text=True, check=True, timeout=seconds + 20
        )
        return int(done.stdout) * 8 / seconds / 1e9


@contextlib.contextmanager
def receiver(at: Namespace) -> Iterator[None]:
    argv = at.enter(sys.executable, "-c", _RECEIVE)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def throughput(bench: Bench, variant: str, seconds: float, rounds: int) -> None:
    with contextlib.ExitStack() as stack:
        hosts = TwoHosts(variant, stack)
        stack.enter_context(receiver(hosts.at["c1"]))

        def transfer(state: str) -> float:
            hosts.use(state)
            return hosts.throughput(seconds)

        ours, minimal = interleave(
            (lambda: transfer("ours"), lambda: transfer("minimal")), rounds=rounds
        )
    what = f"{variant}: throughput between containers of two hosts"
    goal = Goal(0.97, at_most=False)
    bench.ratio(what, ours, "three rules by hand", minimal, unit="Gbit/s", goal=goal)


def measure(bench: Bench, options: Options) -> None:
    """Measure the passes, and the throughput beside three rules by hand."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    variants = ("nft",) if options.quick else ("nft", "legacy")
    with tempfile.NamedTemporaryFile() as lock:
        os.environ["XTABLES_LOCKFILE"] = lock.name  # not the machine's
        for variant in variants:
            subprocess.run(
                [f"iptables-{variant}-restore", "--noflush"],
                input=docker_text("28.5"), text=True, check=True,
            )  # fmt: skip
            firewall = open_firewall(variant)
            rule_count(bench, firewall, variant)
            for peers in (10, 10_000):
                idle_pass(bench, firewall, variant, peers, 10 * options.rounds)
            firewall.remove()
    for variant in variants:
        throughput(bench, variant, options.seconds, options.rounds)


if __name__ == "__main__":
    main(
        measure,
        lambda parser: parser.add_argument(
            "--seconds", type=float, default=1.0, help="length of each transfer"
        ),
    )
