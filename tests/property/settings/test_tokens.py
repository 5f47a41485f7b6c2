"""Any bytes give a token or one ValueError; any agent.toml keeps what an edit does not name."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings.join_token import parse_token, token_text
from agent.settings.text import printable
from agent.settings.toml_edit import with_values
from tests.unit.settings.tokens import token

pytestmark = pytest.mark.property

_GOOD = token_text(token(endpoints=("http://192.0.2.1:2379",), files={})).encode()
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
_KEYS = sorted(json.loads(_GOOD))


def _refused_or_whole(raw: bytes) -> None:
    try:
        found = parse_token(raw)
    except ValueError as error:
        reason = str(error)
    else:
        assert parse_token(token_text(found).encode()) == found
        return
    assert printable(reason) == reason, "a reason never carries control characters"


@given(st.binary(max_size=300))
def test_any_bytes_give_a_token_or_its_error(raw: bytes) -> None:
    _refused_or_whole(raw)


@given(st.sampled_from(_KEYS), _JSON)
def test_any_value_in_any_field_gives_a_token_or_its_error(key: str, value: object) -> None:
    _refused_or_whole(json.dumps({**json.loads(_GOOD), key: value}).encode())


@given(st.integers(0, len(_GOOD) - 2))
def test_a_token_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"JSON|token"):
        parse_token(_GOOD[:length])


_LINES = st.sampled_from(
    [
        "# a comment\n", "\n", 'endpoints = ["http://a:1"]\n', 'endpoints = [\n "http://a:1",\n]\n',
        'ca_file = "/x"\n', "call_timeout_s = 1\n", 'name = "[etcd]"\n', "[etcd]\n",
        "[ etcd ] # x\n", "[host]\n", '[log]\nlevel = "info"\n', "etcd.prefix = '/x'\n",
        "etcd = {}\n", '"etcd" = 1\n', "[[etcd]]\n",
        'text = """\n[etcd]\n"""\n', "[host]\r\n", "id = 'x'",
    ]
)  # fmt: skip


_ODD = ("etcd.prefix", "etcd = ", '"etcd"', '"""', "[[etcd]]")
"""Where an edit may be refused: in place of a section, or a text that looks like one."""


@given(st.lists(_LINES, max_size=6).map("".join))
def test_an_edit_changes_what_it_names_and_nothing_else(text: str) -> None:
    try:
        before: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    values: dict[str, str | list[str]] = {"endpoints": ["http://b:2"]}
    try:
        result = with_values(text, "etcd", values, ("endpoints", "ca_file"))
    except ValueError:
        assert any(odd in text for odd in _ODD)
        return
    after = tomllib.loads(result)
    etcd = before.pop("etcd", {})
    kept = {key: value for key, value in etcd.items() if key not in {"endpoints", "ca_file"}}
    assert after.pop("etcd") == {**kept, **values}
    assert after == before
    assert [line for line in result.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert with_values(result, "etcd", values, ("endpoints", "ca_file")) == result
