"""A token is read whole or refused whole, and a refusal names no secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.settings.join_token import MOST_BYTES, parse_token, token_text
from tests.unit.settings.tokens import certificates, token

pytestmark = pytest.mark.unit

_FILES = certificates()
_OTHER_KEY = certificates.__wrapped__()["key_file"]  # of another certificate
_OPEN = {"endpoints": ("http://192.0.2.1:2379",), "files": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        _OPEN,
        {"prefix": "/second"},
        {"files": {"ca_file": _FILES["ca_file"]}},
        {"files": {"ca_file": _FILES["ca_file"], "password_file": "s3cret\n"}, "username": "web7"},
    ],
    ids=["certificate", "open", "prefix", "no account", "password"],
)
def test_a_token_reads_as_it_was_written(changes: dict[str, Any]) -> None:
    made = token(**changes)
    assert parse_token(token_text(made).encode()) == made
    assert _FILES["key_file"] not in repr(made)


def _with(**changes: object) -> bytes:
    return json.dumps({**json.loads(token_text(token())), **changes}).encode()


def _with_files(**changes: str) -> bytes:
    return _with(files={**_FILES, **changes})


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (token_text(token()).encode()[:-3], "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no token of Hostmesh"),
        (b" " * (MOST_BYTES + 1), "larger than"),
        (_with(hostmesh_token=2), "token of version 2; this Hostmesh reads 1"),
        (_with(hostmesh_token=True), "no token of Hostmesh"),
        (_with(more=1), "does not have the fields"),
        (_with(id="0" * 31), "not a host id"),
        (_with(id=5), "id is not text"),
        (_with(host="../x"), "host has characters"),
        (_with(expires="tomorrow"), "expires is not a time"),
        (_with(expires="2001-01-01T00:00:00Z"), "expires is not after created"),
        (_with(endpoints=[]), "endpoints is empty"),
        (_with(endpoints="https://192.0.2.1:2379"), "endpoints: "),
        (_with(endpoints=["https://u:s3cret@192.0.2.1:2379"]), "must not carry a user"),
        (_with(endpoints=["http://192.0.2.1:2379"]), "has no use"),
        (_with(prefix="x"), "prefix: "),
        (_with(username="web7"), "needs etcd.password_file"),
        (_with(files=[]), "files is not"),
        (_with_files(other="x"), "files is not"),
        (_with(files={"cert_file": _FILES["cert_file"]}), "needs etcd.key_file"),
        (_with_files(cert_file="s3cret"), "cannot be used"),
        (_with_files(key_file=_OTHER_KEY), "KEY_VALUES_MISMATCH"),
        (_with_files(ca_file="s3cret"), "cannot be used"),
        (_with_files(password_file="s3cret\nmore"), "password_file has characters"),  # noqa: S106 - a test's
    ],
)  # fmt: skip
def test_a_token_is_refused_whole_and_its_refusal_names_no_secret(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        parse_token(raw)
    assert "s3cret" not in str(refused.value)
    assert "BEGIN" not in str(refused.value)
