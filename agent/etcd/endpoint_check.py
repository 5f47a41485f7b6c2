"""Ask every endpoint now and then: which cluster it is of, who may write, until when it is trusted.

An endpoint of another cluster, a certificate that is about to expire and an etcd that is open to
all do no harm at first. Later it is too late to correct a settings file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from agent.errors import EtcdError
from agent.etcd.certificates import (
    Certificate,
    own_certificates,
    served_certificate,
    unusable_files,
)
from agent.etcd.client import EtcdClient
from agent.model import Condition, Severity
from agent.retry import jittered
from agent.threads import Jobs

__all__ = ["EndpointCheck", "in_the_clear", "open_condition"]

_EVERY_S = 60.0
_FIRST_S = 5.0
_OPEN_AGAIN_S = 300.0
_HOURLY_S = 3600.0
_WARN_BEFORE_S = 14 * 86_400.0


class EndpointCheck:
    """Calls back when the endpoints' conditions are others than before.

    Args:
        client: Whose endpoints.
        on_change: Called on the jobs' thread with all conditions.
        jobs: Runs it; None: jobs of its own.
        every_s: Seconds between two rounds.
        open_again_s: Seconds until an open endpoint is asked again whether it is open.
        hourly_s: Seconds between two questions for what changes seldom.
    """

    name = "etcd-survey"

    def __init__(
        self,
        client: EtcdClient,
        on_change: Callable[[tuple[Condition, ...]], None],
        *,
        jobs: Jobs | None = None,
        every_s: float = _EVERY_S,
        open_again_s: float = _OPEN_AGAIN_S,
        hourly_s: float = _HOURLY_S,
    ) -> None:
        self._client = client
        self._on_change = on_change
        self._every_s = every_s
        self._open_again_s = open_again_s
        self._hourly_s = hourly_s
        self._hourly_due_s = 0.0
        self._jobs = jobs or Jobs()
        self._reported: tuple[Condition, ...] = ()
        self._served: tuple[Certificate, ...] = ()
        self._open: dict[str, Condition | None] = {}
        self._open_due_s: dict[str, float] = {}
        self.certificates: tuple[Certificate, ...] = ()
        """This host's, the CA's and the servers', as last seen."""

    def start(self) -> None:
        """Start asking."""
        self._jobs.add(self, min(_FIRST_S, self._every_s))

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._jobs.remove(self)

    def run(self) -> float:
        """Ask every endpoint once; return the seconds until the next round."""
        endpoints = self._client.endpoints
        self._hourly(endpoints)
        self.certificates = (*own_certificates(self._client.settings), *self._served)
        found = (
            *self._foreign(endpoints),
            *self._openness(endpoints),
            *_unusable(self._client),
            *_expiring(self.certificates, time.time()),
        )
        if found != self._reported:
            self._reported = found
            self._on_change(found)
        return jittered(self._every_s, shorter=0.1, longer=0.0)

    def _foreign(self, endpoints: tuple[str, ...]) -> Iterator[Condition]:
        # A single one is never left out, and need not be asked.
        for endpoint in endpoints if len(endpoints) > 1 else ():
            try:
                self._client.ask_cluster(endpoint)
            except EtcdError:  # the directory reports what is out of reach
                continue
        for endpoint, cluster_id in self._client.clusters.foreign:
            yield Condition(
                name="etcd-endpoint-foreign",
                subject=endpoint,
                cause=f"{endpoint} is of etcd cluster {cluster_id:x}, the mesh is in"
                f" {self._client.clusters.pinned:x}: it is left out",
                hint="correct etcd.endpoints in agent.toml and restart the agent",
            )

    def _openness(self, endpoints: tuple[str, ...]) -> Iterator[Condition]:
        """Ask an open endpoint again sooner than a closed one."""
        for endpoint in endpoints:
            now_s = time.monotonic()
            if now_s >= self._open_due_s.get(endpoint, 0.0):
                with contextlib.suppress(EtcdError):  # as above
                    condition = open_condition(self._client, endpoint)
                    self._open[endpoint] = condition
                    again_s = self._open_again_s if condition else self._hourly_s
                    self._open_due_s[endpoint] = now_s + again_s
            if condition := self._open.get(endpoint):
                yield condition

    def _hourly(self, endpoints: tuple[str, ...]) -> None:
        """Ask for the servers' certificates, which change seldom."""
        now_s = time.monotonic()
        if now_s < self._hourly_due_s:
            return
        self._hourly_due_s = now_s + self._hourly_s
        found = []
        for endpoint in endpoints:
            if endpoint.startswith("https"):
                try:
                    found.append(served_certificate(endpoint, self._client.settings))
                except (OSError, ValueError):  # the directory reports what is out of reach
                    continue
        self._served = tuple(found)


def open_condition(client: EtcdClient, endpoint: str) -> Condition | None:
    """Say what an endpoint lacks that others can reach: TLS, accounts; None when it has both.

    Raises:
        EtcdError: It cannot be found out.
    """
    if _is_loopback(endpoint):
        return None
    lacks = ["TLS"] if in_the_clear(endpoint) else []
    if client.asks_for_no_account(endpoint):
        lacks.append("accounts")
    if not lacks:
        return None
    return Condition(
        name="etcd-open",
        subject=endpoint,
        cause=f"{endpoint} has no {' and no '.join(lacks)}: a container or any machine that"
        " reaches it can rewrite the mesh",
        hint="give etcd TLS and each host an account: deploy/etcd/hosts.sh, docs/install.md; until"
        " then keep containers from it: agentctl config set --etcd-containers closed",
    )


def in_the_clear(endpoint: str) -> bool:
    """Whether what is sent to an endpoint crosses a network without TLS."""
    return endpoint.startswith("http:") and not _is_loopback(endpoint)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unusable(client: EtcdClient) -> Iterator[Condition]:
    if client.settings.cert_file and (problem := unusable_files(client.settings)):
        yield Condition(
            name="etcd-auth-failed",
            subject=str(client.settings.cert_file),
            severity=Severity.ERROR,
            cause=f"{problem}; connections that are open stay, others fail",
            hint="copy ca, certificate and key of this host again: deploy/etcd/hosts.sh add NAME",
        )


def _expiring(certificates: tuple[Certificate, ...], now_s: float) -> Iterator[Condition]:
    renew = {
        "client": "deploy/etcd/hosts.sh add NAME, and copy its folder to this host; no restart",
        "ca": "make a new CA, give every host both in ca_file, then sign with the new one",
        "server": "deploy/etcd/hosts.sh members … with the same names, copy, restart that member",
    }
    for each in certificates:
        left_s = each.not_after_s - now_s
        if left_s > _WARN_BEFORE_S:
            continue
        when = f"expires on {each.not_after}" if left_s > 0 else f"expired on {each.not_after}"
        yield Condition(
            name="etcd-certificate-expires",
            subject=each.name,
            severity=Severity.WARNING if left_s > 0 else Severity.ERROR,
            cause=f"the certificate of {each.name} {when}",
            hint=f"renew it: {renew[each.role]}",
        )
