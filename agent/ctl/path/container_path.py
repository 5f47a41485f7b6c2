"""Test the path of containers to a peer with packets from a container.

A ping from this host itself passes neither its FORWARD chain nor the peer's. So a thread enters a
running container's network namespace, and pings the peer's docker0 and the container that the
peer's heartbeat names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from agent.ctl.context import Context
from agent.ctl.path.ends import LocalHost
from agent.ctl.path.mesh_containers import MeshAddress
from agent.ctl.path.senders import Sender, containers_of, host_itself, inside, no_sender
from agent.ctl.path.tracing import judge_rules
from agent.errors import HostmeshError
from agent.kernel.diagnose.ping import Echo, Pinger
from agent.kernel.diagnose.sweep import Ask, EchoSocket, sweep
from agent.kernel.firewall.advice.operator_rules import Way
from agent.kernel.lookup import decide
from agent.model.family import Address, Network, read_address, read_network

__all__ = ["ContainerPath", "path_steps", "tested_peers"]

_ECHOES: Final = 2
_SWEEP_S: Final = 0.5
Step = tuple[str, str, str]
T = TypeVar("T")


class ContainerPath:
    """Sends from containers of this host.

    Args:
        subnet: This host's lease.
        named: The container in this host's heartbeat, whose network is open to the mesh.
        mesh_network: The network to send from if a container of this host is on it; "" for none.

    Raises:
        HostmeshError: The links of this host could not be listed.
    """

    def __init__(
        self, context: Context, subnet: Network, named: str | None, mesh_network: str = ""
    ) -> None:
        self._context = context
        self._place = LocalHost(context)
        self.senders = tuple(containers_of(self._place, subnet, named, mesh_network))
        self.problem = no_sender(self._place)
        if not self.senders:
            self.senders = host_itself(self._place, subnet)

    @property
    def from_container(self) -> bool:
        """Whether the test's packets pass this host's FORWARD."""
        return any(each.container for each in self.senders)

    def rules(self, target: Address) -> Step:
        """Test a packet against this host's routes and rules."""
        sender = self.senders[0]
        link = self._place.link(sender.bridge)
        # Not this host's own address: the kernel drops packets from a bridge that carry it.
        source = sender.address if sender.container else sender.address + 1
        try:
            decision = decide(target, source=source, in_link=link.index if link else 0)
            out = self._place.link(decision.link)
            if decision.refusal or out is None:
                return "rules", "failed", f"{target} from {sender.bridge}: {decision.refusal}"
            way = Way(
                in_link=sender.bridge,
                out_link=out.name,
                source=source,
                destination=target,
            )
            return "rules", *judge_rules(self._context, way)
        except HostmeshError as error:
            return "rules", "unknown", error.message

    def ask(self, target: Address) -> tuple[Echo, Sender]:
        """Ping from one sender after another until one gets an answer.

        Raises:
            HostmeshError: Nothing could be sent.
        """
        for sender in self.senders:
            echo = self._echo(sender, target)
            if echo.rtt_s:
                break
        return echo, sender

    def _echo(self, sender: Sender, target: Address) -> Echo:
        reach = self._inside(sender, lambda: Pinger(target, source=sender.address))
        try:
            return reach.echo(_ECHOES)
        finally:
            reach.close()

    def answering(self, targets: Sequence[Address]) -> frozenset[Address]:
        """Ping all targets at once from one container; return those that answered.

        Raises:
            HostmeshError: Nothing could be sent.
        """
        sender = self.senders[0]
        link = self._inside(sender, lambda: EchoSocket(sender.address))
        try:
            found = sweep([Ask(link, each) for each in targets], rounds=2, wait_s=_SWEEP_S)
        finally:
            link.close()
        return frozenset(ask.address for ask, heard in found.items() if heard.answered)

    def _inside(self, sender: Sender, function: Callable[[], T]) -> T:
        return inside(self._place, sender, function)


def docker0_of(subnet: str) -> Address:
    """Return the address of a host's docker0: the first of its lease."""
    return read_network(subnet).network_address + 1


def path_steps(
    context: Context,
    peer: Mapping[str, Any],
    own: Mapping[str, Any] | None,
    *,
    stale: bool,
    target: MeshAddress | None = None,
) -> Iterator[Step]:
    """Test the path to a peer's docker0 and to a container there.

    Args:
        peer, own: Leases of GET /v1/leases.
        stale: etcd does not answer, so the named container may have ended.
        target: The container to ask in place of the one that the peer's heartbeat names.
    """
    if os.geteuid() != 0:
        yield "containers", "unknown", "needs root: no packet was sent from a container"
        return
    if own is None:
        yield (
            "containers",
            "unknown",
            "this host holds no lease: no packet was sent from a container",
        )
        return
    try:
        network = target.mesh_network if target else ""
        subnet = read_network(str(own["subnet"]))
        path = ContainerPath(context, subnet, own.get("container"), network)
        if not path.senders:
            text = (
                f"{path.problem}, and no link has an address in {own['subnet']}: no packet was sent"
            )
            yield "containers", "unknown", text
            return
        if target is not None:
            yield path.rules(target.address)
            yield _asked_container(path, target, stale=stale)
            return
        yield path.rules(docker0_of(str(peer["subnet"])))
        yield from _asked(path, peer, stale=stale)
    except HostmeshError as error:
        yield "containers", "unknown", f"{error.message}: no packet was sent from a container"


def _asked(path: ContainerPath, peer: Mapping[str, Any], *, stale: bool) -> Iterator[Step]:
    name = str(peer.get("host_name") or peer.get("node_address"))
    docker0, docker = docker0_of(str(peer["subnet"])), peer.get("docker")
    echo, sender = path.ask(docker0)
    container = peer.get("container")
    there = path.ask(read_address(str(container))) if container else None
    if echo.rtt_s:
        yield "docker0", *_passed(path, docker0, echo, sender)
    elif there and there[0].rtt_s:
        text = f"{docker0} does not answer; a container there does"
        yield "docker0", "unknown", text
    elif docker in {"pending", "absent"}:
        yield "docker0", "unknown", f"Docker on {name} is {docker}: {docker0} may not be there"
    else:
        where = f"check the rules here and on {name}: agentctl trace {sender.address} {docker0}"
        yield "docker0", "failed", f"{docker0} does not answer {sender.name}; {where}"
    if there is None:
        yield (
            "container",
            "unknown",
            f"no container of {name} is known: FORWARD there is not tested",
        )
    elif there[0].rtt_s:
        yield "container", *_passed(path, read_address(str(container)), *there)
    else:
        found = f"{container} on {name} does not answer {there[1].name}"
        if echo.rtt_s:
            command = f"agentctl trace {there[1].address} {container}"
            found += f", docker0 there does; check the rules on {name}: {command}"
        yield "container", "unknown" if stale else "failed", found


def _asked_container(path: ContainerPath, target: MeshAddress, *, stale: bool) -> Step:
    """Ask the container that the operator named."""
    echo, sender = path.ask(target.address)
    if echo.rtt_s:
        return "container", *_passed(path, target.address, echo, sender)
    command = f"agentctl trace {sender.address} {target.address}"
    found = f"{target} at {target.address} does not answer {sender.name}; {command} shows why"
    return "container", "unknown" if stale else "failed", found


def _passed(path: ContainerPath, target: Address, echo: Echo, sender: Sender) -> tuple[str, str]:
    text = f"{target} answers {sender.name}, {min(echo.rtt_s) * 1000:.2f} ms"
    if path.from_container:
        return "ok", text
    return "unknown", f"{text}; {path.problem}: FORWARD of this host is not tested"


def tested_peers(
    context: Context, own: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, bool], str]:
    """Ping the container that each peer names, all at once, from a container on this host.

    Args:
        own, peers: With "subnet" and "container".

    Returns:
        By peer's subnet whether its container answered; and the reason if none was pinged, else "".
    """
    if os.geteuid() != 0:
        return {}, "needs root"
    if not own.get("subnet"):
        return {}, "this host holds no lease"
    named = {
        str(e["subnet"]): read_address(str(e["container"])) for e in peers if e.get("container")
    }
    try:
        path = ContainerPath(context, read_network(str(own["subnet"])), own.get("container"))
        if not path.from_container:
            return {}, path.problem
        heard = path.answering(tuple(named.values()))
    except HostmeshError as error:
        return {}, error.message
    return {subnet: target in heard for subnet, target in named.items()}, ""
