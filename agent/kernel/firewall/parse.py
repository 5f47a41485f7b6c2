"""Read iptables-save: tables, chains, rules, and their meaning.

A rule is kept twice. Its *body* is the line as printed, without ``-A CHAIN``: it is deleted, shown
and quoted. Its :class:`RuleSpec` is its meaning, in one normal form, so that two spellings of one
rule are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_network
from types import MappingProxyType
from typing import Final

from agent.errors import FirewallError
from agent.kernel.firewall.chains.declared import needed_tables
from agent.kernel.firewall.rule_text import split_words

__all__ = [
    "Chain",
    "Clause",
    "RuleSpec",
    "Ruleset",
    "Table",
    "parse_rule",
    "parse_ruleset",
    "unreadable",
]

_COUNTERS: Final = re.compile(r"^\[(\d+):(\d+)\] ")
_INCOMPATIBLE: Final = re.compile(r"^# Table `(\w+)' is incompatible")
_LONG: Final = MappingProxyType(
    {
        "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d",
        "--in-interface": "-i", "--out-interface": "-o", "--protocol": "-p", "--proto": "-p",
        "--match": "-m", "--jump": "-j", "--goto": "-g", "--fragment": "-f",
    }
)  # fmt: skip
_PROTOCOLS: Final = MappingProxyType(
    {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "0": "all"}
)
_LISTS: Final = frozenset({"--ctstate", "--state", "--ctstatus"})
"""Options whose value is a set, printed in the program's own order."""


@dataclass(frozen=True, slots=True, order=True)
class Clause:
    """One test of a rule: ``module`` is "" for the built-in tests (-s, -d, -i, -o, -p)."""

    module: str
    option: str
    negated: bool
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """The meaning of a rule. Equal for two spellings of one rule.

    Attributes:
        clauses: Every test, sorted; all must hold.
        target: "" for a rule that only counts.
        goto: ``-g`` instead of ``-j``.
        options: The target's options, as printed.
    """

    clauses: tuple[Clause, ...]
    target: str
    goto: bool = False
    options: tuple[str, ...] = ()

    @property
    def unconditional(self) -> bool:
        """No test but a comment."""
        return all(clause.module == "comment" for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain: ``policy`` is "-" for a user-defined one; ``rules`` are bodies in order.

    ``packets`` and ``bytes`` belong to the rules, in order; empty without ``-c``.
    """

    name: str
    policy: str
    rules: tuple[str, ...] = ()
    counters: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """One table's chains in the order printed."""

    name: str
    chains: Mapping[str, Chain] = field(default_factory=lambda: MappingProxyType({}))

    def rules(self, chain: str) -> tuple[str, ...]:
        """Return the bodies of ``chain``; none when there is no such chain."""
        found = self.chains.get(chain)
        return found.rules if found is not None else ()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Every table of one variant. A table that was never used is absent, which means empty.

    Attributes:
        tables: By name.
        unseen: Tables that iptables cannot read and that no mesh, or not every one, needs.
    """

    tables: Mapping[str, Table] = field(default_factory=lambda: MappingProxyType({}))
    unseen: tuple[str, ...] = ()

    def table(self, name: str) -> Table:
        """The table, or an empty one."""
        return self.tables.get(name) or Table(name)


def parse_ruleset(text: str) -> Ruleset:
    """Return everything that one run of iptables-save printed.

    Raises:
        FirewallError: The text breaks off or holds a line that is none of iptables-save's,
            or a table with chains of the agent's cannot be shown by it. A partial list of such a
            table is never returned.
    """
    tables: dict[str, Table] = {}
    unseen: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        refused = _INCOMPATIBLE.match(line)
        if refused and refused[1] not in needed_tables():
            unseen.append(refused[1])
        elif refused:
            raise unreadable(refused[1])
        if not line or line.startswith("#"):
            continue
        if not line.startswith("*"):
            raise FirewallError(f"iptables-save printed an unexpected line: {line[:120]!r}")
        table = _parse_table(line[1:].strip(), lines)
        tables[table.name] = table
    return Ruleset(MappingProxyType(tables), tuple(unseen))


def unreadable(table: str) -> FirewallError:
    """Return the error for a table that the agent needs and iptables cannot read."""
    return FirewallError(
        f"iptables cannot read table {table}: another program wrote it",
        hint="nft list ruleset shows it; remove what nft added to iptables' tables",
    )


def _parse_table(name: str, lines: Iterable[str]) -> Table:
    policies: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    counters: dict[str, list[tuple[int, int]]] = {}
    for line in lines:
        if line == "COMMIT":
            chains = {
                chain: Chain(chain, policy, tuple(rules[chain]), tuple(counters[chain]))
                for chain, policy in policies.items()
            }
            return Table(name, MappingProxyType(chains))
        if not line or line.startswith("#"):
            continue
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split(" ")
            policies[chain], rules[chain], counters[chain] = policy, [], []
            continue
        counted = _COUNTERS.match(line)
        rest = line[counted.end() :] if counted else line
        words = rest.split(" ", 2)
        if words[0] != "-A" or len(words) < 2 or words[1] not in rules:  # noqa: PLR2004
            raise FirewallError(f"iptables-save printed an unexpected line: {line[:120]!r}")
        rules[words[1]].append(words[2] if len(words) > 2 else "")  # noqa: PLR2004
        if counted:
            counters[words[1]].append((int(counted[1]), int(counted[2])))
    raise FirewallError(f"iptables-save broke off in table {name}")


@lru_cache(maxsize=4096)
def parse_rule(body: str) -> RuleSpec:
    """Return the meaning of a rule's body. Cached: a pass reads the same few lines again."""
    return _Reader(split_words(body)).read()


class _Reader:
    """Reads one rule, from left to right."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._at = 0
        self._module = ""
        self._clauses: list[Clause] = []
        self._bare: set[str] = set()

    def read(self) -> RuleSpec:
        target, goto = "", False
        options: tuple[str, ...] = ()
        while self._at < len(self._words):
            negated = self._take_bang()
            option = self._next()
            option = _LONG.get(option, option)
            if option in {"-j", "-g"}:
                target, goto = self._next(), option == "-g"
                options = self._words[self._at :]
                break
            if option == "-m":
                self._module = self._next()
                self._bare.add(self._module)
            else:
                self._clause(option, negated=negated)
        protocols = {c.values[0] for c in self._clauses if c.option == "-p" and c.values}
        implied = self._bare - protocols
        self._clauses.extend(Clause(module, "", False, ()) for module in implied)  # noqa: FBT003
        return RuleSpec(tuple(sorted(self._clauses)), target, goto, options)

    def _next(self) -> str:
        if self._at >= len(self._words):
            return ""
        self._at += 1
        return self._words[self._at - 1]

    def _take_bang(self) -> bool:
        bang = self._at < len(self._words) and self._words[self._at] == "!"
        self._at += bang
        return bang

    def _clause(self, option: str, *, negated: bool) -> None:
        values: list[str] = []
        negated = self._take_bang() or negated
        while self._at < len(self._words):
            word = self._words[self._at]
            follows = self._words[self._at + 1 : self._at + 2]
            if word == "!" and follows and follows[0].startswith("-"):
                break
            if word.startswith("-") and _values_end(option, values):
                break
            values.append(word)
            self._at += 1
        module = "" if option in {"-s", "-d", "-i", "-o", "-p", "-f"} else self._module
        self._bare.discard(module)
        normal = _normal(option, tuple(values))
        if normal is not None:
            self._clauses.append(Clause(module, option, negated, normal))


def _values_end(option: str, values: list[str]) -> bool:
    """Whether a word that begins with ``-`` is the next option, not a value of this one."""
    return bool(values) or option != "--comment"


def _normal(option: str, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the one spelling of these values; None for a test that is always true."""
    if option in {"-s", "-d"}:
        return _normal_address(values[0]) if values else None
    if option == "-p":
        protocol = values[0].lower() if values else "all"
        protocol = _PROTOCOLS.get(protocol, protocol)
        return None if protocol == "all" else (protocol,)
    if option in _LISTS and values:
        return tuple(sorted(values[0].split(",")))
    return values


def _normal_address(text: str) -> tuple[str, ...] | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return (text,)
    return (str(network),) if network.prefixlen else None
