"""Follow the containers that run here by Docker's events, and say at once what changed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from agent.docker.endpoints.containers import Listed, RunningContainer, inspected, listed
from agent.docker.endpoints.publishable import (
    EndpointTerms,
    bound_conditions,
    endpoint_of,
    is_routable,
)
from agent.docker.endpoints.work import WorkList
from agent.docker.engine.api import Api, NotThereError
from agent.docker.engine.engine import Engine
from agent.docker.engine.events import EngineEvent
from agent.docker.engine.reading import bridge_networks
from agent.errors import DockerError
from agent.model import Condition, DockerNetwork
from agent.model.endpoint import ENDPOINTS_MOST, Endpoint
from agent.retry import Backoff
from agent.threads import Jobs

__all__ = ["EndpointFollower"]

_SPACING_S: Final = 0.2
_AT_ONCE: Final = 3
"""So many steps follow each other at once after a pause; then there are five a second."""
_INSPECT_TIMEOUT_S: Final = 1.0
"""Docker answers late for a container that hangs; the others wait meanwhile."""
_BACKOFF_S: Final = (0.25, 15.0)

_OnEndpoints = Callable[[tuple[Endpoint, ...], tuple[Condition, ...]], None]


class EndpointFollower:
    """Keeps this host's endpoints as Docker's events say, by inspecting the container they name.

    A job: it has a thread only while there is work. While Docker does not answer, the last known
    endpoints stay.

    Args:
        engine: Whose containers.
        on_endpoints: Called in the job's thread with all endpoints and conditions, when they
            differ from those of the last call; must not block.
        boot_id: Of this run of the host.
        jobs: Runs it.
    """

    name = "docker-endpoints"

    def __init__(
        self, engine: Engine, on_endpoints: _OnEndpoints, *, boot_id: str, jobs: Jobs
    ) -> None:
        self._engine = engine
        self._on_endpoints = on_endpoints
        self._boot_id = boot_id
        self._jobs = jobs
        self._lock = threading.Lock()
        self._terms: EndpointTerms | None = None
        self._waits = False
        self._work = WorkList()
        self._pace = _Pace()
        self._backoff = Backoff(*_BACKOFF_S)
        self._used: EndpointTerms | None = None
        self._awaited: set[str] | None = None  # of the first list; None before that
        self._networks: dict[str, DockerNetwork] = {}
        self._no_bridges: set[str] = set()
        self._containers: dict[str, RunningContainer] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._beyond = 0
        self._said: tuple[tuple[Endpoint, ...], tuple[Condition, ...]] | None = None

    def start(self) -> None:
        """Begin to follow; nothing is asked before there are terms."""
        self._jobs.add(self, math.inf)

    def stop(self) -> None:
        """Follow no more. A question to an engine that hangs is not waited for."""
        self._jobs.remove(self)

    def set_terms(self, terms: EndpointTerms | None) -> None:
        """Set what other hosts may know; None: nothing. Any thread."""
        with self._lock:
            self._terms = replace(terms, boot_id=self._boot_id) if terms else None
        self._work.check()
        self._hurry()

    def check(self) -> None:
        """Compare with Docker: events may have been lost. Any thread."""
        self._work.check()
        self._hurry()

    def notice(self, events: tuple[EngineEvent, ...]) -> None:
        """Follow what happened. Any thread."""
        if self._work.add(events):
            self._hurry()

    def run(self) -> float:
        """Do what is due; return the seconds until more is."""
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            return wait_s
        with self._lock:
            self._waits, terms = False, self._terms
        if terms is None:
            self._forget()
            return math.inf
        self._pace.spend()
        try:
            self._step(terms)
        except DockerError:
            self._work.check()
            return self._backoff.next_s()
        self._backoff.reset()
        self._say()
        due_s = self._work.next_due_s()
        return math.inf if due_s is None else max(self._pace.wait_s(), due_s - time.monotonic())

    def _hurry(self) -> None:
        with self._lock:
            waits, self._waits = self._waits, True
        if not waits:
            self._jobs.hurry(self)

    def _forget(self) -> None:
        self._work.clear()
        self._containers, self._endpoints, self._networks = {}, {}, {}
        self._used, self._beyond, self._awaited = None, 0, None
        if self._said is not None:
            self._say()
            self._said = None

    def _step(self, terms: EndpointTerms) -> None:
        work = self._work.take()
        if terms != self._used:
            self._used = terms
            self._judge_all(terms)
        for container in work.ended:
            self._drop(container)
        for container, networks in work.left.items():
            for network in networks & self._networks.keys():
                self._keep(self._containers.get(container), terms, without=network)
        if work.whole or self._awaited is None:
            self._compare(terms)
        until_s = time.monotonic() + _SPACING_S
        for place, container in enumerate(work.inspect):
            if time.monotonic() > until_s:
                self._work.look(work.inspect[place:])
                break
            self._inspect(container, terms)
            self._awaited = (self._awaited or set()) - {container}

    def _compare(self, terms: EndpointTerms) -> None:
        """Compare with all containers that run; have those inspected that differ."""

        def ask(api: Api) -> tuple[Listed, ...]:
            self._read_networks(api)
            return listed(api.get("/containers/json"))

        found = [each for each in self._engine.ask(ask) if self._may_be_shown(each, terms)]
        self._judge_all(terms)
        self._beyond = max(0, len(found) - ENDPOINTS_MOST)
        shown = {each.id: each for each in found[:ENDPOINTS_MOST]}
        for container in self._containers.keys() - shown.keys():
            self._drop(container)
        known = self._containers
        differ = [i for i, each in shown.items() if i not in known or not known[i].agrees(each)]
        self._work.look(differ)
        self._awaited = set(differ) if self._awaited is None else self._awaited & set(differ)

    def _may_be_shown(self, found: Listed, terms: EndpointTerms) -> bool:
        networks = ((self._networks.get(network), at) for network, at in found.places)
        return any(each and at in each.subnet and is_routable(each, terms) for each, at in networks)

    def _inspect(self, container: str, terms: EndpointTerms) -> None:
        def ask(api: Api) -> RunningContainer | None:
            try:
                found = inspected(api.get(f"/containers/{quote(container, safe='')}/json"))
            except NotThereError:
                return None
            if found and any(self._is_new(each.network) for each in found.places):
                self._read_networks(api)
            return found

        try:
            found = self._engine.ask(ask, timeout_s=_INSPECT_TIMEOUT_S)
        except DockerError:
            self._work.failed(container)
            return
        self._work.succeeded(container)
        if found is None:
            self._drop(container)
        else:
            self._keep(found, terms)

    def _is_new(self, network: str) -> bool:
        return network not in self._networks and network not in self._no_bridges

    def _read_networks(self, api: Api) -> None:
        raw = api.get("/networks")
        self._networks = {each.id: each for each in bridge_networks(raw)}
        self._no_bridges = {str(each["Id"]) for each in raw} - self._networks.keys()

    def _keep(
        self, container: RunningContainer | None, terms: EndpointTerms, *, without: str = ""
    ) -> None:
        if container is None:
            return
        container = container.without(without) if without else container
        endpoint = endpoint_of(container, self._networks, terms)
        if endpoint is None:
            self._drop(container.id)
        elif container.id in self._endpoints or len(self._endpoints) < ENDPOINTS_MOST:
            self._containers[container.id] = container
            self._endpoints[container.id] = endpoint
        else:
            self._beyond += 1

    def _drop(self, container: str) -> None:
        self._awaited = self._awaited and self._awaited - {container}
        self._endpoints.pop(container, None)
        if self._containers.pop(container, None) is not None and self._beyond:
            self._work.check()  # another one may be shown

    def _judge_all(self, terms: EndpointTerms) -> None:
        """Judge all containers anew: their networks or the terms differ."""
        for container in tuple(self._containers.values()):
            endpoint = endpoint_of(container, self._networks, terms)
            if endpoint is None:
                del self._containers[container.id], self._endpoints[container.id]
            elif endpoint != self._endpoints[container.id]:
                self._endpoints[container.id] = endpoint

    def _say(self) -> None:
        """Report what there is, if it is complete and differs from what was said last."""
        if self._awaited:
            return
        endpoints = tuple(self._endpoints[each] for each in sorted(self._endpoints))
        found = endpoints, bound_conditions(self._containers.values(), self._beyond)
        if found != self._said:
            self._said = found
            self._on_endpoints(*found)


class _Pace:
    """Lets some steps pass at once, and then one every 0.2 s."""

    def __init__(self) -> None:
        self._free_s = -math.inf

    def wait_s(self) -> float:
        """Return how long to wait for the next step."""
        return max(0.0, self._free_s - (_AT_ONCE - 1) * _SPACING_S - time.monotonic())

    def spend(self) -> None:
        """Note a step."""
        self._free_s = max(self._free_s, time.monotonic()) + _SPACING_S
