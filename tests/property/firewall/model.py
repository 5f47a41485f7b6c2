"""iptables-restore --noflush in memory: enough of it to check what the plan's text does."""

from agent.kernel.firewall.parse import parse_rule
from agent.kernel.firewall.rule_text import split_words

State = dict[str, dict[str, list[str]]]
BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}


def restore(state: State, text: str) -> None:
    """Apply ``text``; a mistake that the real program would refuse is an assertion."""
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        word = line.split(" ", 2)
        if line.startswith("*"):
            table = line[1:]
            chains = state.setdefault(table, {chain: [] for chain in BUILT_IN[table]})
        elif line.startswith(":"):
            assert word[0][1:] not in BUILT_IN[table], "a built-in chain was declared"
            chains[word[0][1:]] = []
        elif word[0] == "-A":
            _check_target(chains, word[2])
            chains[word[1]].append(word[2])
        elif word[0] == "-D":
            chains[word[1]].remove(word[2])
        elif word[0] == "-I":
            at, body = word[2].split(" ", 1)
            _check_target(chains, body)
            assert 1 <= int(at) <= len(chains[word[1]]) + 1, "index of insertion too big"
            chains[word[1]].insert(int(at) - 1, body)
        elif word[0] == "-X":
            assert not chains[word[1]], "the chain is not empty"
            used = [r for rules in chains.values() for r in rules if _target(r) == word[1]]
            assert not used, "the chain is still jumped to"
            del chains[word[1]]
        else:
            assert line == "COMMIT", line


def _target(body: str) -> str:
    return parse_rule(body).target


def _check_target(chains: dict[str, list[str]], body: str) -> None:
    target = _target(body)
    known = {"ACCEPT", "DROP", "RETURN", "REJECT", "MASQUERADE", "DNAT", "LOG", "TCPMSS", ""}
    assert target in known or target in chains, f"no chain {target}"
    assert split_words(body)


def save(state: State) -> str:
    lines: list[str] = []
    for table, chains in state.items():
        lines.append(f"*{table}")
        built_in = BUILT_IN[table]
        lines += [f":{chain} {'ACCEPT' if chain in built_in else '-'} [0:0]" for chain in chains]
        lines += [f"-A {chain} {body}" for chain, rules in chains.items() for body in rules]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])
