"""Answer requests of the control socket that change something, by commands to the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from agent.daemon.api.connection import Paths
from agent.daemon.core.reload import Change, outcome
from agent.daemon.membership.leave import Leaver, Outcome
from agent.daemon.state.agent_state import StateCell
from agent.daemon.state.events import Accepted, Apply
from agent.daemon.state.inbox import Inbox
from agent.daemon.store.view_cache import ViewCache
from agent.docker.report import AttachReport
from agent.errors import CannotTell
from agent.model import DockerState
from agent.thread_call import client_is_waiting

__all__ = ["ChangeHandlers"]

Document = Mapping[str, Any]
_COPY_S = 10.0


@dataclass(slots=True, kw_only=True)
class ChangeHandlers:
    """The functions behind the paths. Runs in the control socket's threads.

    Args:
        restart_docker: Does what is pending for Docker now; its arguments: under containers,
            in place of the operator's own keys. May take minutes.
    """

    inbox: Inbox
    cell: StateCell
    view_cache: ViewCache
    reload_settings: Callable[[Apply], Change]
    leaver: Leaver
    restart_docker: Callable[[bool, bool], AttachReport]

    def paths(self) -> Paths:
        """Return every path."""
        return Paths(
            change={
                "/v1/leave": self.leave,
                "/v1/join": self.join,
                "/v1/etcd/accept": self.accept,
                "/v1/reload": self.reload,
                "/v1/docker/restart": self.docker_restart,
            },
        )

    def leave(self, body: Document) -> Document:
        """``POST /v1/leave``."""
        outcome = self.leaver.leave(force=body.get("force") is True)
        self.inbox.ask(lambda _apply: None)  # then the loop has raised a condition for what is left
        return outcome.document()

    def join(self, _body: Document) -> Document:
        """``POST /v1/join``."""
        outcome = Outcome()
        if self.leaver.join():
            outcome.done.append("this host joins again; watch it with agentctl status")
            outcome.attempt("a host that restarts now waits for etcd", self._save_copy)
        return outcome.document()

    def _save_copy(self) -> tuple[str, ...]:
        """Wait until the host's own copy of what is believed now lasts through a power cut."""
        try:
            self.inbox.ask(self._write_copy).result(_COPY_S)
        except TimeoutError:
            raise CannotTell(f"no copy of the mesh is written after {_COPY_S:g} s") from None
        return ()

    def _write_copy(self, _apply: Apply) -> Future[None]:
        return self.view_cache.written(self.cell.now.mesh)

    def accept(self, _body: Document) -> Document:
        """``POST /v1/etcd/accept``."""

        def accept(apply: Apply) -> bool:
            alarm = self.cell.now.mesh.alarming is not None
            apply(Accepted())
            return alarm

        outcome = Outcome()
        if self.inbox.ask(accept, is_waiting=client_is_waiting()):
            outcome.done.append("the newest view of etcd is accepted")
            outcome.attempt("the alarm returns if this host restarts now", self._save_copy)
        return outcome.document()

    def reload(self, _body: Document) -> Document:
        """``POST /v1/reload``: wrong settings are refused whole."""
        return outcome(self.inbox.ask(self.reload_settings, is_waiting=client_is_waiting()))

    def docker_restart(self, body: Document) -> Document:
        """``POST /v1/docker/restart``."""
        if self.cell.now.mesh.left:
            return self._give_back(under_containers=body.get("now") is True)
        report = self.restart_docker(body.get("now") is True, body.get("replace") is True)
        outcome = Outcome()
        if report.restarted:
            outcome.done.append("Docker was restarted")
        if report.state is not DockerState.READY:
            outcome.todo += [f"{each.name}: {each.cause}" for each in report.conditions]
        return outcome.document()

    def _give_back(self, *, under_containers: bool) -> Document:
        """Finish a leave that waits for a restart of Docker."""
        if not self.leaver.left_over:
            return Outcome().document()
        return self.leave({"force": under_containers})
