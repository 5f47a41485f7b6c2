"""Code, messages and docs use plain words: each retired word has a plain one that says more.

`make check` runs this. A line that must keep a retired word (a published name, a quotation) is
listed in EXCEPTIONS with its reason.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SKIPPED = (".lock", "LICENSE", "test_retired_words.py")

RETIRED = {
    r"\b(somebody|nobody|whoever)\b": "name the actor: another program, the operator, no host",
    r"\b(of|is|are) ours\b": "name the owner: the agent's, Hostmesh's",
    r"\brooms?\b": "package, component, namespace; space",
    r"\b(told|foreseen|mishaps?|tally)\b": "reported, expected, error, counters",
    r"\b(at home|the former|by itself)\b": "on this host; the previous; automatically",
    r"\blife\b|\b(other|earlier|its|previous) lives\b": "this run of the agent, lifetime",
    r"\b(the|a|its|our|their|whose|host's|each|every|this) turns?\b": "restart lock; pass, round",
    r"\b(the|a|its|one|agent's|own|former|that|no) marks?\b": "owner mark, protocol mark",
    r"\b(own|his|their|your|\w+'s|last|that|tightest) word\b": "setting, value, permission, answer",
    r"\bstands\b|\bas they stand\b": "is, is installed, is active",
    r"\bwho comes\b": "a new client",
    r"^\s*(r?\"\"\"|#)\s*(what|who|whatever)\b": "begin with a verb or with the thing itself",
}

EXCEPTIONS: dict[str, str] = {
    "CHANGELOG.md:"
    " `objects`), and `earlier-life-asked`, `leave-taken-up-again`,"
    " `docker-turn-lost`,": "an old name",
    "agent/kernel/firewall/chains/rule.py:"
    ' return rule("hostmesh: everything of ours is in this chain", chain)': "a rule's comment",
    "tests/engine/firewall/test_matrix.py:"
    ' _JUMP = ("-m", "comment", "--comment", "hostmesh: everything of ours is in this chain",'
    ' "-j")': "0.1's",
    "tests/netns/firewall/rules_0_1_1.txt:"
    ' -I PREROUTING 1 -m comment --comment "hostmesh: everything of ours is in this chain"'
    " -j HOSTMESH-PREROUTING": "0.1.1's",
    "tests/netns/firewall/rules_0_1_1.txt:"
    ' -I FORWARD 1 -m comment --comment "hostmesh: everything of ours is in this chain"'
    " -j HOSTMESH-FORWARD": "0.1.1's",
    "tests/netns/firewall/rules_0_1_1.txt:"
    ' -I POSTROUTING 1 -m comment --comment "hostmesh: everything of ours is in this chain"'
    " -j HOSTMESH-POSTROUTING": "0.1.1's",
    "tests/netns/firewall/test_repair.py:"
    ' JUMP = \'-m comment --comment "hostmesh: everything of ours is in this chain" '
    "-j HOSTMESH-'": "a rule's comment",
    "tests/property/firewall/test_repair.py:"
    " '-m comment --comment \"hostmesh: everything of ours is in this chain\"',": "0.1's",
    "tests/lab/hostmesh_lab/filesystems/lab_image.py:"
    r' b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",': "a user",
}
"""``path: text`` of a line that keeps its word, and the reason."""


class Found(NamedTuple):
    path: str
    line: int
    text: str
    advice: str


def lines() -> Iterator[tuple[str, int, str]]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for path in listed.stdout.splitlines():
        if path.endswith(SKIPPED) or not (ROOT / path).is_file():
            continue
        text = (ROOT / path).read_text(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            yield path, number, line


def retired() -> Iterator[Found]:
    patterns = {re.compile(each, re.IGNORECASE): advice for each, advice in RETIRED.items()}
    for path, number, line in lines():
        for pattern, advice in patterns.items():
            if pattern.search(line) and f"{path}: {line.strip()}" not in EXCEPTIONS:
                yield Found(path, number, line.strip(), advice)


def test_retired_words_are_not_used() -> None:
    found = [f"{each.path}:{each.line}: {each.text}  [write: {each.advice}]" for each in retired()]
    assert not found, "\n".join(["retired words:", *found])


def test_every_exception_is_needed() -> None:
    there = {f"{path}: {line.strip()}" for path, _, line in lines()}
    assert EXCEPTIONS.keys() <= there
