"""Paths of the settings file and the control socket. Imports next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.settings.text import shown

__all__ = [
    "DEFAULT_PATH",
    "DEFAULT_RUN_DIR",
    "LOCK_NAME",
    "SOCKET_NAME",
    "named_file",
    "socket_at_a_glance",
]

DEFAULT_PATH = Path("/etc/hostmesh/agent.toml")
DEFAULT_RUN_DIR = Path("/run/hostmesh")
SOCKET_NAME = "agent.sock"
LOCK_NAME = "agent.lock"
_MAX_BYTES = 1 << 20


def named_file(text: str) -> Path:
    """Return the path of a settings file that a command line names, for argparse.

    Without --settings a missing file means the defaults. A file that is named must exist, otherwise
    a typing mistake would mean the defaults, too.

    Raises:
        ArgumentTypeError: There is no such file.
    """
    from argparse import ArgumentTypeError  # noqa: PLC0415 - only command lines need it

    path = Path(text)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ArgumentTypeError(f"there is no file {shown(text)}") from None
    except OSError:
        pass  # reading it has the better error
    return path


def socket_at_a_glance(path: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the control socket's path where it is plain and exists, else None.

    :func:`agent.settings.load_settings` takes 60 ms to import, and agentctl needs this one key.
    None means that it must be used: a HOSTMESH_ variable is set, the file cannot be read, its
    ``run_dir`` is odd, or nothing has that path.
    """
    if any(name.startswith("HOSTMESH_") for name in environ):
        return None
    try:
        run_dir = _run_dir(path)
        socket = None if run_dir is None else run_dir / SOCKET_NAME
        return socket if socket is not None and socket.exists() else None
    except (OSError, ValueError, RecursionError):  # TOML's and UTF-8's errors are ValueErrors
        return None


def _run_dir(path: Path) -> Path | None:
    """Return ``agent.run_dir`` of the file. Raises OSError and ValueError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return DEFAULT_RUN_DIR
    if len(data) > _MAX_BYTES:
        return None
    # A key that is not quoted has no escapes.
    if b"run_dir" not in data and b"\\" not in data:
        return DEFAULT_RUN_DIR
    import tomllib  # noqa: PLC0415 - 10 ms, and most files do not name it

    agent = tomllib.loads(data.decode("utf-8-sig")).get("agent", {})
    named = agent.get("run_dir", str(DEFAULT_RUN_DIR)) if isinstance(agent, dict) else None
    return Path(named) if isinstance(named, str) and named.startswith("/") else None
