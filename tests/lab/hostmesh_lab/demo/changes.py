"""Steps of the demo: a host joins under traffic, a host leaves, a host loses its power."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Interface

from hostmesh_lab.demo.mesh import check_docker, check_pair, check_routes
from hostmesh_lab.demo.stage import MESH, READY_S, WEB, Stage, require
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

_GONE_S = 1.0


def fourth_host(stage: Stage) -> None:
    """The three are not touched; their traffic goes on; each of them reaches the fourth."""
    traffic = [
        Pinger(stage.host(name), stage.containers[peer], container=WEB)
        for name, peer in (("host1", "host2"), ("host2", "host3"), ("host3", "host1"))
    ]
    try:
        for pinger in traffic:
            pinger.wait_reply(10, "the traffic between the three")
        host = stage.lab.join(replace(stage.lab.host_defaults(), agent=False))
        _first_reply(stage, host)
        host.set_autostart(agent=True)
        stage.lab.wait_ready(READY_S)
        check_docker(host, stage.learn_subnet(host.name))
        address = stage.add_container(host.name)
        for name in [name for name in stage.containers if name != host.name]:
            check_pair(stage, name, host.name)
            check_pair(stage, host.name, name)
            check_routes(stage, stage.host(name))
        stage.note(f"every host's container reaches {address} on {host.name}, and back")
    finally:
        for pinger in traffic:
            pinger.stop()
    lost = [number for pinger in traffic for number in pinger.missed()]
    require(not lost, f"{len(lost)} packets of the traffic between the three were lost")
    answered = sum(len(pinger.replies) for pinger in traffic)
    stage.note(f"traffic between the three meanwhile: {answered} replies, none lost")


def _first_reply(stage: Stage, host: Host) -> None:
    """Time from the start of the agent's process to the first reply over the new route."""
    began = time.monotonic()
    host.start_agent()
    address = wait_until(
        lambda: _mesh_address(host), READY_S, f"docker0 of {host.name} in {MESH}", every_s=0.05
    )
    pinger = Pinger(stage.host("host1"), address, container=WEB, every_s=0.05)
    try:
        answered = pinger.wait_reply(READY_S, f"host1's container from {host.name}'s {address}")
    finally:
        pinger.stop()
    stage.note(f"{host.name}: {answered - began:.2f} s from its agent's start to the first reply")


def _mesh_address(host: Host) -> str:
    for item in host.addresses("docker0"):
        if IPv4Interface(item).ip in MESH:
            return str(IPv4Interface(item).ip)
    return ""


def host_leaves(stage: Stage) -> None:
    """One command on the host that leaves; the others forget it by themselves."""
    leaver, others = stage.host("host3"), [h for n, h in stage.lab.hosts.items() if n != "host3"]
    leaver.remove_container(WEB)
    leaver.docker("network", "rm", "project")
    subnet = str(stage.subnets["host3"])
    with ThreadPoolExecutor(len(others)) as pool:
        began = time.monotonic()
        leaver.agentctl("leave")
        returned = time.monotonic()
        waits = [
            pool.submit(_wait_forgotten, stage, host, subnet, leaver.address) for host in others
        ]
        gone = max(wait.result() for wait in waits)
    require(
        gone - returned < _GONE_S,
        f"{subnet} was gone everywhere only after {gone - returned:.2f} s",
    )
    _require_clean(leaver)
    del stage.subnets["host3"], stage.containers["host3"]
    stage.note(
        f"agentctl leave took {returned - began:.2f} s; {subnet} gone from every host"
        f" {max(0.0, gone - returned):.2f} s later, nothing of Hostmesh is left on host3"
    )


def _wait_forgotten(stage: Stage, host: Host, subnet: str, address: str) -> float:
    sources = f"hostmesh-in-{stage.tunnel or 'eth0'}"

    def forgotten() -> bool:
        if any(item["dst"] == subnet for item in host.mesh_routes()):
            return False
        members = host.run(["ipset", "list", sources]).stdout.split()
        return address not in members

    wait_until(forgotten, 10, f"{host.name} forgets {subnet} and {address}", every_s=0.02)
    return time.monotonic()


def _require_clean(host: Host) -> None:
    require(not host.mesh_routes(), f"{host.name} still has routes of the mesh")
    links = host.run(["ip", "-o", "link", "show"]).stdout
    require(": hm-" not in links, f"{host.name} still has a link of Hostmesh")
    for table in ("raw", "mangle", "nat", "filter"):
        left = [line for line in host.iptables(table) if "HOSTMESH" in line]
        require(not left, f"{host.name} still has rules of Hostmesh: {left[:1]}")
    sets = host.run(["ipset", "list", "-n"]).stdout.split()
    require(
        not [name for name in sets if name.startswith("hostmesh")],
        f"{host.name} still has a set of Hostmesh",
    )


def power_cut(stage: Stage) -> None:
    """Its disk and its machine-id stay; its kernel state and its boot id do not."""
    host = stage.host("host2")
    before = stage.subnets["host2"]
    host.kill()
    stage.note("host2: power cut")
    host.boot()
    stage.lab.wait_ready(READY_S, ["host2"])
    after = stage.learn_subnet("host2")
    require(after == before, f"host2 came back with {after}, it had {before}")
    host.docker("start", WEB)
    stage.containers["host2"] = str(host.container_address(WEB))
    for peer in [name for name in stage.containers if name != "host2"]:
        check_pair(stage, "host2", peer)
        check_pair(stage, peer, "host2")
    stage.note(f"host2 is back with {after}; its containers reach the others and are reached")
