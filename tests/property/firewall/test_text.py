"""Words survive a line of iptables-restore, and a rule means the same however it is spelt."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import FirewallError
from agent.kernel.firewall.parse import parse_rule, parse_ruleset
from agent.kernel.firewall.rule_text import join_words, split_words

pytestmark = pytest.mark.property

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"))


@settings(deadline=None)
@given(st.lists(WORD, max_size=6))
def test_words_survive_a_line(words: list[str]) -> None:
    assert split_words(join_words(tuple(words))) == tuple(words)


@settings(deadline=None)
@given(st.text())
def test_any_line_can_be_read_as_a_rule(line: str) -> None:
    parse_rule(line)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_ruleset_or_an_error(text: str) -> None:
    with contextlib.suppress(FirewallError):
        parse_ruleset(text)


CLAUSES = (
    (("-s", "10.64.0.0/10"), ("--source", "10.64.0.0/255.192.0.0")),
    (("-d", "10.65.0.1/32"), ("--dst", "10.65.0.1")),
    (("!", "-i", "eth0"), ("-i", "!", "eth0")),
    (("-p", "icmp"), ("--protocol", "1")),
    (
        ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"),
        ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"),
    ),
    (("-m", "set", "--match-set", "a", "src"), ("-m", "set", "--match-set", "a", "src")),
    (("-m", "comment", "--comment", "x y"), ("-m", "comment", "--comment", "x y")),
)


@settings(deadline=None)
@given(st.permutations(CLAUSES), st.data())
def test_spelling_and_order_of_tests_do_not_matter(
    order: list[tuple[tuple[str, ...], ...]], data: st.DataObject
) -> None:
    first = join_words((*(word for one, _ in CLAUSES for word in one), "-j", "ACCEPT"))
    spelt = [word for pair in order for word in data.draw(st.sampled_from(pair))]
    assert parse_rule(join_words((*spelt, "-j", "ACCEPT"))) == parse_rule(first)
    for left_out in range(len(CLAUSES)):
        fewer = [word for n, (one, _) in enumerate(CLAUSES) if n != left_out for word in one]
        assert parse_rule(join_words((*fewer, "-j", "ACCEPT"))) != parse_rule(first)
