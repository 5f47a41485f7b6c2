"""``agentctl token``: make the file by which a new host joins without ssh; list and revoke them.

deploy/etcd/hosts.sh makes and deletes the host's account. No secret is an argument of a program.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agent.ctl import direct
from agent.ctl.context import Context
from agent.ctl.output import Column, Table, duration
from agent.disk import replace_file
from agent.errors import HostmeshError, Refused, StateError, UsageError
from agent.model import HostId
from agent.programs import KIT_FOLDERS, kit_folder
from agent.settings import load_settings
from agent.settings.join_token import CREDENTIALS, JoinToken, parse_token, time_text, token_text
from agent.settings.text import shown

__all__ = ["create", "ls", "revoke"]

_FOLDER = "hostmesh-pki"
_EXPIRES_S = 86_400.0
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_HOSTS_SH = "etcd/hosts.sh"
_RECORD = "token"
"""Beside a host's credentials: the times of the newest token that has them."""
_COLUMNS = (
    Column(title="HOST", shrink_to=8),
    Column(title="TOKEN"),
    Column(title="EXPIRES"),
    Column(title="HOST ID", shrink_to=8, drop=1),
)


def create(context: Context) -> int:
    """Write a token, which only its owner can read.

    Raises:
        UsageError: The command line is wrong.
        Refused: The file is something else, or this host's [etcd] cannot be given away.
        HostmeshError: hosts.sh could not make the account.
        StateError: The file cannot be written.
    """
    args = context.args
    host = _host(args.host)
    path: Path = args.file or Path(f"{host}.token")
    to_stdout = str(path) == "-"
    if to_stdout and (context.stdout.isatty() or context.is_document):
        raise Refused(
            "a token is secret, and is not shown", hint=f"agentctl token create --host {host} FILE"
        )
    if not to_stdout:
        _refuse_to_replace(path, host)
    token = (
        _without_account(context, host) if args.without_account else _with_account(context, host)
    )
    if to_stdout:
        context.stdout.write(token_text(token))
        return 0
    _write(path, token_text(token))
    document = {
        "version": 1, "file": str(path), "host": host, "host_id": token.host_id,
        "expires": time_text(token.expires_s),
    }  # fmt: skip
    context.show(document, lambda: _next_steps(path, token))
    return 0


def _next_steps(path: Path, token: JoinToken) -> Iterator[str]:
    left = duration(token.expires_s - token.created_s)
    yield f"{shown(str(path))} is the token of {token.host}, for one machine. It expires in {left}."
    yield "Its reader can act as that host. Copy it there, and run there as root:"
    yield f"  hostmesh-agent join {path.name} && systemctl restart hostmesh-agent"


def ls(context: Context) -> int:
    """List the hosts that got a token, and whether they joined."""
    folder = Path(context.args.folder or _FOLDER)
    used, problem = _used(folder)
    found = [
        {"host": own.name, "host_id": host_id, "state": _state(expires, host_id, used),
         "expires": expires}
        for own, host_id, expires in _tokens(folder)
    ]  # fmt: skip
    if problem and found:
        context.remark(f"which tokens are used is not known: {problem}")
    rows = [[each["host"], each["state"], each["expires"], each["host_id"]] for each in found]
    table = Table(_COLUMNS, rows, empty=f"{folder} has no token")
    context.show_table({"version": 1, "tokens": found}, lambda: table)
    return 0


def revoke(context: Context) -> int:
    """Delete the account in a token that no host uses.

    Raises:
        UsageError: The host has no token.
        Refused: A host uses it, or that is not known.
        HostmeshError: hosts.sh could not delete the account.
    """
    host, folder = _host(context.args.name), Path(context.args.folder or _FOLDER)
    host_id = next((each for own, each, _ in _tokens(folder) if own.name == host), None)
    if host_id is None:
        raise UsageError(f"{folder} has no token for {host}", hint="agentctl token ls")
    used, problem = _used(folder)
    if not context.args.force and (used is None or host_id in used):
        why = (
            f"it is not known whether a host uses it: {problem}"
            if used is None
            else "a host uses it"
        )
        raise Refused(
            f"the token of {host} was not revoked: {why}",
            hint=f"to cut that host off from etcd: agentctl token revoke {host} --force",
        )
    _hosts_sh(context, folder, "remove", host)
    done = [f"etcd refuses the account of {host} now"]
    return context.report({"version": 1, "done": done, "todo": []})


def _with_account(context: Context, host: str) -> JoinToken:
    """Make the account of a host, or repair it, and return its token."""
    args = context.args
    folder = Path(args.folder or _FOLDER)
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder of hosts.sh",
            hint=f"make it with {_kit()} members …, or name it with --folder; for an etcd without"
            " accounts: --without-account",
        )
    own = folder / "hosts" / host
    options = ["--password"] if args.password else []
    options += ["--prefix", args.prefix] if args.prefix else []
    # The id is stored before the account is made: a run that was cut off goes on with it.
    host_id = _read(own / "id") or secrets.token_hex(16)
    _hosts_sh(context, folder, *options, "add", host, "--id", host_id)
    created_s, expires_s = _times(context)
    _write(own / _RECORD, time_text(expires_s) + "\n")
    etcd = tomllib.loads(_read(own / "agent.toml"))["etcd"]
    return _checked(
        JoinToken(
            host=host,
            host_id=HostId(host_id),
            created_s=created_s,
            expires_s=expires_s,
            endpoints=tuple(etcd["endpoints"]),
            prefix=etcd.get("prefix", "/hostmesh"),
            username=etcd.get("username", ""),
            files={
                key: _read(own / name, raw=True)
                for key, (name, _) in CREDENTIALS.items()
                if key in etcd
            },
        )
    )


def _without_account(context: Context, host: str) -> JoinToken:
    """Return a token with endpoints, prefix and CA of this host's settings."""
    etcd = context.settings.etcd
    if etcd.cert_file or etcd.username:
        raise Refused(
            "this host has an account in etcd, which another host must not share",
            hint="make one for that host, where the folder of hosts.sh is: agentctl token create"
            f" --host {host} --folder FOLDER",
        )
    if not etcd.endpoints:
        raise UsageError(
            "no etcd is named",
            hint="add --set etcd.endpoints=URL,…, or run it on a host of the mesh",
        )
    created_s, expires_s = _times(context)
    return _checked(
        JoinToken(
            host=host,
            host_id=HostId(secrets.token_hex(16)),
            created_s=created_s,
            expires_s=expires_s,
            endpoints=etcd.endpoints,
            prefix=etcd.prefix,
            files={"ca_file": _read(etcd.ca_file, raw=True)} if etcd.ca_file else {},
        )
    )


def _checked(token: JoinToken) -> JoinToken:
    """Return the token if a host will read it."""
    try:
        return parse_token(token_text(token).encode())
    except ValueError as error:
        raise StateError(f"the token of {token.host} would not be read: it {error}") from error


def _times(context: Context) -> tuple[int, int]:
    now_s = int(time.time())
    return now_s, now_s + max(1, int(context.args.expires or _EXPIRES_S))


def _host(name: str | None) -> str:
    if name is None:
        raise UsageError("no host is named", hint="agentctl token create --host NAME")
    if not _HOST.fullmatch(name) or name in {"operator", "admin"}:
        raise UsageError(f"{shown(name)} cannot name a host", hint="use letters, digits, . _ and -")
    return name


def _kit() -> Path:
    return (kit_folder(_HOSTS_SH) or KIT_FOLDERS[-1]) / _HOSTS_SH


def _hosts_sh(context: Context, folder: Path, *words: str) -> None:
    """Run hosts.sh, with the environment that names etcd for it.

    Raises:
        HostmeshError: It failed, or took too long.
    """
    command = ["sh", str(_kit()), "--folder", str(folder), *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=context.timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HostmeshError(
            f"{_kit()} took longer than {context.timeout_s:.0f} s", hint="add --timeout TIME"
        ) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise HostmeshError(lines[-1] if lines else f"{_kit()} failed", hint="run it again")


def _tokens(folder: Path) -> Iterator[tuple[Path, HostId, str]]:
    """Yield folder, id and end of every host that got a token."""
    for record in sorted(folder.glob(f"hosts/*/{_RECORD}")):
        yield record.parent, HostId(_read(record.parent / "id")), _read(record)


def _state(expires: str, host_id: HostId, used: frozenset[HostId] | None) -> str:
    if used is not None and host_id in used:
        return "used"
    unused = "not known" if used is None else "unused"
    return "expired" if expires < time_text(int(time.time())) else unused


def _used(folder: Path) -> tuple[frozenset[HostId] | None, str]:
    """Return the hosts that etcd remembers, as the operator reads it; None and why it cannot be."""
    direct.log_to_stderr()
    from agent.etcd.discovery import client_for  # noqa: PLC0415 - costs 0.2 s and 20 MB
    from agent.registry.registry import Registry  # noqa: PLC0415 - the same

    operator = folder / "operator" / "operator.toml"
    try:
        settings = load_settings(Path(os.devnull), {}, {}, operator)
        with closing(client_for(settings)) as client:
            view = Registry(client, settings.etcd.prefix).snapshot()
    except HostmeshError as error:
        return None, error.message
    return frozenset(view.memory) | frozenset(view.heartbeats), ""


def _read(path: Path, *, raw: bool = False) -> str:
    """Return a file's text, "" where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"cannot read {path}: {error}") from error
    return text if raw else text.strip()


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, (text.encode(),), 0o600)
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror}", hint="name another file"
        ) from error


def _refuse_to_replace(path: Path, host: str) -> None:
    """Raise Refused where the file is there and is no token of this host."""
    if not path.exists():
        return
    try:
        if parse_token(path.read_bytes()).host == host:
            return
    except (OSError, ValueError):
        pass
    raise Refused(f"{path} is there, and is no token of {host}", hint="name another file")
