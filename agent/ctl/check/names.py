"""Ask this host's name servers for the names of every peer, as a container does."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agent.ctl.check.facts import Facts, PeerFacts, Target
from agent.ctl.check.judge import NamesFinding
from agent.daemon.names.servers import look_at_servers, server_conditions
from agent.dns.client import Answer, ask_many
from agent.mesh.check.result import CheckTest, TestResult, Verdict
from agent.model.family import Address
from agent.model.names import NAME_SERVERS

__all__ = ["NameChecker"]

_OWN_S: Final = 2.0
_START: Final = "systemctl enable --now hostmesh-dns-53.socket hostmesh-dns-54.socket"
Answers = Mapping[Address, Mapping[str, Answer]]


class NameChecker:
    """Asks both name servers.

    Args:
        link: In the network namespace to ask from.
        sender: Of the questions, for messages.
    """

    def __init__(self, facts: Facts, link: socket.socket, sender: str, until_s: float) -> None:
        self._facts = facts
        self._link = link
        self._sender = sender
        self._until_s = until_s
        self._answering: tuple[Address, ...] = ()
        self._answers: Answers = {}

    def own(self) -> tuple[TestResult, ...]:
        """Test the servers with this host's own name; nothing where the mesh has no names."""
        facts = self._facts
        if facts.names_problem:
            return ()
        if not facts.own_names:
            text = "this host has no name in its own name servers yet"
            return (TestResult(test=CheckTest.NAMES, verdict=Verdict.UNTESTED, text=text),)
        target = facts.own_names[0]
        until_s = min(self._until_s, time.monotonic() + _OWN_S)
        answers = {each: self._ask(each, [target.name], until_s) for each in NAME_SERVERS}
        self._answering = tuple(each for each, found in answers.items() if found)
        silent = [str(each) for each, found in answers.items() if not found]
        wrong = list(_wrong(target, answers))
        if silent:
            return (self._silent(silent),)
        if wrong:
            return (_failed("; ".join(wrong), f"agentctl resolve {target.name}"),)
        servers = " and ".join(map(str, NAME_SERVERS))
        text = f"{servers} answer {self._sender}"
        return (TestResult(test=CheckTest.NAMES, verdict=Verdict.OK, text=text),)

    def _silent(self, silent: Sequence[str]) -> TestResult:
        conditions = {each.subject: each for each in server_conditions(look_at_servers())}
        known = conditions.get(silent[0])
        text = f"the name server at {' and '.join(silent)} does not answer {self._sender}"
        if known is not None and known.name == "dns-port-taken":
            return _failed(f"{text}: {known.cause}", known.hint)
        return _failed(text, f"{_START}; systemctl restart hostmesh-dns@{silent[0]}")

    def ask(self, peers: Iterable[PeerFacts]) -> None:
        """Ask for the names of these peers."""
        names = [target.name for peer in peers for target in peer.names]
        self._answers = {
            each: self._ask(each, names, self._until_s) for each in self._answering if names
        }

    def _ask(self, server: Address, names: Sequence[str], until_s: float) -> Mapping[str, Answer]:
        return ask_many(self._link, server, names, until_s=until_s)

    def of(self, peer: PeerFacts) -> NamesFinding:
        """Return what was answered to a peer's names."""
        facts = self._facts
        if facts.names_problem:
            return NamesFinding(problem=facts.names_problem)
        if not self._answering:
            return NamesFinding(problem="the name servers of this host do not answer")
        if not peer.names:
            return self._nameless(peer)
        missing = [
            target.name
            for target in peer.names
            if not any(target.name in found for found in self._answers.values())
        ]
        if missing:
            return NamesFinding(problem=f"no answer in time for {missing[0]}")
        wrong = tuple(line for each in peer.names for line in _wrong(each, self._answers))
        return NamesFinding(wrong=wrong, right=tuple(each.name for each in peer.names))

    def _nameless(self, peer: PeerFacts) -> NamesFinding:
        if peer.lease.get("host_id") is None:
            return NamesFinding(problem="a flannel host has no names")
        if self._facts.complete and peer.lease.get("alive"):
            return NamesFinding(wrong=(f"{peer.name} has no name in this host's name servers",))
        return NamesFinding(problem="its names are not known here")


def _wrong(target: Target, answers: Answers) -> Iterable[str]:
    wanted = {str(each) for each in target.addresses}
    for server, found in answers.items():
        answer = found.get(target.name)
        if answer is not None and not wanted.intersection(answer.addresses):
            said = ", ".join(answer.addresses) or answer.status
            yield f"{server} says {target.name} is {said}, not {' or '.join(sorted(wanted))}"


def _failed(text: str, hint: str) -> TestResult:
    return TestResult(test=CheckTest.NAMES, verdict=Verdict.FAILED, text=text, hint=hint)
