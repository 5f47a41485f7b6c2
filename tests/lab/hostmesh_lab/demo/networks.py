"""A step of the demo: one Docker network that spans the hosts, and nothing else reaches into it."""

from itertools import pairwise, permutations

from hostmesh_lab.demo.stage import READY_S, WEB, Stage, require
from hostmesh_lab.machines.host import Host
from hostmesh_lab.wait import wait_until

_NAME = "shop"
_PORT = 6379
"""Not published: only the network's own containers may reach it."""


def one_network(stage: Stage) -> None:
    """Create a network for the whole mesh, use it from every host, and remove it again."""
    first, hosts = stage.host("host1"), stage.lab.hosts
    first.agentctl("network", "create", _NAME)
    stage.note(f"host1# agentctl network create {_NAME}")
    command = ["httpd", "-f", "-p", str(_PORT), "-h", "/www"]
    urls = {
        name: f"http://{host.start_container(_NAME, network=_NAME, command=command)}:{_PORT}"
        for name, host in hosts.items()
    }
    for name, peer in permutations(hosts, 2):
        wait_until(
            lambda name=name, peer=peer: hosts[name].fetch(  # type: ignore[misc]
                f"{urls[peer]}/cgi-bin/whoami", container=_NAME
            ),
            READY_S,
            f"the container of {name} on network {_NAME} to reach that of {peer}",
        )
    stage.note(f"containers of every host reach each other's port {_PORT}, which none publishes")
    for name, peer in pairwise((*hosts, "host1")):
        require(
            not hosts[name].fetch(f"{urls[peer]}/", container=WEB, timeout_s=1),
            f"a container of {name} outside network {_NAME} reaches into it on {peer}",
        )
    stage.note(f"containers outside network {_NAME} reach none of them")
    stage.note(first.agentctl("network", "inspect", _NAME).stdout)
    for host in hosts.values():
        host.remove_container(_NAME)
    first.agentctl("network", "rm", _NAME)
    require(not any(map(_has_network, hosts.values())), f"Docker still has network {_NAME}")
    stage.note(f"host1# agentctl network rm {_NAME}: no host has it any more")


def _has_network(host: Host) -> bool:
    return _NAME in host.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
