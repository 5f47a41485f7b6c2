"""Every verb has an example that agentctl accepts, and its exit statuses are documented."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agent.ctl.parser import parse
from agent.ctl.verbtable import SECTIONS, VERBS, Verb

pytestmark = pytest.mark.unit

STATUSES = Path(__file__).parents[2] / "docs/exit-status.md"
SHOWN = [verb for verb in VERBS if not verb.hidden]


@pytest.mark.parametrize("verb", SHOWN, ids=lambda verb: verb.name)
def test_a_verb_has_examples_and_each_is_a_command_line_of_it(verb: Verb) -> None:
    assert verb.examples
    for example in verb.examples:
        program, *words = shlex.split(example)
        assert (program, parse(words).verb) == ("agentctl", verb), example


@pytest.mark.parametrize("verb", SHOWN, ids=lambda verb: verb.name)
def test_a_verb_takes_one_line_of_the_help_on_a_terminal_of_80_columns(verb: Verb) -> None:
    assert len(verb.summary) <= 59, "move the rest to its note"
    assert len(verb.name) <= 15


def test_every_verb_is_in_the_table_of_exit_statuses() -> None:
    table = STATUSES.read_text().partition("## agentctl verb by verb")[2]
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", table)
    named = [span.split(" ") for row in rows for span in re.findall(r"`([^`]+)`", row)]
    missing = [
        verb.name
        for verb in SHOWN
        if not any(tuple(words[: len(verb.words)]) == verb.words for words in named)
    ]
    assert not missing, "say in docs/exit-status.md what 0 means and which other numbers there are"


def test_no_verb_is_twice_in_the_table() -> None:
    names = [verb.name for _, verbs in SECTIONS for verb in verbs]
    assert sorted(names) == sorted(set(names))
