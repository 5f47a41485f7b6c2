"""Identify this host: the id that it was given, else machine-id, hashed; and this boot."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from pathlib import Path

from agent.errors import HostmeshError, StateError
from agent.model import HostId
from agent.model.untrusted import parse_host_id
from agent.settings import Settings

__all__ = [
    "APPLICATION_ID",
    "host_id",
    "host_id_file",
    "kept_host_id",
    "known_host_id",
    "own_host_id",
    "read_boot_id",
    "read_machine_id",
]

APPLICATION_ID = uuid.UUID("6f1d3c52-8a0e-4b8f-9d27-2f4be1a7c3d5")
"""Chosen at random once for Hostmesh. Changing it would give every host another identity."""

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_HINT = "run systemd-machine-id-setup (or: dbus-uuidgen --ensure=/etc/machine-id) and start again"


def own_host_id(settings: Settings) -> HostId:
    """Return the id of this host: of the state directory, else of the settings, else machine-id's.

    Raises:
        StateError: None can be read, or the first two differ.
    """
    kept, named = kept_host_id(settings), settings.host.id
    if kept and named and kept != named:
        raise StateError(
            f"{host_id_file(settings)} has the id {kept}, host.id in {settings.path} is {named}",
            hint="one of them is another host's: delete that one, and restart hostmesh-agent",
        )
    return kept or HostId(named) or host_id(read_machine_id())


def kept_host_id(settings: Settings) -> HostId | None:
    """Return the id in the state directory, None where there is none or only root may look.

    Raises:
        StateError: It cannot be read.
    """
    path = host_id_file(settings)
    try:
        return parse_host_id(path.read_text(encoding="ascii").strip())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise StateError(
            f"{path} does not hold a host id of 32 hexadecimal digits",
            hint="write the id of agentctl leases -o wide into it, or join with a new token:"
            " hostmesh-agent join FILE",
        ) from error


def known_host_id(settings: Settings) -> HostId | None:
    """Return :func:`own_host_id`, None where it cannot be read."""
    try:
        return own_host_id(settings)
    except HostmeshError:
        return None


def host_id_file(settings: Settings) -> Path:
    """Return the path of the id that this host was given."""
    return settings.agent.state_dir / "host-id"


def host_id(machine_id: str) -> HostId:
    """Hash a machine-id for this application, so that it does not leave the host.

    machine-id(5) asks for a keyed hash. This is what sd_id128_get_machine_app_specific(3)
    computes: HMAC-SHA256 keyed with the machine-id over the application's id, its first 16
    bytes marked as a version 4 UUID. `systemd-id128 machine-id --app-specific=ID` prints it.
    """
    digest = hmac.new(bytes.fromhex(machine_id), APPLICATION_ID.bytes, hashlib.sha256).digest()
    raw = bytearray(digest[:16])
    raw[6] = (raw[6] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    return HostId(raw.hex())


def read_machine_id(path: Path = Path("/etc/machine-id")) -> str:
    """Read the machine-id.

    Raises:
        StateError: There is none, or it is not initialised, or it is not a machine-id.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"cannot read {path}: {error}", hint=_HINT) from error
    if not text or text == "uninitialized":
        raise StateError(f"{path} is not initialised yet", hint=_HINT)
    if not _MACHINE_ID.fullmatch(text) or text == "0" * 32:
        raise StateError(f"{path} does not hold a machine-id of 32 hex digits", hint=_HINT)
    return text


def read_boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Read the kernel's id of this boot (random(4)), without dashes.

    Raises:
        StateError: It cannot be read.
    """
    try:
        return uuid.UUID(path.read_text(encoding="ascii").strip()).hex
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read {path}: {error}") from error
