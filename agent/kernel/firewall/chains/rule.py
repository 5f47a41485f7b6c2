"""One rule as iptables-save prints it, and the names of chains."""

from __future__ import annotations

from typing import Final

from agent.kernel.firewall.rule_text import join_words
from agent.model.family import Network

__all__ = ["DOCKER_CHAIN", "DOCKER_USER", "OURS", "REPLIES", "jump_to", "rule"]

OURS: Final = "HOSTMESH-"
"""Every chain of the agent's bears this prefix, and no other chain does."""

DOCKER_USER: Final = "DOCKER-USER"
DOCKER_CHAIN: Final = "DOCKER"
"""Docker's chain of published ports, on every engine since 1.13: Docker's rules are there."""

REPLIES: Final = "RELATED,ESTABLISHED"


def rule(
    comment: str,
    target: str,
    *options: str,
    source: Network | None = None,
    not_source: bool = False,
    dest: Network | None = None,
    inp: str = "",
    out: str = "",
    protocol: str = "",
    port: int = 0,
    local: bool = False,
    syn: bool = False,
    match_set: tuple[str, str] | None = None,
    not_set: tuple[str, str] | None = None,
    states: str = "",
    not_states: str = "",
    direction: str = "",
) -> str:
    """One rule's body, in the order iptables-save prints."""
    words: list[str] = []
    words += ([*(["!"] if not_source else []), "-s", str(source)]) if source else []
    words += ["-d", str(dest)] if dest else []
    words += ["-i", inp] if inp else []
    words += ["-o", out] if out else []
    words += ["-p", protocol] if protocol else []
    words += ["-m", protocol, "--dport", str(port)] if port else []
    words += ["-m", "addrtype", "--dst-type", "LOCAL"] if local else []
    words += ["-m", "tcp", "--tcp-flags", "SYN,RST", "SYN"] if syn else []
    # The kernel evaluates matches in this order, and a set is the dearest.
    words += ["-m", "conntrack", "--ctstate", states] if states else []
    words += ["-m", "conntrack", "!", "--ctstate", not_states] if not_states else []
    words += ["-m", "conntrack", "--ctdir", direction] if direction else []
    words += ["-m", "set", "--match-set", *match_set] if match_set else []
    words += ["-m", "set", "!", "--match-set", *not_set] if not_set else []
    words += ["-m", "comment", "--comment", comment, "-j", target, *options]
    return join_words(tuple(words))


def jump_to(chain: str) -> str:
    """Return the body of the one rule that leads from a foreign chain into ``chain``."""
    return rule("hostmesh: everything of ours is in this chain", chain)
