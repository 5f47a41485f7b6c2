"""A step of the demo: where one packet passes, and what changes on the way."""

import contextlib
from ipaddress import IPv4Address

from hostmesh_lab.demo.stage import WEB, Stage, require
from hostmesh_lab.errors import LabError
from hostmesh_lab.machines.capture import ECHO_REPLY, ECHO_REQUEST, Capture, Packet

_TTLS = [64, 63, 63, 62]
_SEEN_S = 5.0


def walk(stage: Stage) -> None:
    """Follow an echo request from a container on host1 to one on host2, and its reply back."""
    middle = stage.tunnel or "eth0"
    path = [("host1", "docker0"), ("host1", middle), ("host2", middle), ("host2", "docker0")]
    if stage.backend == "wireguard":  # its device has no Ethernet frames to compare
        path = [path[0], path[-1]]
    source, target = (IPv4Address(stage.containers[name]) for name in ("host1", "host2"))
    with contextlib.ExitStack() as stack:
        outer = [
            stack.enter_context(Capture(stage.host(name), "eth0", f"udp port {stage.tunnel_port}"))
            for name in (("host1", "host2") if stage.tunnel else ())
        ]
        captures = [
            stack.enter_context(Capture(stage.host(name), interface, f"icmp and host {target}"))
            for name, interface in path
        ]
        if not stage.host("host1").ping(target, container=WEB):
            raise LabError(f"no reply from {target}")
        requests = [_first(capture, ECHO_REQUEST) for capture in captures]
        replies = [_first(capture, ECHO_REPLY) for capture in reversed(captures)]
    names = [f"{name} {interface}" for name, interface in path]
    _check(stage, names, requests, source, target)
    _check(stage, names[::-1], replies, target, source)
    if outer:
        _check_outer(stage, [_first_udp(each) for each in outer])


def _first(capture: Capture, kind: int) -> Packet:
    what = "the request" if kind == ECHO_REQUEST else "the reply"
    return capture.wait_for(lambda packet: packet.icmp_type == kind, _SEEN_S, what)


def _first_udp(capture: Capture) -> Packet:
    return capture.wait_for(lambda packet: packet.protocol == "udp", _SEEN_S, "the outer packet")


def _check_outer(stage: Stage, packets: list[Packet]) -> None:
    """The tunnel's own headers: from node address to node address, past the router between."""
    ends = tuple(IPv4Address(stage.host(name).address) for name in ("host1", "host2"))
    for name, packet in zip(("host1", "host2"), packets, strict=True):
        shown = f"{packet.src} > {packet.dst}  UDP {stage.tunnel_port}"
        stage.note(f"{name} eth0 outer ttl {packet.ttl}  {shown}")
        require(
            stage.behind_nat or (packet.src, packet.dst) == ends,
            f"on {name} the outer packet is not the hosts' own",
        )
    routed = stage.lab.topology.place(1) != stage.lab.topology.place(2)
    hops = packets[0].ttl - packets[1].ttl
    require(hops == int(routed), f"the outer TTL falls by {hops} on the way")


def _check(
    stage: Stage, names: list[str], packets: list[Packet], source: IPv4Address, target: IPv4Address
) -> None:
    for name, packet in zip(names, packets, strict=True):
        addresses = f"{packet.src} > {packet.dst}  {packet.src_mac} > {packet.dst_mac}"
        stage.note(f"{name:<14} ttl {packet.ttl}  {addresses}")
        require(
            (packet.src, packet.dst) == (source, target),
            f"on {name} the packet goes from {packet.src} to {packet.dst},"
            f" not from {source} to {target}",
        )
    ttls = [packet.ttl for packet in packets]
    wanted = _TTLS if len(packets) == len(_TTLS) else [_TTLS[0], _TTLS[-1]]
    require(ttls == wanted, f"the packet's TTLs are {ttls}, not {wanted}")
    if stage.backend == "wireguard":
        return
    hops = [(packet.src_mac, packet.dst_mac) for packet in packets]
    require(hops[1] == hops[2], "the packet changes between the two hosts")
    require(
        len({hops[0], hops[1], hops[3]}) == 3, "the MAC addresses do not change from link to link"
    )
