"""``agentctl bugreport``: one archive with everything about this host, without secrets.

A part that fails does not stop the others: errors.txt names it. Each part has a deadline and a
largest size, and passes :func:`agent.ctl.redaction.redact_text`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent import __version__
from agent.ctl import direct
from agent.ctl.client import AgentClient
from agent.ctl.context import Context
from agent.ctl.redaction import redact_text
from agent.errors import AgentUnavailable, HostmeshError, StateError, UsageError
from agent.programs import ProgramRunner
from agent.settings.place import LOCK_NAME

__all__ = ["parts", "run"]

_Answer = TypeVar("_Answer")

_MOST_BYTES = 4 << 20
_ONE_PART_S = 10.0
_LEAST_S = 0.5
_MOST_THREADS = 100
_PATHS = ("status", "leases", "routes", "diff", "firewall", "events", "docker")
_COMMANDS = (
    ("ip-address", ("ip", "-d", "address")),
    ("ip-link", ("ip", "-s", "link")),
    ("ip-route", ("ip", "route", "show", "table", "all")),
    ("ip-rule", ("ip", "rule")),
    ("ip-neighbour", ("ip", "neighbour")),
    ("iptables-save", ("iptables-save", "-c")),
    ("iptables-legacy-save", ("iptables-legacy-save", "-c")),
    ("ipset", ("ipset", "list")),
    ("sysctl", ("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter")),
    ("docker-version", ("docker", "version")),
    ("docker-info", ("docker", "info")),
    ("docker-networks", ("docker", "network", "ls")),
    ("unit", ("systemctl", "show", "hostmesh-agent", "docker")),
    ("journal", ("journalctl", "-u", "hostmesh-agent", "-n", "2000", "--no-pager")),
    ("uname", ("uname", "-a")),
)


def run(context: Context) -> int:
    """Write the archive; its errors.txt names the parts that failed.

    Raises:
        StateError: The archive cannot be written.
        UsageError: It would be written to a terminal.
    """
    context.need_root("read everything for a report")
    target: Path | None = context.args.file
    to_stdout = str(target) == "-"
    if to_stdout and context.stdout.isatty():
        raise UsageError(
            "bugreport - would write an archive to the terminal",
            hint="agentctl bugreport FILE; or agentctl bugreport - | ssh HOST 'cat >FILE'",
        )
    raw = _archive(context)
    if to_stdout:
        sys.stdout.buffer.write(raw)
        return 0
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = target or Path(f"hostmesh-bugreport-{stamp}.tar.gz")
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write(raw)
    except FileExistsError:
        raise StateError(f"{path} is there already", hint="name another file") from None
    except OSError as error:
        with contextlib.suppress(OSError):  # half an archive is useless
            path.unlink()
        raise StateError(
            f"{path} cannot be written: {error.strerror}", hint="agentctl bugreport FILE"
        ) from error
    said = f"{path}: {len(raw)} bytes. Look through it before you send it."
    context.show({"version": 1, "file": str(path), "bytes": len(raw)}, lambda: (said,))
    return 0


def _archive(context: Context) -> bytes:
    errors: list[str] = []
    target = io.BytesIO()
    with (
        context.progress.waiting_for("the report's parts", context.timeout_s) as now_for,
        tarfile.open(fileobj=target, mode="w:gz") as archive,
    ):
        for name, get in parts(context):
            now_for(f"{name} of the report")
            try:
                text = get()
            except (HostmeshError, OSError, ValueError) as error:
                errors.append(f"{name}: {error}")
                continue
            _add(archive, name, text)
        _add(archive, "errors.txt", "\n".join(errors) + "\n")
    return target.getvalue()


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    raw = redact_text(text).encode("utf-8", "backslashreplace")
    if len(raw) > _MOST_BYTES:
        raw = b"(its beginning is left out)\n" + raw[-_MOST_BYTES:]
    entry = tarfile.TarInfo(f"hostmesh-bugreport/{name}")
    entry.size, entry.mtime, entry.mode = len(raw), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(raw))


def parts(context: Context) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield every part's name and a function for its text; together they take --timeout."""
    agent = _Agent(context)
    yield "version.txt", lambda: f"agentctl {__version__}, Python {sys.version}\n"
    for path in _PATHS:
        yield f"{path}.json", partial(agent.document, path)
    yield "metrics.txt", agent.metrics
    if agent.away is not None:
        yield from _without_agent(context)
    yield "agent-process.txt", lambda: _process(context.client.path.with_name(LOCK_NAME))
    settings, docker = context.args.settings, Path("/etc/docker/daemon.json")
    files = (settings, docker, Path("/etc/os-release"), Path("/etc/default/hostmesh"))
    for file in files:
        yield f"files/{file.name}", partial(_text, file)
    for name, command in _COMMANDS:
        yield f"{name}.txt", partial(_output, command, agent.left_s)


class _Agent:
    """Asks the agent until it does not answer once; then every request fails at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ends_s = time.monotonic() + context.timeout_s
        self.away: AgentUnavailable | None = None

    def document(self, path: str) -> str:
        return json.dumps(self._ask(lambda client: client.get(f"/v1/{path}")), indent=2)

    def metrics(self) -> str:
        return self._ask(lambda client: client.get_text("/metrics"))

    def _ask(self, get: Callable[[AgentClient], _Answer]) -> _Answer:
        if self.away is not None:
            raise self.away
        try:
            return get(AgentClient(self._context.client.path, self.left_s()))
        except AgentUnavailable as error:
            self.away = error
            raise

    def left_s(self) -> float:
        """Return the seconds that the next part may take."""
        return max(_LEAST_S, min(_ONE_PART_S, self._ends_s - time.monotonic()))


def _without_agent(context: Context) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the same from etcd, the kernel, Docker and the agent's files."""
    from agent.standalone.offline import DOCUMENTS  # noqa: PLC0415 - imports every package

    def text_of(target: str) -> str:
        return json.dumps(direct.without_agent(context, target), indent=2)

    for target in DOCUMENTS:
        name = f"without-agent/{target.removeprefix('/v1/')}.json"
        yield name, partial(text_of, target)


def _process(lock: Path) -> str:
    """Return where each thread of the agent is in the kernel, to find one that hangs.

    Args:
        lock: The lock file that names the agent's process.
    """
    holder = lock.read_text(errors="replace")
    found = re.search(r"\(pid (\d+)\)", holder)
    if found is None:
        return f"{lock}: {holder}\n"
    process = Path("/proc") / found[1]
    lines = [f"{lock}: {holder}", _text(process / "status")]
    for task in sorted((process / "task").iterdir())[:_MOST_THREADS]:
        for name in ("comm", "wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):  # the thread has ended, or the kernel refuses
                lines.append(f"{task.name} {name}: {_text(task / name).strip()}")
    return "\n".join(lines) + "\n"


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        return opened.read(_MOST_BYTES).decode("utf-8", "replace")


def _output(command: tuple[str, ...], timeout_s: Callable[[], float]) -> str:
    done = ProgramRunner().run(command, timeout_s())
    if done.status is None:
        raise OSError(done.last_lines)
    if done.status == 0:
        return done.output
    return f"{done.output}\n(status {done.status}) {done.errors}"
