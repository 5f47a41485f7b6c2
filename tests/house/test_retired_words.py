"""Code, messages and docs use plain words: each retired word has a plain one that says more.

`make check` runs this. A line that must keep a retired word (a published name, a quotation) is
listed in EXCEPTIONS with its reason. ALLOWED counts what is left to reword; its figures only fall.
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
    "tests/engine/firewall/test_matrix.py:"
    ' _JUMP = ("-m", "comment", "--comment", "hostmesh: everything of ours is in this chain",'
    ' "-j")': "0.1's",
    "tests/property/firewall/test_repair.py:"
    " '-m comment --comment \"hostmesh: everything of ours is in this chain\"',": "0.1's",
    "tests/lab/hostmesh_lab/filesystems/lab_image.py:"
    r' b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",': "a user",
}
"""``path: text`` of a line that keeps its word, and the reason."""

ALLOWED: dict[str, int] = {
    "agent/kernel": 19,
    "tests/netns": 29,
    "tests/property": 1,
}
"""Lines that are left to reword, by package. Lower a figure; never raise one."""


class Found(NamedTuple):
    path: str
    line: int
    text: str
    advice: str


def package(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] in ("agent", "tests") and len(parts) > 2 else parts[0]


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
    found: dict[str, list[Found]] = {}
    for each in retired():
        found.setdefault(package(each.path), []).append(each)
    too_many = [
        f"{each.path}:{each.line}: {each.text}  [write: {each.advice}]"
        for name, those in found.items()
        if len(those) > ALLOWED.get(name, 0)
        for each in those
    ]
    assert not too_many, "\n".join(["retired words:", *too_many])


def test_every_exception_is_needed() -> None:
    there = {f"{path}: {line.strip()}" for path, _, line in lines()}
    assert EXCEPTIONS.keys() <= there
