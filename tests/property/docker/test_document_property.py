"""Merge and restore of any daemon.json there can be, however it is laid out."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.docker.daemonjson.desired import BIP, MTU, NETWORK_MTU, POOLS
from agent.docker.daemonjson.document import Document, JsonValue, KeyPath, parse, same_json
from agent.docker.daemonjson.undo_journal import KeyChange, undo
from agent.errors import DockerConfigError

pytestmark = pytest.mark.property


def relaxed(examples: int = 100) -> settings:
    """Return settings for a busy machine: a slow example is no failure."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


OURS: dict[KeyPath, JsonValue] = {
    BIP: "10.64.0.1/17",
    POOLS: [{"base": "10.64.128.0/17", "size": 24}],
    MTU: 1450,
    NETWORK_MTU: "1450",
}
NAMES = [part for path in OURS for part in path]
BLANKS = st.text(" \t\n\r", max_size=4)
KEYS = st.one_of(st.sampled_from([*NAMES, "debug", "log-opts"]), st.text(max_size=6))
NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?", fullmatch=True
)


def spelled(text: str, escape: bool) -> str:
    return json.dumps(text, ensure_ascii=escape)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    """Return a JSON value in any spelling."""
    kind = draw(st.integers(0, 5 if depth else 3))
    if kind <= 1:
        return spelled(draw(st.text(max_size=8)), draw(st.booleans()))
    if kind == 2:
        return draw(NUMBERS)
    if kind == 3:
        return draw(st.sampled_from(["true", "false", "null"]))
    if kind == 4:
        items = draw(st.lists(values(depth - 1), max_size=3))
        return "[" + ",".join(draw(BLANKS) + i + draw(BLANKS) for i in items) + "]"
    return draw(objects(depth - 1))


@st.composite
def objects(draw: st.DrawFn, depth: int = 2, smallest: int = 0) -> str:
    """Return a JSON object in any spelling and layout."""
    keys = draw(st.lists(KEYS, min_size=smallest, max_size=5, unique=True))
    parts = []
    for key in keys:
        name = spelled(key, draw(st.booleans()))
        nested = key in {"default-network-opts", "bridge"} and depth
        value = draw(objects(depth - 1)) if nested else draw(values(depth))
        parts.append(draw(BLANKS) + name + draw(BLANKS) + ":" + draw(BLANKS) + value + draw(BLANKS))
    return "{" + (",".join(parts) if parts else draw(BLANKS)) + "}"


@st.composite
def documents(draw: st.DrawFn, smallest: int = 0) -> str:
    bom = draw(st.sampled_from(["", "", "\ufeff"]))
    return bom + draw(BLANKS) + draw(objects(smallest=smallest)) + draw(BLANKS)


def loads(text: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(text.removeprefix("\ufeff"))


def strict_loads(text: str) -> object:
    """Parse as RFC 8259 has it: without Python's NaN, and without a key twice."""

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(found)) != len(found):
            raise ValueError("twice")
        return dict(found)

    def constant(name: str) -> object:
        raise ValueError(name)

    loaded: object = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    return loaded


def usable(text: str) -> bool:
    """Return whether the nested key can be set: only objects are on the way to it."""
    there = loads(text).get("default-network-opts", {})
    return isinstance(there, dict) and isinstance(there.get("bridge", {}), dict)


def changes_of(before: str) -> list[KeyChange]:
    document = parse(before)
    return [
        KeyChange(path, document.raw(path), (value,), document.depth_of(path))
        for path, value in OURS.items()
        if not document.has(path) or not same_json(document.value(path), value)
    ]


def expected(before: str) -> dict[str, Any]:
    merged: dict[str, Any] = loads(before)
    for path, value in OURS.items():
        place = merged
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return merged


def blank(document: Document, changes: list[KeyChange]) -> str:
    for change in changes:
        document = document.with_text(change.path, "0")
    return document.text


@given(documents())
@relaxed()
def test_what_any_parser_takes_is_taken_and_means_the_same(text: str) -> None:
    document = parse(text)
    assert {key: document.value((key,)) for key in document.names()} == loads(text)


@given(documents().filter(usable))
@relaxed(150)
def test_promise_7_the_merge_means_what_it_should_and_keeps_the_order(text: str) -> None:
    after = parse(text).with_values(OURS).text
    assert loads(after) == expected(text)
    assert list(loads(after)) == list(expected(text))
    assert parse(after).with_values(OURS).text == after


@given(documents(smallest=1).filter(usable))
@relaxed(150)
def test_promise_7_every_other_byte_stays(text: str) -> None:
    """Without the values of the written keys, all that was there is there, in order."""
    before, after = parse(text), parse(text).with_values(OURS)
    for key in before.names():
        if key not in NAMES:
            assert after.raw((key,)) == before.raw((key,))
    foreign = [c for c in changes_of(text) if c.before is not None]
    blanked = blank(after, foreign)
    start = blank(before, foreign)
    position = 0
    for character in start:  # what was there is a subsequence of what is there
        position = blanked.find(character, position) + 1
        assert position > 0


@given(documents(smallest=1).filter(usable))
@relaxed(150)
def test_promise_7_restore_after_merge_is_the_original(text: str) -> None:
    changes = changes_of(text)
    assert undo(parse(text).with_values(OURS), changes).text == text


@given(documents(smallest=1).filter(usable), documents(smallest=1).filter(usable))
@relaxed()
def test_promise_7_restore_touches_only_keys_that_hostmesh_wrote(mine: str, theirs: str) -> None:
    """However the file has changed, only values that Hostmesh wrote go."""
    changes = changes_of(mine)
    document = parse(theirs)
    touched = [c for c in changes if document.has(c.path) and c.is_ours(document.value(c.path))]
    if not touched:
        assert undo(document, changes).text == theirs


@given(documents(smallest=1))
@relaxed()
def test_removing_a_key_removes_that_key_only(text: str) -> None:
    document = parse(text)
    for key in document.names():
        left = loads(text)
        del left[key]
        assert loads(document.with_text((key,), None).text) == left


@given(st.text(max_size=40) | st.text('{}[]",:\\ 019.eE+-/*#tfn\n', max_size=40))
@relaxed()
def test_any_text_parses_as_elsewhere_or_is_refused(text: str) -> None:
    try:
        right = not text.strip(" \t\r\n") or type(strict_loads(text)) is dict
    except ValueError:
        right = False
    if right:
        parse(text)
        return
    with pytest.raises(DockerConfigError, match=r"^daemon\.json:"):
        parse(text)
