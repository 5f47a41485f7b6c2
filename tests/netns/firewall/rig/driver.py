"""Runs the agent's firewall in a network namespace of a test: JSON lines in, JSON lines out.

One process per host, because python-iptables stays bound to the namespace it was first used in.
"""

import dataclasses
import json
import sys
from functools import partial
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

import structlog

from agent.docker.service.dockerd_process import DaemonProcess
from agent.errors import HostmeshError
from agent.kernel.firewall import FirewallReport, RuleMonitor, open_firewall
from agent.mesh.backends.base import TunnelPort
from agent.mesh.firewall import DesiredFirewall, slice_member
from agent.mesh.firewall.desired import desired_firewall
from agent.model import (
    NETWORKS_LEVEL,
    Access,
    Attachment,
    Binding,
    Container,
    DockerFacts,
    DockerNetwork,
)
from agent.model.objects import SetMember
from tests.unit.firewall.wanted import world_of


def container_of(said: dict[str, Any]) -> Container:
    """Networks are named by their bridges: ``{"networks": {"br-app": "10.65.128.2"}, …}``."""
    return Container(
        id=said["name"],
        name=said["name"],
        attachments=tuple(
            Attachment(bridge, IPv4Address(address), "")
            for bridge, address in said["networks"].items()
        ),
        bindings=frozenset(
            Binding(protocol, port, ip_address(shown_at))
            for protocol, port, shown_at in said.get("published", ())
        ),
    )


def wants_of(said: dict[str, Any]) -> DesiredFirewall:
    docker = DockerFacts(
        reachable=True,
        firewall_backend=said.get("docker_backend", ""),
        containers=tuple(map(container_of, said["containers"])),
        networks=tuple(
            DockerNetwork(
                id=network["bridge"],
                name=network["bridge"],
                bridge=network["bridge"],
                subnet=IPv4Network(network["subnet"]),
                internal=network.get("internal", False),
                default=network["bridge"] == "docker0",
                labels=network.get("labels", {}),
            )
            for network in said["networks"]
        ),
    )
    ingress = {
        name: frozenset(map(IPv4Network, sources)) for name, sources in said["ingress"].items()
    }
    world = world_of(
        IPv4Network(said["cidr"]),
        IPv4Network(said["lease"]),
        docker,
        access=Access(said.get("default_access", "published")),
        previous=tuple(map(IPv4Network, said.get("previous", []))),
        link=next(iter(ingress)),
        node_address=IPv4Address(said["node_address"]),
    )
    assert world.config is not None
    world = dataclasses.replace(
        world, config=dataclasses.replace(world.config, level=NETWORKS_LEVEL)
    )
    wanted = desired_firewall(world, Access(said.get("host_limit", "open")), ingress)
    tunnels = tuple(TunnelPort(*each) for each in said.get("tunnels", ()))
    return dataclasses.replace(
        wanted,
        tunnels=tunnels,
        closed_endpoints=tuple(
            (IPv4Address(address), port) for address, port in said.get("closed_endpoints", ())
        ),
        closed_ports=tuple(said.get("closed_ports", ())),
    )


def slices_of(said: dict[str, Any]) -> tuple[SetMember, ...]:
    """``{"slices": {"web": ["10.66.0.0/24"]}}``: what counts of each mesh network."""
    return tuple(
        slice_member(name, IPv4Network(subnet))
        for name, subnets in said.get("slices", {}).items()
        for subnet in subnets
    )


def plain(report: Any) -> Any:  # noqa: ANN401
    return dataclasses.asdict(report) if isinstance(report, FirewallReport) else report


def dockerd_of(request: dict[str, Any]) -> DaemonProcess | None:
    pid = request["dockerd"]
    return None if pid is None else DaemonProcess(pid, ("dockerd",), age_s=3600.0)


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    firewall = open_firewall(sys.argv[1])
    events: list[list[str]] = []
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "watch":
            events.clear()
            RuleMonitor(
                lambda event: events.append(list(event.by)), own_pids=firewall.own_pids
            ).start()
            print(json.dumps({"result": None}), flush=True)
            continue
        if request["op"] == "events":
            print(json.dumps({"result": events}), flush=True)
            events.clear()
            continue
        if request["op"] == "later":  # half a minute has passed
            firewall._choice._look_again_s = 0.0
            print(json.dumps({"result": None}), flush=True)
            continue
        if request["op"] == "reopen":
            firewall = open_firewall(*request["arguments"], dockerd=partial(dockerd_of, request))
            print(json.dumps({"result": None}), flush=True)
            continue
        operation = getattr(firewall, request["op"])
        arguments = request.get("arguments", [])
        if "wants" in request:
            arguments = [wants_of(request["wants"])]
            firewall.want_sources(arguments[0], slices_of(request["wants"]))
        if request["op"] == "close":
            arguments = [(IPv4Network(request["arguments"][0]),), request["arguments"][1:]]
        try:
            reply = {"result": plain(operation(*arguments))}
        except HostmeshError as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(reply, default=str), flush=True)


main()
