"""``hostmesh-agent join FILE``: make this host the one that a token was made for.

Each file is replaced in one step. The id comes first: a run that was cut off is known by it, and is
completed when it is run again. agent.toml comes last: without it no agent starts.
"""

from __future__ import annotations

import os
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from agent.daemon.store.host_lock import HostLock
from agent.daemon.store.state_file import StateFile
from agent.disk import replace_file
from agent.errors import NotRoot, Refused, SettingsError, StateError
from agent.kernel.wireguard.key import WireGuardKey
from agent.registry.copy import copy_file
from agent.registry.own.identity import host_id_file, kept_host_id
from agent.settings import Settings
from agent.settings.join_token import CREDENTIALS, MOST_BYTES, JoinToken, parse_token, time_text
from agent.settings.toml_edit import with_values

__all__ = ["join_with_token"]

_SKEW_S = 300
_ETCD_KEYS = ("endpoints", "domain", "prefix", "username", *CREDENTIALS)
_ANOTHER = "make another one on the controller: agentctl token create --host"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    content: bytes
    mode: int
    folder_mode: int = 0o755

    def is_right(self) -> bool:
        """Return whether the host has it already."""
        try:
            mode = stat.S_IMODE(self.path.stat().st_mode)
            return self.path.read_bytes() == self.content and not mode & ~self.mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StateError(f"cannot read {self.path}: {error.strerror}") from error

    def write(self) -> None:
        """Replace it in one step."""
        try:
            self.path.parent.mkdir(mode=self.folder_mode, parents=True, exist_ok=True)
            replace_file(self.path.resolve(), (self.content,), self.mode)
        except OSError as error:
            raise StateError(
                f"cannot write {self.path}: {error.strerror}",
                hint="check free space and mounts, and run it again: it completes what is missing",
            ) from error


def join_with_token(
    path: Path, settings: Settings, *, replace: bool, dry_run: bool
) -> Iterator[str]:
    """Install a token on this host; yield lines of what was done.

    Args:
        path: The token.
        settings: All but [etcd], of the file that gets the token's.
        replace: Give up what this host is.
        dry_run: Check everything, write nothing.

    Raises:
        Refused: The token is not for this host, or not now.
        SettingsError: The token or agent.toml cannot be used.
        StateError: A file cannot be read or written.
    """
    if os.geteuid() != 0:
        raise NotRoot("only root may let this host join", hint="run it with sudo")
    token = _read_token(path)
    _refuse_by_time(token, time.time())
    # While a replacement is cut off, agent.toml has the previous id still.
    given = kept_host_id(settings) or settings.host.id
    state = StateFile(settings.agent.state_dir)
    # An agent reads new credentials without a restart, but keeps its id while it runs.
    same = given == token.host_id and not state.now.left
    holder = "hostmesh-agent join"
    with nullcontext() if same or dry_run else HostLock(settings.agent.run_dir, holder):
        if given != token.host_id and not replace:
            _refuse_another(token, given, settings)
        if state.now.leaving and not replace:
            raise Refused("this host has not finished its last leave", hint="agentctl leave")
        files = list(_files(token, settings))
        if not dry_run:
            if given != token.host_id and replace:
                _forget(settings)
            state.change(left=False, leaving=False)
        did = "would write" if dry_run else "wrote"
        for file in files:
            if file.is_right():
                continue
            if not dry_run:
                file.write()
            yield f"{did} {file.path}"


def _forget(settings: Settings) -> None:
    """Delete what belongs to the previous id: the copy of its mesh, its WireGuard key."""
    copy_file(settings).forget()
    key = WireGuardKey(settings.agent.state_dir).path
    try:
        key.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"cannot delete {key}: {error.strerror}") from error


def _refuse_by_time(token: JoinToken, now_s: float) -> None:
    if now_s > token.expires_s:
        raise Refused(
            f"the token for {token.host} expired at {time_text(token.expires_s)}",
            hint=f"{_ANOTHER} {token.host}",
        )
    if now_s < token.created_s - _SKEW_S:
        raise Refused(
            f"the token for {token.host} was made at {time_text(token.created_s)}, and this host's"
            f" clock says {time_text(int(now_s))}",
            hint="set the clock (timedatectl), and run it again",
        )


def _refuse_another(token: JoinToken, given: str, settings: Settings) -> None:
    """Raise Refused where this host is, or is configured for, something else."""
    why = ""
    copy = copy_file(settings).peek()
    etcd = tomllib.loads(_text(settings.path)).get("etcd", {})
    wanted = token.etcd_values(settings.path.parent)
    if given:
        why = f"has joined with a token already: its id is {given}"
    elif copy is not None and copy.lease is not None and copy.lease.host_id != token.host_id:
        why = f"is a member with the subnet {copy.lease.subnet}"
    elif (named := {key: etcd[key] for key in _ETCD_KEYS if key in etcd}) and named != wanted:
        why = f"is configured for another etcd or account: [etcd] in {settings.path}"
    else:
        for file in _credentials(token, settings.path.parent):
            if file.path.exists() and not file.is_right():
                why = f"has another {file.path}"
    if why:
        raise Refused(
            f"the token is for {token.host} ({token.host_id}), and this host {why}",
            hint="to give up what this host is: agentctl leave, systemctl stop hostmesh-agent, then"
            " hostmesh-agent join --replace FILE",
        )


def _files(token: JoinToken, settings: Settings) -> Iterator[_File]:
    """Yield the files of the host, in the order in which they are written."""
    path = settings.path
    try:
        text = with_values(_text(path), "host", {"id": token.host_id}, ())
        text = with_values(text, "etcd", token.etcd_values(path.parent), _ETCD_KEYS)
    except ValueError as error:
        raise SettingsError(
            (f"{path}: {error}",), hint="write it as a section, [etcd] and below it its keys"
        ) from None
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    yield _File(host_id_file(settings), f"{token.host_id}\n".encode(), 0o644, folder_mode=0o700)
    yield from _credentials(token, path.parent)
    yield _File(path, text.encode(), mode)


def _credentials(token: JoinToken, folder: Path) -> Iterator[_File]:
    for key, (name, mode) in CREDENTIALS.items():
        if key in token.files:
            yield _File(folder / name, token.files[key].encode(), mode)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""


def _read_token(path: Path) -> JoinToken:
    """Read the token's file.

    Raises:
        Refused: Another user could have read or written it.
        SettingsError: It cannot be read, or is no token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError((f"{path}: is no regular file",))
            if status.st_uid not in {0, os.geteuid()} or status.st_mode & 0o077:
                raise Refused(
                    f"{path} is not private: owner {status.st_uid},"
                    f" mode {stat.S_IMODE(status.st_mode):04o}",
                    hint=f"if no other user has read it: chown root {path}; chmod 600 {path}."
                    " Else revoke it on the controller: agentctl token revoke",
                )
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SettingsError((f"{path}: cannot be read: {error.strerror}",)) from error
    try:
        return parse_token(raw)
    except ValueError as error:
        hint = f"copy it again, whole; or {_ANOTHER} NAME"
        raise SettingsError((f"{path}: {error}",), hint=hint) from None
