"""The token of a new host: where etcd is, the host's account there, and its id. One JSON file.

The file is as secret as the key in it. It is read whole or refused whole: a field that this version
does not know may restrict its use.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.model import HostId
from agent.model.untrusted import parse_host_id, parse_object
from agent.settings.checks import cross_checks
from agent.settings.load import KEYS
from agent.settings.sections import EtcdSettings, Settings

__all__ = ["CREDENTIALS", "MOST_BYTES", "JoinToken", "parse_token", "time_text", "token_text"]

MOST_BYTES = 64 << 10
_VERSION = 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_PASSWORD = re.compile(r"[\x21-\x7e]{1,1000}\n?")

CREDENTIALS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "ca_file": ("etcd-ca.crt", 0o644),
        "cert_file": ("etcd.crt", 0o644),
        "key_file": ("etcd.key", 0o600),
        "password_file": ("etcd-password", 0o600),
    }
)
"""Settings of [etcd] to the name of the file, as deploy/etcd/hosts.sh has it, and its mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """Everything that one new host needs to join.

    Attributes:
        host: Its name in the folder of deploy/etcd/hosts.sh.
        created_s, expires_s: Unix seconds.
        username: Of etcd, where accounts have passwords.
        files: Content of the files of CREDENTIALS, by setting; none where etcd has no accounts.
    """

    host: str
    host_id: HostId
    created_s: int
    expires_s: int
    endpoints: tuple[str, ...]
    prefix: str
    username: str = ""
    files: Mapping[str, str] = field(default_factory=dict, repr=False)

    def etcd_values(self, folder: Path) -> dict[str, Any]:
        """Return the keys of [etcd] in agent.toml, with the files in ``folder``."""
        values: dict[str, Any] = {"endpoints": list(self.endpoints)}
        if self.prefix != EtcdSettings().prefix:
            values["prefix"] = self.prefix
        for key, (name, _mode) in CREDENTIALS.items():
            if key in self.files:
                values[key] = str(folder / name)
        return values | ({"username": self.username} if self.username else {})


def token_text(token: JoinToken) -> str:
    """Return the file's text."""
    document = {
        "hostmesh_token": _VERSION,
        "host": token.host,
        "id": token.host_id,
        "created": time_text(token.created_s),
        "expires": time_text(token.expires_s),
        "endpoints": list(token.endpoints),
        "prefix": token.prefix,
        "username": token.username,
        "files": dict(token.files),
    }
    return json.dumps(document) + "\n"  # one line, to be pasted into user data


def parse_token(raw: bytes) -> JoinToken:
    """Read a token.

    Raises:
        ValueError: It is none, or damaged, or of another version. The reason has no secret in it.
    """
    if len(raw) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES} bytes")
    document = parse_object(raw)
    version = document.pop("hostmesh_token", None)
    if type(version) is not int:
        raise ValueError("is no token of Hostmesh")
    if version != _VERSION:
        raise ValueError(f"is a token of version {version}; this Hostmesh reads {_VERSION}")
    known = {"host", "id", "created", "expires", "endpoints", "prefix", "username", "files"}
    if document.keys() != known:
        raise ValueError("does not have the fields of a token")
    token = JoinToken(
        host=_matching(document["host"], _NAME, "host"),
        host_id=parse_host_id(_text(document["id"], "id")),
        created_s=_time_s(document["created"], "created"),
        expires_s=_time_s(document["expires"], "expires"),
        endpoints=_setting("endpoints", document["endpoints"]),
        prefix=_setting("prefix", document["prefix"]),
        username=_setting("username", document["username"]),
        files=_files(document["files"]),
    )
    for problem in _problems(token):
        raise ValueError(problem)
    return token


def _problems(token: JoinToken) -> Iterator[str]:
    """Yield why the fields do not fit together."""
    if not token.endpoints:
        yield "endpoints is empty"
    if token.expires_s <= token.created_s:
        yield "expires is not after created"
    paths: dict[str, Any] = {key: Path("/", key) for key in token.files}
    etcd = EtcdSettings(endpoints=token.endpoints, username=token.username, **paths)
    for name, what in cross_checks(Settings(etcd=etcd)):
        yield f"{name} {what}"
    yield from _certificate_problems(token.files)


def _certificate_problems(files: Mapping[str, str]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ca_file" in files:
            context.load_verify_locations(cadata=files["ca_file"])
        if "cert_file" in files:
            with ExitStack() as open_files:
                certificate = _in_memory(files["cert_file"], open_files)
                key = _in_memory(files["key_file"], open_files)
                context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks for it
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not PEM"
        yield f"has certificates that cannot be used: {reason}"


def _in_memory(text: str, open_files: ExitStack) -> str:
    """Return the path of a file with this text that is on no disk."""
    descriptor = os.memfd_create("hostmesh-token", os.MFD_CLOEXEC)
    open_files.callback(os.close, descriptor)
    os.write(descriptor, text.encode())
    return f"/proc/self/fd/{descriptor}"


def _files(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or value.keys() - CREDENTIALS.keys():
        raise ValueError("files is not an object of known files")
    found = {key: _text(text, f"files.{key}") for key, text in value.items()}
    if "password_file" in found:
        _matching(found["password_file"], _PASSWORD, "files.password_file")
    return found


def _setting(key: str, value: object) -> Any:  # noqa: ANN401 - each setting has its own type
    try:
        return KEYS["etcd"][key].convert(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"{name} is not text")
    return value


def _matching(value: object, form: re.Pattern[str], name: str) -> str:
    found = _text(value, name)
    if not form.fullmatch(found):
        raise ValueError(f"{name} has characters that it may not have")
    return found


def time_text(time_s: int) -> str:
    """Return a Unix time as the token has it."""
    return datetime.fromtimestamp(time_s, UTC).strftime(_TIME)


def _time_s(value: object, name: str) -> int:
    try:
        found = datetime.strptime(_text(value, name), _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{name} is not a time such as 2030-12-31T23:59:59Z") from None
    return int(found.timestamp())
