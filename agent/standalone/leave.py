"""Leave, join and clean up while no agent runs: the agent's own steps, under the host's lock."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

from agent.daemon.membership.leave import Leaver, Outcome
from agent.daemon.names.snapshot_files import SnapshotFiles
from agent.daemon.store.host_lock import HostLock
from agent.daemon.store.state_file import StateFile
from agent.daemon.wiring import docker_manager, kernel_pass, release_lease
from agent.dns.snapshot import names_folder
from agent.docker.attach.detach import DetachTerms
from agent.errors import StateError
from agent.etcd.discovery import client_for
from agent.model import MeshConfig
from agent.registry.copy import CopyFile, copy_file
from agent.registry.own.identity import own_host_id, read_boot_id
from agent.registry.registry import Registry
from agent.settings import Settings

__all__ = ["agent_runs", "cleanup", "join_offline", "leave_offline", "leaver"]


def leaver(settings: Settings) -> Leaver:
    """Return the steps of leaving for a host whose agent does not run."""
    state = StateFile(settings.agent.state_dir)
    kernel = kernel_pass(settings, state)
    own = own_host_id(settings)
    copy = copy_file(settings)
    config = _copied_config(copy)  # before it is forgotten

    def restore(terms: DetachTerms) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not settings.docker.manage:
            return (), ()
        with closing(client_for(settings)) as client:
            report = docker_manager(settings, client, own).detacher.detach(terms)
        return report.done, report.todo

    def release() -> tuple[str, ...]:
        with closing(client_for(settings)) as client:
            registry = Registry(client, settings.etcd.prefix)
            return release_lease(registry, own, read_boot_id())

    def forget() -> None:
        copy.forget()
        try:
            SnapshotFiles(names_folder(settings.agent.state_dir)).clear()
        except OSError as error:
            raise StateError(f"cannot remove {error.filename}: {error.strerror}") from error

    return Leaver(
        state=state,
        release=release,
        remove=lambda: kernel.remove(config),
        remove_from_firewalld=kernel.remove_from_firewalld,
        restore=restore,
        forget=forget,
    )


def _copied_config(file: CopyFile) -> MeshConfig | None:
    try:
        copy = file.peek()
    except StateError:
        return None
    return copy.view.config if copy else None


def leave_offline(settings: Settings, *, force: bool = False) -> Outcome:
    """``agentctl leave`` while no agent runs."""
    with HostLock(settings.agent.run_dir, "agentctl leave"):
        return leaver(settings).leave(force=force)


def cleanup(settings: Settings) -> Outcome:
    """``agentctl cleanup``: only the host, only while no agent runs (it would repair at once)."""
    with HostLock(settings.agent.run_dir, "agentctl cleanup"):
        return leaver(settings).clean()


def join_offline(settings: Settings) -> Outcome:
    """``agentctl join`` while no agent runs: it will join when it starts."""
    outcome = Outcome()
    with HostLock(settings.agent.run_dir, "agentctl join"):
        state = StateFile(settings.agent.state_dir)
        if state.now.left:
            state.change(left=False, leaving=False)
            outcome.done.append("this host is no longer kept out")
    outcome.todo.append("start the agent: systemctl start hostmesh-agent")
    return outcome


def agent_runs(path: Path) -> bool:
    """Return whether an agent listens on the control socket; one that is busy or hangs does.

    For who only looks: what changes something takes the lock.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True
