"""One host with bridges and containers, a peer and a stranger, in namespaces of their own.

    peer 192.168.9.2 (containers 10.66.0.5) --+
    stranger 192.168.9.3 (and the world) -----+-- LAN -- host 192.168.9.1, lease 10.65.0.0/16
                                                          docker0 10.65.0.0/17:    c0 .0.2
                                                          br-app  10.65.128.0/24:  a1 .128.2
                                                          br-int  10.65.129.0/24:  i1 .129.2 (internal)
                                                          br-old  172.18.0.0/24:   o1 .0.2

Docker itself is not here: its rules are, in its own words for each engine (see dockerrules).
"""  # noqa: E501

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.netns.firewall.rig.probing import DEADLINE_S, Probe, Prober, Process, reach

HERE = Path(__file__).parent

CIDR, LEASE = "10.64.0.0/10", "10.65.0.0/16"
HOST, PEER, STRANGER = "192.168.9.1", "192.168.9.2", "192.168.9.3"
PEER_SUBNET, PEER_CONTAINER = "10.66.0.0/16", "10.66.0.5"
C0, A1, I1, O1 = "10.65.0.2", "10.65.128.2", "10.65.129.2", "172.18.0.2"
BRIDGES = {
    "docker0": ("10.65.0.0/17", "10.65.0.1/17", "c0", C0),
    "br-app": ("10.65.128.0/24", "10.65.128.1/24", "a1", A1),
    "br-int": ("10.65.129.0/24", "10.65.129.1/24", "i1", I1),
    "br-old": ("172.18.0.0/24", "172.18.0.1/24", "o1", O1),
}
NETWORKS: tuple[dict[str, Any], ...] = tuple(
    {"bridge": bridge, "subnet": subnet, "internal": bridge == "br-int"}
    for bridge, (subnet, *_) in BRIDGES.items()
)
CONTAINERS: tuple[dict[str, Any], ...] = (
    {
        "name": "c0",
        "networks": {"docker0": C0},
        "published": [("tcp", 80, "0.0.0.0"), ("udp", 80, "0.0.0.0")],  # noqa: S104
    },
    {
        "name": "a1",
        "networks": {"br-app": A1},
        "published": [("tcp", 80, "0.0.0.0"), ("tcp", 80, "::")],  # noqa: S104
    },
    {"name": "i1", "networks": {"br-int": I1}},
    {"name": "o1", "networks": {"br-old": O1}},
)
WANTS: dict[str, Any] = {
    "cidr": CIDR,
    "lease": LEASE,
    "ingress": {"eth0": [PEER, PEER_SUBNET]},
    "networks": NETWORKS,
    "containers": CONTAINERS,
    "node_address": HOST,
}


_EMPTY = "*mangle\nCOMMIT\n*filter\n:FORWARD ACCEPT\nCOMMIT\n*nat\nCOMMIT\n*raw\nCOMMIT\n"
RESET = f" <<EOF\n{_EMPTY}EOF\n"


class Namespace:
    """A network and mount namespace with /run of its own, alive while its prober is."""

    def __init__(self, name: str) -> None:
        self.name = name
        inner = f"mount -t tmpfs tmpfs /run && exec {sys.executable} {HERE / 'prober.py'}"
        self.prober = Prober(["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", inner])
        self.pid = self.prober.process.pid

    def wait(self) -> None:
        self.prober.wait()

    def enter(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", "-m", *argv]

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        done = subprocess.run(
            self.enter(*argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{self.name}: {argv}: {done.stderr}"
        return done.stdout

    def ip(self, *commands: str) -> None:
        self.run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")

    def sysctl(self, **values: int) -> None:
        script = "; ".join(
            f"echo {value} > /proc/sys/net/ipv4/{key.replace('__', '/')}"
            for key, value in values.items()
        )
        self.run("sh", "-c", script)

    def ask(self, op: str, **values: object) -> int:
        return self.prober.ask(op, **values)

    def answers(self, count: int) -> dict[int, Any]:
        return self.prober.answers(count)

    def seen(self, how: str) -> set[str]:
        """Sources of what arrived since the last call."""
        return self.prober.seen(how)

    def close(self) -> None:
        self.prober.close()


class Rig:
    """The whole of the drawing above, and the agent's firewall on the host."""

    def __init__(self, variant: str, choose: str = "") -> None:
        self.variant = variant
        self._stack = contextlib.ExitStack()
        try:
            self._build()
            self.driver = self._driver(choose or variant)
        except BaseException:
            self._stack.close()
            raise

    def _build(self) -> None:
        names = ("lan", "host", "peer", "stranger", *(c for _, _, c, _ in BRIDGES.values()))
        self.at = {name: self._namespace(name) for name in names}
        for name in names:
            self.at[name].wait()
            self.at[name].ip("link set lo up")
        self.host = self.at["host"]
        self.at["lan"].ip("link add lan type bridge", "link set lan up")
        for name, address in (("host", HOST), ("peer", PEER), ("stranger", STRANGER)):
            self._plug(name, "lan", "lan", f"{address}/24")
        for bridge, (_, gateway, container, address) in BRIDGES.items():
            self.host.ip(
                f"link add {bridge} type bridge",
                f"addr add {gateway} dev {bridge}",
                f"link set {bridge} up",
            )
            self._plug(container, "host", bridge, f"{address}/{gateway.split('/')[1]}")
            self.at[container].ip(f"route add default via {gateway.split('/')[0]}")
        self.host.ip(f"route add 10.66.0.0/16 via {PEER}")
        self.at["peer"].ip(f"route add {LEASE} via {HOST}", f"addr add {PEER_CONTAINER}/32 dev lo")
        self.at["stranger"].ip(
            f"route add {LEASE} via {HOST}", f"route add 172.18.0.0/24 via {HOST}"
        )
        self.host.sysctl(ip_forward=1)
        for name in names:
            self.at[name].sysctl(conf__all__rp_filter=0, conf__default__rp_filter=0)

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.close)
        return namespace

    def _plug(self, name: str, to: str, bridge: str, address: str) -> None:
        """A cable from eth0 of one namespace to a bridge of another."""
        subprocess.run(
            f"ip link add eth0 netns {self.at[name].pid} type veth"
            f" peer name v{name} netns {self.at[to].pid}".split(),
            check=True,
            timeout=DEADLINE_S,
        )
        self.at[to].ip(f"link set v{name} master {bridge}", f"link set v{name} up")
        self.at[name].ip(f"addr add {address} dev eth0", "link set eth0 up")
        self.at[name].sysctl(conf__eth0__rp_filter=0)

    def _driver(self, choose: str) -> Process:
        driver = Process(self.host.enter(sys.executable, "-m", f"{__package__}.driver", choose))
        self._stack.callback(driver.close)
        return driver

    def firewall(self, op: str, *arguments: object, **wants: object) -> Any:  # noqa: ANN401
        """Call the agent's firewall on the host. For check, apply, render: wants as keywords."""
        if op in {"check", "apply", "render"}:
            self.driver.send({"op": op, "wants": {**WANTS, **wants}})
        else:
            self.driver.send({"op": op, "arguments": arguments})
        reply = self.driver.receive()
        assert "result" in reply, reply
        return reply["result"]

    def reopen(self, variant: str, dockerd: int | None = None) -> None:
        """Open the agent's firewall anew; ``dockerd``: the process that is said to be it."""
        self.driver.send({"op": "reopen", "arguments": [variant], "dockerd": dockerd})
        assert self.driver.receive() == {"result": None}

    def reset(self) -> None:
        """No rule, no set, no flow, as at first."""
        script = "".join(f"iptables-{variant}-restore{RESET}" for variant in ("nft", "legacy"))
        self.host.run("sh", "-c", f"{script}ipset destroy; conntrack -F", check=False)
        self.reopen(self.variant)
        for variant in ("nft", "legacy"):
            assert not [line for line in self.save(variant=variant) if line.startswith("-A")]

    def iptables(self, *words: str, variant: str = "") -> str:
        return self.host.run(f"iptables-{variant or self.variant}", "-w", "5", *words)

    def restore(self, text: str, *, variant: str = "") -> None:
        self.host.run(f"iptables-{variant or self.variant}-restore", "--noflush", stdin=text)

    def save(self, *, variant: str = "") -> list[str]:
        """Every line but comments and counters."""
        text = self.host.run(f"iptables-{variant or self.variant}-save")
        lines = (line.split(" [")[0] if line.startswith(":") else line for line in text.split("\n"))
        return [line for line in lines if line and not line.startswith("#")]

    def members(self, name: str) -> list[str]:
        """Members of an ipset, in order; none when there is no such set."""
        text = self.host.run("ipset", "list", name, check=False)
        return sorted(text.partition("Members:\n")[2].split())

    def foreign(self) -> list[str]:
        """The lines that are not ours."""
        return [line for line in self.save() if "HOSTMESH-" not in line]

    def reach(self, *probes: Probe, timeout_s: float = 0.35) -> list[str | None]:
        """Return the answer to each probe, all sent at once: the source address seen by the other
        side ("yes" for ICMP), None when nothing came back."""
        return reach({name: each.prober for name, each in self.at.items()}, probes, timeout_s)

    def expect(self, *pairs: tuple[Probe, str | None]) -> None:
        """Assert what every probe gets, and print all that differ."""
        got = self.reach(*(probe for probe, _ in pairs))
        wrong = [
            f"{probe}: expected {wanted}, got {result}"
            for (probe, wanted), result in zip(pairs, got, strict=True)
            if result != wanted
        ]
        assert not wrong, "\n".join(wrong)

    def close(self) -> None:
        self._stack.close()


def conditions(report: dict[str, Any]) -> dict[str, str]:
    """Name to cause."""
    return {condition["name"]: condition["cause"] for condition in report["conditions"]}


@contextlib.contextmanager
def rig(variant: str, choose: str = "") -> Iterator[Rig]:
    made = Rig(variant, choose)
    try:
        yield made
    finally:
        made.close()
