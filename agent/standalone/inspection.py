"""Read what a round of the agent needs: the mesh, this host's kernel and Docker.

The mesh is read from etcd, else from this host's own copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from agent.daemon.membership.etcd_endpoint import uplink_now, with_needed
from agent.daemon.state.freshness import Freshness
from agent.daemon.state.mesh_state import MeshState, own_leases
from agent.docker.manager import DockerManager
from agent.errors import HostmeshError
from agent.etcd.client import EtcdClient
from agent.etcd.discovery import client_for
from agent.etcd.errors import contact_condition
from agent.kernel.facts import read_host_facts
from agent.model import Condition, DockerState, HostId, Needed, View
from agent.model.family import within
from agent.registry.copy import bounds_of, copy_file
from agent.registry.own.identity import own_host_id
from agent.registry.registry import Registry
from agent.settings import Settings

__all__ = ["NOT_NEEDED", "Inspection", "OfflineView", "inspect_host", "view_offline"]

_Found = TypeVar("_Found")
NOT_NEEDED: Final = "the rest of this page does not need it"


@dataclass(frozen=True, slots=True)
class OfflineView:
    """A view of the mesh: etcd's, or that of this host's own copy (``cached``).

    Attributes:
        problem: Why it is not etcd's, None when it is.
        freshness: How old it is.
    """

    view: View
    problem: HostmeshError | None
    freshness: Freshness

    @property
    def remarks(self) -> list[str]:
        """Lines that say why it is not etcd's."""
        return [self.problem.message] if self.problem else []


@dataclass(frozen=True, slots=True)
class Inspection:
    """The host as its agent would see it after one round.

    Attributes:
        errors: Why something could not be read; a condition says so, too.
        contact_problem: Why etcd could not be read, "" where it could.
    """

    mesh: MeshState
    errors: tuple[HostmeshError, ...]
    conditions: tuple[Condition, ...]
    contact_problem: str


def view_offline(settings: Settings) -> OfflineView:
    """Read the mesh from etcd, else from this host's own copy.

    Raises:
        HostmeshError: Neither can be read; the error is etcd's.
    """
    with closing(client_for(settings)) as client:
        return _view(settings, client, ())


def _view(settings: Settings, client: EtcdClient, needed: tuple[Needed, ...]) -> OfflineView:
    try:
        bounds = replace(bounds_of(settings), needed=needed)
        view = Registry(client, settings.etcd.prefix, bounds=bounds).snapshot()
        return OfflineView(view, None, Freshness(as_of_s=time.time()))
    except HostmeshError as error:
        try:
            copy = copy_file(settings).peek()
        except HostmeshError:
            copy = None
        if copy is None:
            raise
        freshness = Freshness(stale=True, as_of_s=copy.saved_s, cached=True)
        return OfflineView(copy.view, error, freshness)


def inspect_host(settings: Settings, *, left: bool) -> Inspection:
    """Read all that a round of the agent needs.

    Args:
        left: The operator said leave.
    """
    errors: list[HostmeshError] = []
    conditions: list[Condition] = []

    def attempt(name: str, read: Callable[[], _Found]) -> _Found | None:
        try:
            return read()
        except HostmeshError as error:
            errors.append(error)
            hint = error.hint or NOT_NEEDED
            conditions.append(Condition(name=name, cause=error.message, hint=hint))
            return None

    own_id = attempt("host-unknown", lambda: own_host_id(settings))
    mesh = MeshState(host_id=own_id or HostId(""), left=left)
    with closing(client_for(settings)) as client:
        endpoints = client.endpoints
        protocol = settings.routes.protocol
        facts = attempt("uplink-missing", lambda: with_needed(read_host_facts(protocol), endpoints))
        mesh, problem = _with_view(mesh, settings, client, facts.needed if facts else ())
    if problem is not None:
        errors.append(problem)
        conditions.append(contact_condition(problem, NOT_NEEDED))
    if facts is not None:
        uplink = attempt("uplink-missing", lambda: uplink_now(facts, settings, endpoints))
        mesh = replace(mesh, host=facts, uplink=uplink)
    mesh = _with_docker(mesh, settings)
    contact = "" if problem is None else problem.message
    return Inspection(mesh, tuple(errors), tuple(conditions), contact)


def _with_view(
    mesh: MeshState, settings: Settings, client: EtcdClient, needed: tuple[Needed, ...]
) -> tuple[MeshState, HostmeshError | None]:
    try:
        seen = _view(settings, client, needed)
    except HostmeshError as error:
        return mesh, error
    own, former = own_leases(seen.view, mesh.host_id) if mesh.host_id else (None, None)
    mesh = replace(mesh.with_view(seen.view), own=own, former=former)
    return replace(mesh, seen_s=seen.freshness.as_of_s or 0.0), seen.problem


def _with_docker(mesh: MeshState, settings: Settings) -> MeshState:
    facts = DockerManager(settings.docker, settings.agent.state_dir).engine.facts()
    state = DockerState.ABSENT
    if facts.reachable:
        fits = facts.bridge and mesh.own and within(facts.bridge.subnet, mesh.own.subnet)
        state = DockerState.READY if fits else DockerState.PENDING
    return mesh.with_docker(facts, state)
