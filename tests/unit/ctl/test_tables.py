"""--sort, --no-headers and -o yaml: the same for every verb that prints a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.ctl.documents import document_text
from agent.ctl.output import Column, Table, duration, lay_out, span_s
from agent.ctl.verbtable import VERBS
from agent.errors import UsageError
from tests.unit.ctl.asked import LEASES, STATUS, Serving, run

pytestmark = pytest.mark.unit

MINE = LEASES["leases"][0]
HOSTS = {
    **LEASES,
    "leases": [
        MINE,
        {**MINE, "own": False, "host_name": "host10", "age_s": 90.0, "subnet": "10.100.0.0/16"},
        {**MINE, "own": False, "host_name": "host2", "age_s": None, "subnet": "10.99.0.0/16"},
    ],
}
LEVELS = Table((Column("HOST"), Column("LEVEL", right=True)), [("b", 10), ("a", None), ("c", 9)])


def names(lines: str) -> list[str]:
    return re.findall(r"host[0-9]+", lines)


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("host", ["host1", "host2", "host10"]),
        ("SUBNET", ["host1", "host2", "host10"]),
        ("Age", ["host10", "host1", "host2"]),
        ("node-address", ["host1", "host10", "host2"]),
    ],
)
def test_rows_are_sorted_by_the_column_as_a_person_would(
    column: str, order: list[str], socket_path: Path, serving: Serving,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with serving(socket_path, {"GET /v1/leases": HOSTS}):
        assert run(socket_path, "leases", "--sort", column) == 0
    assert names(capsys.readouterr().out) == order


def test_numbers_are_sorted_by_size_and_nothing_comes_last() -> None:
    assert [line[0] for line in lay_out(LEVELS, None, sort="level", headers=False)] == list("cba")


def test_a_row_keeps_its_style_when_rows_are_sorted() -> None:
    table = LEVELS._replace(styles=["bad", "", "warn"], warnings=["! old"], details=["  why"])
    painted = lay_out(table, None, sort="host", paint=lambda style, line: f"<{style}>{line}")
    assert [line[:7] for line in painted] == [
        "<warn>!", "HOST  L", "a      ", "<bad>b ", "<warn>c", "  why"
    ]  # fmt: skip


def test_an_unknown_column_names_the_columns(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": HOSTS}):
        assert run(socket_path, "leases", "--sort", "size\x1b") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "agentctl: this table has no column size\\x1b",
        "hint: columns: HOST, SUBNET, NODE ADDRESS, BACKEND, AGE, STATE; -o wide may add some",
    ]


def test_without_headers_stdout_has_rows_alone(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {**HOSTS, "stale": True, "as_of": 1.0, "as_of_s_ago": 53.0}
    aside = [{"key": "/hostmesh/subnets/x", "reason": "damaged"}]
    with serving(socket_path, {"GET /v1/leases": {**old, "set_aside": aside}}):
        assert run(socket_path, "leases", "--no-headers") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert [line.split()[0] for line in out.splitlines()] == ["*", "host10", "host2"]
    assert "last known state" in err
    assert "damaged" in err


def test_without_headers_an_empty_table_is_nothing(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": {**LEASES, "leases": []}}):
        assert run(socket_path, "leases", "--no-headers") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [("--sort", "host"), ("--no-headers",)])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_document_has_no_rows_to_sort(
    words: tuple[str, ...], form: str, socket_path: Path, serving: Serving,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with serving(socket_path, {"GET /v1/leases": HOSTS}):
        assert run(socket_path, "leases", "-o", form, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"not for -o {form}" in err


ANSWERS: dict[str, Any] = {
    "GET /v1/leases": LEASES,
    "GET /v1/status": STATUS,
    "GET /v1/containers": {"version": 1, "containers": []},
    "GET /v1/names": {"version": 1, "domain": "x", "complete": True, "names": []},
    "GET /v1/routes": {"version": 1, "routes": []},
    "GET /v1/networks": {
        "version": 1,
        "networks": [
            {
                "name": "shop",
                "record": None,
                "removed": False,
                "hosts": [],
                "parts": [],
                "access": None,
            }
        ],
    },
}
TABLES = [
    verb.name
    for verb in VERBS
    if any(each.name == "--sort" for each in verb.arguments)
    and verb.name not in {"reserve", "check", "token ls"}
]
"""The others read etcd, send packets or need a folder: tests/netns/ctl/test_matrix.py."""


@pytest.mark.parametrize("name", TABLES)
def test_every_table_takes_both_options(
    name: str, socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*name.split(), *(["shop"] if name == "network inspect" else [])]
    with serving(socket_path, ANSWERS):
        assert run(socket_path, *words, "--no-headers") == 0
        capsys.readouterr()
        column = "network" if name == "network ls" else "host"
        assert run(socket_path, *words, "--sort", column) == 0
        assert run(socket_path, *words, "--sort", "nonsense") == 2


def test_yaml_is_the_document_of_json(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(socket_path, {"GET /v1/leases": HOSTS}):
        assert run(socket_path, "leases", "-o", "yaml") == 0
        as_yaml = capsys.readouterr().out
        assert run(socket_path, "leases", "-o", "json") == 0
    assert yaml.safe_load(as_yaml) == json.loads(capsys.readouterr().out) == HOSTS
    assert as_yaml.startswith("version: 1\ncached: false\nleases:\n- subnet:")


def test_a_stream_in_yaml_has_one_document_for_each_event(
    socket_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [{"id": number, "at": 1.0, "kind": "x", "text": "a: b"} for number in (1, 2)]
    answers = {"GET /v1/events": {"events": events}, "GET /v1/events?after=2": {"events": []}}
    with serving(socket_path, answers):
        assert run(socket_path, "events", "--follow", "--timeout", "1s", "-o", "yaml") == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == events


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
TRICKY = st.sampled_from(["1e3", "0x1f", "on", "no", "~", ".inf", "12:30:45", "=", "<<", "a: b"])


@given(st.dictionaries(st.text() | TRICKY, JSON | TRICKY))
def test_promise_8_any_document_survives_yaml_and_is_harmless(document: Mapping[str, Any]) -> None:
    text = document_text(document, "yaml")
    assert yaml.safe_load(text) == document
    assert text.isascii()
    assert text.replace("\n", "").isprintable()


def test_promise_8_half_a_surrogate_pair_is_shown_escaped() -> None:
    assert document_text({"\ud800": "x\udfff"}, "yaml") == '"\\\\ud800": "x\\\\udfff"'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("45s", 45), ("3h12m", 11520), ("2d4h", 187200), ("30d", 2592000), ("1w", 604800),
     ("1.5h", 5400), ("60", 60), ("250ms", 0.25), ("", None), ("h", None), ("3x", None),
     ("-1s", None), ("1h 2m", None), ("1h2", None)],
)  # fmt: skip
def test_a_time_is_read_as_it_is_written(text: str, wanted: float | None) -> None:
    assert span_s(text) == wanted


@given(st.integers(0, 10**9))
def test_a_written_time_is_read_again(seconds: int) -> None:
    read = span_s(duration(float(seconds)))
    assert read is not None
    assert read <= seconds < read * 1.1 + 60


def test_a_table_without_columns_cannot_be_sorted() -> None:
    with pytest.raises(UsageError, match="no column x"):
        lay_out(Table(rows=[()]), None, sort="x")


@pytest.mark.parametrize("text", ["1e3", "0o17", "0x1f", "12:30", ".inf", "1_000", "10.64.0.0/16"])
def test_what_a_reader_of_yaml_1_2_takes_for_a_number_is_quoted(text: str) -> None:
    """PyYAML reads YAML 1.1, so its own reader does not see the difference."""
    assert document_text({"a": text}, "yaml") == f'a: "{text}"'
