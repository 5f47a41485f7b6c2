"""Steps of the demo: hosts join, containers talk, Docker's isolation stays."""

from ipaddress import IPv4Interface, IPv4Network
from itertools import permutations

from hostmesh_lab.demo.stage import READY_S, WEB, Stage, require
from hostmesh_lab.filesystems import lab_image
from hostmesh_lab.lab import CIDR
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay import topology
from hostmesh_lab.wait import wait_until

_REJECT = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"


def hosts_join(stage: Stage) -> None:
    """Create the mesh as an operator does, and look at what each host made of it."""
    first = stage.host("host1")
    wait_until(first.status, READY_S, "the agent of host1 answers agentctl")
    options = ["--cidr", CIDR, *(["--backend", stage.backend] if stage.tunnel else [])]
    first.agentctl("config", "init", *options)
    stage.note(f"host1# agentctl config init {' '.join(options)}")
    stage.lab.wait_ready(READY_S)
    for name, host in stage.lab.hosts.items():
        subnet = stage.learn_subnet(name)
        check_docker(host, subnet)
    for name, host in stage.lab.hosts.items():
        check_routes(stage, host)
        bridge = host.addresses("docker0")[0]
        stage.note(f"{name}  {host.address}  {stage.subnets[name]}  docker0 {bridge}")


def check_docker(host: Host, subnet: IPv4Network) -> None:
    """Check that docker0 and a network of Docker's own choice lie in the host's subnet."""
    found = host.addresses("docker0")
    require(
        bool(found) and all(IPv4Interface(item).network.subnet_of(subnet) for item in found),
        f"docker0 of {host.name} has {', '.join(found) or 'no address'}, outside {subnet}",
    )
    host.docker("network", "create", "project")
    made = IPv4Network(host.inspect("project")["IPAM"]["Config"][0]["Subnet"])
    require(made.subnet_of(subnet), f"a new network of {host.name} has {made}, outside {subnet}")


def check_routes(stage: Stage, host: Host) -> None:
    """Check that the kernel has one mesh route to each peer, by its node address or the tunnel."""
    routes = {item["dst"]: (item.get("gateway"), item.get("dev")) for item in host.mesh_routes()}
    for peer, subnet in stage.subnets.items():
        if peer != host.name:
            gateway = None if stage.backend == "wireguard" else str(subnet.network_address)
            want = (gateway, stage.tunnel) if stage.tunnel else (stage.host(peer).address, "eth0")
            require(
                routes.get(str(subnet)) == want,
                f"{host.name} routes {subnet} by {routes.get(str(subnet))}, not by {peer}'s {want}",
            )


def host_to_remote_container(stage: Stage) -> None:
    """The first operator's first failing test."""
    for name in stage.lab.hosts:
        stage.add_container(name)
    for name, peer in permutations(stage.lab.hosts, 2):
        target = stage.containers[peer]
        require(
            stage.host(name).ping(target), f"{name} gets no reply from {peer}'s container {target}"
        )
    stage.note(f"host1# ping {stage.containers['host2']}: answered, as is every other such ping")


def every_pair(stage: Stage) -> None:
    """Both ways, with the container's own address as the source."""
    for name, peer in permutations(stage.containers, 2):
        check_pair(stage, name, peer)
    count = len(stage.containers) * (len(stage.containers) - 1)
    stage.note(f"{count} directions, each container seen with its own address")


def check_pair(stage: Stage, name: str, peer: str) -> None:
    """A container reaches a peer's container, which sees its true address."""
    host, target = stage.host(name), stage.containers[peer]
    require(
        host.ping(target, container=WEB), f"{name}'s container gets no reply from {peer}'s {target}"
    )
    page = host.fetch(f"http://{target}/", container=WEB)
    require(page == lab_image.PAGE, f"{name}'s container does not get {peer}'s page but {page!r}")
    seen = (host.fetch(f"http://{target}/cgi-bin/whoami", container=WEB) or "").strip()
    require(
        seen == stage.containers[name],
        f"{peer} sees {seen or 'no client'} instead of {name}'s container {stage.containers[name]}",
    )


def isolation(stage: Stage) -> None:
    """Check that networks stay as closed and as open as Docker and the operator made them."""
    for host in stage.lab.hosts.values():
        rules = [line for line in host.iptables() if line.startswith("-A FORWARD ")]
        require(
            bool(rules) and rules[-1] == _REJECT,
            f"{host.name}: FORWARD does not end in the operator's REJECT",
        )
        require(
            "-A FORWARD -j DOCKER-USER" in rules,
            f"{host.name}: Docker's rules are gone from FORWARD",
        )
        masqueraded = any("MASQUERADE" in line for line in host.iptables("nat"))
        require(masqueraded, f"{host.name}: Docker's MASQUERADE is gone")
    stage.note(f"FORWARD of every host ends in: {_REJECT}")
    _networks_apart(stage)
    _strangers_out(stage)
    _world_sees_the_host(stage)


def _networks_apart(stage: Stage) -> None:
    host = stage.host("host1")
    hidden = host.start_container("hidden", network="project")
    require(
        not host.ping(hidden, container=WEB),
        "a container reaches another Docker network of its host",
    )
    require(
        not stage.host("host2").fetch(f"http://{hidden}/", container=WEB),
        "a user-defined network's unpublished port is open to the mesh",
    )
    host.remove_container("hidden")
    stage.note("two Docker networks of one host do not reach each other")


def _strangers_out(stage: Stage) -> None:
    """A machine on the LAN that is no host of the mesh routes to a container and gets nowhere."""
    stranger, host = stage.lab.machine("stranger"), stage.host("host1")
    stranger.run(["ip", "route", "replace", str(stage.subnets["host1"]), "via", host.address])
    target = stage.containers["host1"]
    asked = stranger.run(["curl", "-s", "--max-time", "2", f"http://{target}/"], check=False)
    require(
        asked.returncode != 0,
        f"a machine outside the mesh ({stranger.address}) fetches from {target}",
    )
    stage.note(
        f"a stranger on the LAN ({stranger.address}) does not reach {target},"
        " though it routes there"
    )


def _world_sees_the_host(stage: Stage) -> None:
    for name, host in stage.lab.hosts.items():
        seen = (host.fetch(f"http://{topology.OUTSIDE}/", container=WEB) or "").strip()
        require(
            seen == host.address or (stage.behind_nat and bool(seen)),
            f"the world sees {seen or 'no client'} instead of {name}'s {host.address}",
        )
    stage.note("outside the mesh containers are masqueraded as before")


def table(stage: Stage) -> None:
    """The table an operator sees, checked against what the steps learned."""
    host = stage.host("host1")
    listed = {item["host_name"]: IPv4Network(item["subnet"]) for item in host.leases()}
    require(listed == stage.subnets, f"agentctl lists {listed}, the hosts have {stage.subnets}")
    stage.note("host1# agentctl leases\n" + host.agentctl("leases").stdout)
