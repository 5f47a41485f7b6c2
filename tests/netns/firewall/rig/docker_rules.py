"""Rules that each Docker engine writes for the rig's networks, as text for iptables-restore.

Shapes as read from the engines' sources at each tag and seen on running ones: 20.10 and 26.1
differ in nothing that matters here, 28 has DOCKER-FORWARD, a DROP for unpublished ports and
one in raw for every container.
"""

from tests.netns.firewall.rig.rig import A1, BRIDGES, C0, O1

ENGINES = ("20.10", "26.1", "28.5")

PUBLISHED = (
    (C0, "docker0", "tcp", 8080),
    (C0, "docker0", "udp", 8080),
    (A1, "br-app", "tcp", 8081),
)
"""(container, bridge, protocol, port of the host): port 80 of the container."""
OPEN_BRIDGES = ("docker0", "br-app", "br-old")


def docker_text(engine: str) -> str:
    """Everything, in the order in which the chains end up, built-in ones excepted."""
    modern = engine.startswith("28")
    return (_raw() if modern else "") + _nat() + (_filter_28() if modern else _filter_20())


def _raw() -> str:
    drops = [
        f"-A PREROUTING -d {address}/32 ! -i {bridge} -j DROP"
        for address, bridge in ((C0, "docker0"), (A1, "br-app"), (O1, "br-old"))
    ]
    return "\n".join(["*raw", *drops, "COMMIT", ""])


def _nat() -> str:
    lines = ["*nat", ":DOCKER - [0:0]"]
    lines += ["-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"]
    lines += ["-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"]
    for bridge in OPEN_BRIDGES:
        lines.append(f"-I POSTROUTING -s {BRIDGES[bridge][0]} ! -o {bridge} -j MASQUERADE")
        lines.append(f"-A DOCKER -i {bridge} -j RETURN")
    for address, bridge, protocol, port in PUBLISHED:
        lines.append(
            f"-A POSTROUTING -s {address}/32 -d {address}/32 -p {protocol} -m {protocol}"
            " --dport 80 -j MASQUERADE"
        )
        lines.append(
            f"-A DOCKER ! -i {bridge} -p {protocol} -m {protocol} --dport {port}"
            f" -j DNAT --to-destination {address}:80"
        )
    return "\n".join([*lines, "COMMIT", ""])


def _accepts() -> list[str]:
    return [
        f"-A DOCKER -d {address}/32 ! -i {bridge} -o {bridge} -p {protocol} -m {protocol}"
        " --dport 80 -j ACCEPT"
        for address, bridge, protocol, _ in PUBLISHED
    ]


def _isolation() -> list[str]:
    internal = BRIDGES["br-int"][0]
    return [
        f"-A DOCKER-ISOLATION-STAGE-1 ! -s {internal} -o br-int -j DROP",
        f"-A DOCKER-ISOLATION-STAGE-1 ! -d {internal} -i br-int -j DROP",
        *(
            f"-A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2"
            for bridge in OPEN_BRIDGES
        ),
        *(f"-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP" for bridge in OPEN_BRIDGES),
    ]


def jumps(engine: str) -> tuple[str, ...]:
    """Return the jumps that the engine inserts at the head of FORWARD at each start, last first."""
    if engine.startswith("28"):
        return ("-I FORWARD -j DOCKER-FORWARD", "-I FORWARD -j DOCKER-USER")
    return ("-I FORWARD -j DOCKER-ISOLATION-STAGE-1", "-I FORWARD -j DOCKER-USER")


def _filter_20() -> str:
    chains = ("DOCKER", "DOCKER-USER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2")
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains)]
    for bridge in OPEN_BRIDGES:
        lines += [
            f"-I FORWARD -i {bridge} -o {bridge} -j ACCEPT",
            f"-I FORWARD -i {bridge} ! -o {bridge} -j ACCEPT",
            f"-I FORWARD -o {bridge} -j DOCKER",
            f"-I FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]
    lines += ["-I FORWARD -i br-int -o br-int -j ACCEPT", *jumps("20.10")]
    lines += _accepts()
    lines += _isolation()
    lines += [f"-A {chain} -j RETURN" for chain in chains if chain != "DOCKER"]
    return "\n".join([*lines, "COMMIT", ""])


def _filter_28() -> str:
    new = ("DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-USER")
    chains = (*new, "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2")
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains), *jumps("28.5")]
    lines += ["-A DOCKER-FORWARD -j DOCKER-CT", "-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1"]
    lines += ["-A DOCKER-FORWARD -j DOCKER-BRIDGE"]
    lines += _accepts()
    for bridge in OPEN_BRIDGES:
        lines += [
            f"-A DOCKER ! -i {bridge} -o {bridge} -j DROP",
            f"-A DOCKER-BRIDGE -o {bridge} -j DOCKER",
            f"-A DOCKER-CT -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A DOCKER-FORWARD -i {bridge} -j ACCEPT",
        ]
    lines += ["-A DOCKER-FORWARD -i br-int -o br-int -j ACCEPT"]
    lines += _isolation()
    return "\n".join([*lines, "COMMIT", ""])
