"""Judge what was heard of one peer. Pure.

A test is OK only where its packets passed the way that it claims. Without a container here, or
there, the path is not tested, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.ctl.check.facts import Facts, PeerFacts, Target
from agent.ctl.stale import age
from agent.kernel.diagnose.sweep import Heard
from agent.mesh.check.result import CheckState, CheckTest, PeerCheck, TestResult, Verdict
from agent.model.family import Address

__all__ = ["Evidence", "MtuFinding", "NamesFinding", "SentBy", "judge"]

_SILENT: Final = Heard()
_NAMES_SHOWN: Final = 3
_NO_DOCKER: Final = ("pending", "absent")


@dataclass(frozen=True, slots=True)
class SentBy:
    """The sender of a test's packets.

    Attributes:
        address: Of the sender.
        name: Of its container, "" for this host itself.
        problem: Why no container of this host sends.
    """

    address: Address
    name: str
    problem: str = ""

    def __str__(self) -> str:
        return f"container {self.name} ({self.address})" if self.name else "this host itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class MtuFinding:
    """Whether a packet of full size passes.

    Attributes:
        target: Its destination.
        size: Bytes of the whole packet.
        heard: The answer.
        largest: With no answer: the largest that passed, 0 where none did or none was tried.
        by_path_mtu: A router says which size it takes, and that one passes.
        fix: The command that has packets of a size that passes; "" for none.
    """

    target: Address
    size: int
    heard: Heard
    largest: int = 0
    by_path_mtu: bool = False
    fix: str = ""


@dataclass(frozen=True, slots=True)
class NamesFinding:
    """The answers to a peer's names.

    Attributes:
        wrong: A line for each answer that is not as it should be.
        right: Names that both servers answer.
        problem: Why none was asked for.
    """

    wrong: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was heard of one peer.

    Attributes:
        container, docker0, device: None where it was not asked.
        sender: None where nothing could be sent from this host's subnet; ``untested`` says why.
        tunnel: Device and UDP port, for messages; "" without a tunnel.
        networks: By mesh network: the sender, and the containers that were asked.
        gaps: Why shared networks were not tested.
    """

    host: Heard = _SILENT
    container: Heard | None = None
    docker0: Heard | None = None
    device: Heard | None = None
    sender: SentBy | None = None
    untested: str = ""
    tunnel: str = ""
    networks: Mapping[str, tuple[SentBy, tuple[tuple[Target, Heard], ...]]] = field(
        default_factory=dict
    )
    gaps: tuple[str, ...] = ()
    mtu: MtuFinding | None = None
    names: NamesFinding = NamesFinding(problem="not asked")

    @property
    def path(self) -> tuple[Heard, ...]:
        """The answers that came by the mesh's routes."""
        places = (self.container, self.docker0, self.device)
        of_networks = (heard for _, found in self.networks.values() for _, heard in found)
        return (*(each for each in places if each is not None), *of_networks)

    @property
    def anything(self) -> bool:
        """Whether anything at that host answered."""
        return self.host.answered or any(each.answered for each in self.path)


def judge(facts: Facts, peer: PeerFacts, found: Evidence) -> PeerCheck:
    """Return the result of all tests of a peer."""
    tests = tuple(_tests(facts, peer, found))
    heard = [each for each in (found.container, found.docker0) if each and each.answered]
    if found.mtu and found.mtu.heard.answered and found.mtu.target != peer.node_address:
        heard.append(found.mtu.heard)
    rtts = [each.rtt_s for each in heard or [found.host] if each.rtt_s is not None]
    host_id = peer.lease.get("host_id")
    return PeerCheck(
        host_id=host_id,
        host_name=peer.name,
        subnet=peer.subnet,
        node_address=peer.node_address,
        state=_state(tests, found),
        rtt_s=min(rtts, default=None),
        tests=tests,
    )


def _state(tests: tuple[TestResult, ...], found: Evidence) -> CheckState:
    verdicts = {each.test: each.verdict for each in tests}
    path = verdicts[CheckTest.PATH]
    no_agent = verdicts[CheckTest.HEARTBEAT] is Verdict.FAILED
    if not found.anything or (no_agent and not any(each.answered for each in found.path)):
        return CheckState.DOWN
    if Verdict.FAILED in verdicts.values():
        return CheckState.FAILED
    return CheckState.OK if path is Verdict.OK else CheckState.UNTESTED


def _tests(facts: Facts, peer: PeerFacts, found: Evidence) -> Iterator[TestResult]:
    yield _heartbeat(facts, peer)
    yield _host(peer, found)
    if not found.anything:
        for test in (CheckTest.PATH, CheckTest.MTU, CheckTest.NAMES, CheckTest.NETWORKS):
            yield _untested(test, f"{peer.name} does not answer")
        return
    yield _path(peer, found)
    yield _mtu(peer, found)
    yield _names(peer, found)
    yield _networks(peer, found)


def _ok(test: CheckTest, text: str) -> TestResult:
    return TestResult(test=test, verdict=Verdict.OK, text=text)


def _untested(test: CheckTest, text: str) -> TestResult:
    return TestResult(test=test, verdict=Verdict.UNTESTED, text=text)


def _failed(test: CheckTest, text: str, hint: str) -> TestResult:
    return TestResult(test=test, verdict=Verdict.FAILED, text=text, hint=hint)


def _heartbeat(facts: Facts, peer: PeerFacts) -> TestResult:
    test, lease = CheckTest.HEARTBEAT, peer.lease
    if lease.get("host_id") is None:
        return _untested(test, "a flannel host has no heartbeat")
    if facts.stale or lease.get("heartbeat") == "unknown":
        return _untested(test, "etcd does not answer")
    if lease.get("alive"):
        return _ok(test, f"seen{_ago(lease.get('last_seen_s'))}")
    silent_s = lease.get("silent_s")
    since = f" for {age(silent_s)}" if silent_s is not None else ""
    return _failed(
        test,
        f"the agent of {peer.name} has had no heartbeat{since}",
        f"nothing to do while it restarts; on {peer.name}: systemctl status hostmesh-agent;"
        f" gone for good: agentctl remove {peer.name}",
    )


def _ago(seconds: object) -> str:
    return "" if seconds is None else f" {age(seconds)} ago"


def _host(peer: PeerFacts, found: Evidence) -> TestResult:
    test, heard = CheckTest.HOST, found.host
    if heard.rtt_s is not None:
        return _ok(test, f"{peer.node_address} answers, {_ms(heard.rtt_s)}")
    published = peer.lease.get("backend_data") or {}
    if published.get("NAT") or published.get("Endpoint"):
        return _untested(test, f"{peer.node_address} is behind NAT: only the tunnel leads there")
    silence = f"{peer.node_address} does not answer a ping{_why(heard)}"
    if any(each.answered for each in found.path):
        return _untested(test, f"{silence}, its containers do: it may drop pings")
    beat = peer.lease.get("alive")
    seen = f"; its heartbeat was seen{_ago(peer.lease.get('last_seen_s'))}" if beat else ""
    hint = "nothing to do while it restarts; is it on, and its network up?"
    if beat:
        hint = f"check the network between the hosts: agentctl ping {peer.name}"
    return _failed(test, silence + seen, hint)


def _path(peer: PeerFacts, found: Evidence) -> TestResult:
    test, sender = CheckTest.PATH, found.sender
    if sender is None:
        return _untested(test, found.untested)
    container, docker0 = found.container, found.docker0
    if container is not None and container.rtt_s is not None:
        text = f"{peer.container} answers {sender}, {_ms(container.rtt_s)}"
        if sender.name:
            return _ok(test, text)
        return _untested(test, f"{text}; {sender.problem}: FORWARD here is not tested")
    if container is not None:
        return _no_container(peer, found, sender)
    if docker0 is not None and docker0.rtt_s is not None:
        text = f"{peer.docker0} answers {sender}, {_ms(docker0.rtt_s)}"
        return _untested(
            test, f"{text}; no container of {peer.name} is known: FORWARD there is not tested"
        )
    return _no_docker0(peer, found, sender)


def _no_container(peer: PeerFacts, found: Evidence, sender: SentBy) -> TestResult:
    """The container that the heartbeat names does not answer."""
    text = f"{peer.container} on {peer.name} does not answer {sender}"
    hint = f"agentctl trace {sender.address} {peer.container}, here and on {peer.name}"
    if found.docker0 is not None and found.docker0.answered:
        text += f"; {peer.docker0} there does: a rule of {peer.name}, or the container, drops it"
    elif _tunnel_is_dead(found):
        return _dead_tunnel(peer, found)
    elif found.container is not None:
        text += _why(found.container)
    return _failed(CheckTest.PATH, text, hint)


def _no_docker0(peer: PeerFacts, found: Evidence, sender: SentBy) -> TestResult:
    """No container is known there, and docker0 does not answer."""
    test, docker = CheckTest.PATH, peer.lease.get("docker")
    if _tunnel_is_dead(found):
        return _dead_tunnel(peer, found)
    if docker != "ready" or peer.lease.get("moving"):
        state = f"Docker there is {docker}" if docker in _NO_DOCKER else "its Docker is not known"
        return _untested(test, f"no container of {peer.name} is known ({state})")
    heard = found.docker0 or _SILENT
    return _failed(
        test,
        f"{peer.docker0}, docker0 of {peer.name}, does not answer {sender}{_why(heard)}",
        f"agentctl trace {sender.address} {peer.docker0}, here and on {peer.name}",
    )


def _tunnel_is_dead(found: Evidence) -> bool:
    """The host answers past the tunnel, and nothing comes back through it."""
    return found.device is not None and not any(each.answered for each in found.path)


def _dead_tunnel(peer: PeerFacts, found: Evidence) -> TestResult:
    host = "; the host itself answers" if found.host.answered else ""
    return _failed(
        CheckTest.PATH,
        f"nothing comes back from {peer.name} through the tunnel {found.tunnel}{host}",
        f"open that port between {peer.node_address} and this host, both ways; agentctl ping"
        f" {peer.name} says in which direction packets are lost",
    )


def _mtu(peer: PeerFacts, found: Evidence) -> TestResult:
    test, mtu = CheckTest.MTU, found.mtu
    if mtu is None:
        reason = (
            "nothing there answers by the mesh's routes" if peer.mtu else "no route leads there"
        )
        return _untested(test, reason)
    if mtu.heard.answered:
        return _ok(test, f"{mtu.size} bytes pass whole to {mtu.target}")
    if mtu.by_path_mtu:
        by = f"{mtu.heard.reporter} says so" if mtu.heard.reporter else "this host's link says so"
        return _ok(test, f"{mtu.largest} bytes pass whole to {mtu.target}, and {by} to senders")
    passes = f"{mtu.largest} bytes pass" if mtu.largest else "small ones pass"
    return _failed(
        test,
        f"packets of {mtu.size} bytes to {mtu.target} are lost without a word; {passes}:"
        " connections hang when they send much",
        mtu.fix or "find the link or switch between the hosts whose MTU is smaller",
    )


def _names(peer: PeerFacts, found: Evidence) -> TestResult:
    test, names = CheckTest.NAMES, found.names
    if names.wrong:
        return _failed(
            test,
            "; ".join(names.wrong[:_NAMES_SHOWN]),
            f"agentctl resolve {peer.names[0].name if peer.names else peer.name}",
        )
    if names.problem:
        return _untested(test, names.problem)
    return _ok(test, ", ".join(names.right))


def _networks(peer: PeerFacts, found: Evidence) -> TestResult:
    test, good = CheckTest.NETWORKS, []
    for network, (sender, asked) in sorted(found.networks.items()):
        best = next((each for each in asked if each[1].answered), None)
        if best is None:
            target = asked[0][0]
            return _failed(
                test,
                f"{network}: {target.name} at {target.addresses[0]} does not answer {sender}"
                f"{_why(asked[0][1])}",
                f"agentctl trace {sender.address} {target.addresses[0]}, here and on {peer.name};"
                f" agentctl network inspect {network}",
            )
        good.append(f"{network}: {best[0].addresses[0]} answers, {_ms(best[1].rtt_s)}")
    gaps = list(found.gaps)
    if good:
        return _ok(test, "; ".join([*good, *(f"not tested: {each}" for each in gaps)]))
    return _untested(test, "; ".join(gaps) or "no network with a container here and there")


def _why(heard: Heard) -> str:
    if not heard.problem:
        return ""
    by = f", says {heard.reporter}" if heard.reporter else ""
    return f" ({heard.problem}{by})"


def _ms(rtt_s: float | None) -> str:
    return "" if rtt_s is None else f"{rtt_s * 1000:.2f} ms"
