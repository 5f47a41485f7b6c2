"""The command line's part for the underlay: topologies, cables, what a link drops, names."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from hostmesh_lab.errors import LabError
from hostmesh_lab.lab import Lab
from hostmesh_lab.machines.dns import DnsServer
from hostmesh_lab.underlay.topology import BACKENDS, NAMED, ONE_LAN, Topology, named


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a topology and a backend; the help describes each topology."""
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0])
    parser.add_argument("--topology", choices=tuple(NAMED), default=ONE_LAN.name)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = [f"  {each.name:<11} {each.about}{_without(each)}" for each in NAMED.values()]
    parser.epilog = "topologies:\n" + "\n".join(lines)


def _without(topology: Topology) -> str:
    names = ", ".join(each for each in BACKENDS if topology.obstacle(each))
    return f"\n  {'':<11} (not for {names})" if names else ""


def why_not_ready(topology: Topology, backend: str) -> str:
    """Say why the agents of a lab are not waited for; "" if they can become ready."""
    obstacle = topology.obstacle(backend)
    return f"not waiting for the agents on topology {topology.name}: {obstacle}" if obstacle else ""


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that change a running lab's underlay."""
    cable = add("cable", _cable, "Cut a cable or mend it: cable host1 down; cable host1 up")
    cable.add_argument("machine")
    cable.add_argument(
        "state", choices=("down", "silent", "up"), help="no carrier; drops all unnoticed; mended"
    )
    cable.add_argument("--device", default="eth0", help="which card's (default: eth0)")
    drop = add(
        "drop-udp", _drop_udp, "Let a link drop UDP to these ports, or to none: drop-udp lan 51820"
    )
    drop.add_argument("link")
    drop.add_argument("port", nargs="*", type=int)
    names = add("dns", _dns, "Choose what the hosts' DNS server answers, or whether it does.")
    names.add_argument("do", choices=tuple(_DNS_VERBS), metavar="DO", help=", ".join(_DNS_VERBS))
    names.add_argument("word", nargs="*", help="what DO takes; see below")
    names.formatter_class = argparse.RawDescriptionHelpFormatter
    names.epilog = _DNS_HELP


def _cable(arguments: argparse.Namespace) -> int:
    Lab.open(arguments.name).machine(arguments.machine).cable(arguments.state, arguments.device)
    return 0


def _drop_udp(arguments: argparse.Namespace) -> int:
    Lab.open(arguments.name).drop_udp(arguments.link, arguments.port)
    return 0


_DNS_HELP = """\
  dns answer api.example 198.51.100.7 fd00::7 'TXT hello'   these records, none other
  dns large api.example 100        100 addresses: cut off over UDP, whole over TCP
  dns fail SERVFAIL api.example    or NXDOMAIN, REFUSED, SILENT, …; without a name: all
  dns reset                        answers as at first: world.example
  dns stop, dns start              its machine refuses queries at once
  dns freeze, dns thaw             queries are taken and not answered
  dns queries                      what was asked, and how it was answered"""


def _dns(arguments: argparse.Namespace) -> int:
    act, server = _DNS_VERBS[arguments.do], Lab.open(arguments.name).dns
    try:
        call = inspect.signature(act).bind(server, *arguments.word)
    except TypeError as error:
        raise LabError(f"dns {arguments.do}: {error}", "hostmesh-lab dns --help") from error
    act(*call.args)
    return 0


def _large(server: DnsServer, name: str, count: str = "100") -> None:
    if not count.isdecimal():
        raise LabError(f"{count!r} is no number of addresses", "dns large NAME 100")
    server.large(name, int(count))


def _print_queries(server: DnsServer, name: str = "") -> None:
    for each in server.queries(name):
        cut = ", cut off" if each.truncated else ""
        print(f"{each.client:<16} {each.protocol} {each.type:<5} {each.name}  {each.rcode}{cut}")


_DNS_VERBS: dict[str, Callable[..., object]] = {
    "answer": DnsServer.answer,
    "large": _large,
    "fail": DnsServer.fail,
    "reset": DnsServer.reset,
    "stop": DnsServer.stop,
    "start": DnsServer.start,
    "freeze": DnsServer.freeze,
    "thaw": DnsServer.thaw,
    "queries": _print_queries,
}


def chosen(arguments: argparse.Namespace) -> Topology:
    """Return the topology that the command line names."""
    return named(arguments.topology)


def described(lab: Lab) -> dict[str, Any]:
    """Return the underlay's part of `status -o json`."""
    links = [
        {"name": link.name, "v4": link.v4, "v6": link.v6, "mtu": link.mtu}
        for link in lab.topology.links
    ]
    return {"topology": lab.topology.name, "links": links}
