"""The layers between bare hosts and containers of two hosts, added one at a time.

    .venv/bin/python -m tests.bench.data_path.distance [--rounds N]

Each layer has a pair of hosts in namespaces. All pairs are there at once and measured in turn. A
figure is the time that a layer adds to the layer that it is added to, on both hosts together: the
two hosts and the wire between them share this machine's processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from tests.bench.data_path.load import LOADS, serve
from tests.bench.data_path.pair import Host, open_pair, way_of
from tests.bench.harness import Bench, interleave
from tests.bench.program import Options, main

BARE, BY_HAND, HOSTMESH = "bare hosts", "Docker's rules and three by hand", "Hostmesh's rules"
_TRACKED = "connection tracking"
_KIB64_BITS = 64 * 1024 * 8
Add = Callable[[Host], object]


@dataclass(frozen=True)
class Layer:
    """A layer: what to add on either host, and the name of the layer below."""

    name: str
    upon: str
    add: tuple[Add, ...]


@dataclass(frozen=True)
class Cost:
    """The time that one of something takes, in microseconds, from the rate of a measure."""

    of: str
    measure: str
    time_us: Callable[[float], float]


def track_connections(host: Host) -> None:
    """Have the kernel track connections, by a rule that matches none."""
    rule = "-A FORWARD -m conntrack --ctstate INVALID -j DROP"
    host.run("iptables-nft", *rule.split())


def check_sources(host: Host) -> None:
    """Check by which card a source is reached, loosely, as Debian does."""
    host.sysctl("net.ipv4.conf.all.rp_filter", 2)


def merge_received(host: Host) -> None:
    """Merge packets where a card receives them (GRO)."""
    for space, card in host.cards():
        space.run("ethtool", "-K", card, "gro", "on")


def steer_received(host: Host) -> None:
    """Let every processor take the packets that a card receives (RPS)."""
    every = f"{(1 << (os.cpu_count() or 1)) - 1:x}"
    for space, card in host.cards():
        mask = f"/sys/class/net/{card}/queues/rx-0/rps_cpus"
        script = f"mount -t sysfs sysfs /sys && echo {every} >{mask}"
        space.run("unshare", "--mount", "sh", "-ec", script)


LAYERS = (
    Layer("a namespace by veth, routed", BARE, (Host.add_container,)),
    Layer("a bridge", "a namespace by veth, routed", (Host.add_bridge,)),
    Layer("bridge-nf-call-iptables", "a bridge", (partial(Host.filter_bridges, on=True),)),
    Layer("rp_filter", "bridge-nf-call-iptables", (check_sources,)),
    Layer(_TRACKED, "rp_filter", (track_connections,)),
    Layer(BY_HAND, _TRACKED, (Host.add_docker, Host.add_rules_by_hand)),
    Layer(HOSTMESH, _TRACKED, (Host.add_docker, Host.add_rules)),
    Layer("no bridge-nf-call-iptables", HOSTMESH, (partial(Host.filter_bridges, on=False),)),
    Layer("GRO of every veth", HOSTMESH, (merge_received,)),
    Layer("RPS of every veth", HOSTMESH, (steer_received,)),
)
COSTS = (
    Cost("64 KiB of a TCP stream", "TCP, 1 stream", lambda gbit_s: _KIB64_BITS / gbit_s / 1e3),
    Cost("a request and its reply", "request/response", lambda rate: 1e6 / rate),
    Cost("a small packet", "small packets", lambda rate: 1e6 / rate),
)


def measure(bench: Bench, options: Options) -> None:
    """Build a pair for each layer, and measure all of them by each load."""
    with ExitStack() as stack:
        pairs = {BARE: open_pair(stack)}
        for layer in LAYERS:
            pair = pairs[layer.name] = open_pair(stack)
            for host in pair:
                build(host, layer)
        ways = {name: way_of(pair) for name, pair in pairs.items()}
        for way in ways.values():
            serve(way, stack, programs=("iperf3", "qperf"))
        bench.fact("queues of the cards", queues(pairs[HOSTMESH][0]))
        bench.settle()
        for cost in COSTS:
            (load,) = (each for each in LOADS if each.measures[0].name == cost.measure)
            runs = [partial(load.run, way) for way in ways.values()]
            found = dict(zip(ways, interleave(runs, options.rounds), strict=True))
            report(
                bench,
                cost,
                {
                    name: [cost.time_us(one[cost.measure]) for one in rounds]
                    for name, rounds in found.items()
                },
            )


def build(host: Host, layer: Layer) -> None:
    """Build a layer upon all layers below it."""
    for below in LAYERS:
        if below.name == layer.upon:
            build(host, below)
    for add in layer.add:
        add(host)


def report(bench: Bench, cost: Cost, times_us: Mapping[str, Sequence[float]]) -> None:
    """Keep the time of each layer beyond the one that it is added to, and the whole distance."""
    for layer in LAYERS:
        name = f"{cost.of}: {layer.name}"
        bench.difference(name, times_us[layer.name], layer.upon, times_us[layer.upon], unit="µs")
    bench.difference(f"{cost.of}: the whole", times_us[HOSTMESH], BARE, times_us[BARE], unit="µs")


def queues(host: Host) -> str:
    """Return the queueing disciplines of a host's cards: one that limits would be a layer."""
    shown = host.run("tc", "qdisc", "show").splitlines()
    return ", ".join(sorted({line.split()[1] for line in shown}))


if __name__ == "__main__":
    main(measure)
