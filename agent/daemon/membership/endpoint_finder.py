"""Find etcd's endpoints in settings, environment or DNS, and keep the client's up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent.daemon.membership.etcd_endpoint import EndpointAddress
from agent.daemon.state.conditions import ConditionSource
from agent.daemon.state.events import ConditionsFound, EndpointFound, Event
from agent.etcd.client import EtcdClient
from agent.etcd.discovery import Discovery, Found, may_ask, not_named
from agent.model import Condition
from agent.settings import Settings
from agent.threads import Jobs

__all__ = ["EndpointFinder", "source_of"]


class EndpointFinder:
    """Keeps the client's endpoints, and the address by which the uplink is chosen.

    Args:
        settings: Name the endpoints; where they do not, DNS is asked.
        client: Gets the endpoints.
        post: Hands an event to the loop.
        jobs: Ask name servers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: EtcdClient,
        post: Callable[[Event], None],
        jobs: Jobs | None = None,
    ) -> None:
        self._client = client
        self._post = post
        self._settings = settings
        self._found = Found()
        self.endpoint = EndpointAddress(
            settings.etcd.endpoints, on_change=lambda found: post(EndpointFound(found)), jobs=jobs
        )
        self._discovery: Discovery | None = None
        if not settings.etcd.endpoints:
            if may_ask(settings):
                self._discovery = Discovery(settings.etcd, self._on_found, jobs=jobs)
            else:
                client.unknown(not_named())

    def start(self) -> None:
        """Begin to look names up."""
        self.endpoint.start()
        if self._discovery is not None:
            self._discovery.start()

    def stop(self) -> None:
        """Look nothing more up."""
        if self._discovery is not None:
            self._discovery.stop()
        self.endpoint.stop()

    def document(self) -> Mapping[str, Any]:
        """Return the endpoints and their source for `agentctl status`."""
        if self._discovery is None:
            return source_of(self._settings)
        found = self._found
        return {"endpoints": list(found.endpoints), "source": "dns",
                "told_by": found.told_by or None}  # fmt: skip

    def _on_found(self, found: Found) -> None:
        """Follow an answer of DNS. On the jobs' thread."""
        self._found = found
        if found.endpoints:
            self._client.use(found.endpoints)
            self.endpoint.use(found.endpoints)
        elif found.unavailable is not None:
            self._client.unknown(found.unavailable)
        self._post(
            ConditionsFound(
                ConditionSource.DISCOVERY,
                discovery_conditions(found, self._settings.etcd.domain),
            )
        )


def source_of(settings: Settings) -> Mapping[str, Any]:
    """Return the same document where no agent asks DNS."""
    endpoints = list(settings.etcd.endpoints)
    if not endpoints:
        return {"endpoints": endpoints, "source": "dns", "told_by": None}
    told_by = settings.sources.get("etcd.endpoints", "")
    source = "environment" if told_by.startswith("environment ") else "settings"
    return {"endpoints": endpoints, "source": source, "told_by": told_by or None}


def discovery_conditions(found: Found, domain: str) -> tuple[Condition, ...]:
    """Return what is wrong with DNS while endpoints are known.

    When none are, the lost contact says why already.
    """
    if not found.endpoints:
        return ()
    conditions = []
    if found.unavailable is not None:
        conditions.append(
            Condition(
                name="etcd-discovery-failed",
                cause=f"{found.unavailable.message}; {', '.join(found.endpoints)} stay in use",
                hint="repair the records or the resolver; changes of etcd's members are not"
                " noticed",
            )
        )
    if not domain:
        own = found.told_by.partition("._tcp.")[2]
        conditions.append(
            Condition(
                name="etcd-domain-unset",
                cause=f"etcd was found by {found.told_by}, in a domain that no setting names: a"
                " new host does not look there",
                hint=f'set domain = "{own}" in [etcd] of agent.toml and restart the agent',
            )
        )
    return tuple(conditions)
