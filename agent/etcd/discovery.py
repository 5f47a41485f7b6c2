"""Finding etcd by DNS: SRV records in the host's domain, as etcd's own tools look for them.

The only importer of dnspython, and only when DNS is asked: a host whose settings name
endpoints never loads it. DNS answers are untrusted input. An answer that cannot be had is never
an empty list: endpoints that are known stay in use until others are.

Sources: RFC 2782 (SRV), etcd's "DNS discovery" for the names of the services.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from agent.errors import EtcdUnavailable
from agent.etcd.client import EtcdClient
from agent.retry import Backoff, jittered
from agent.settings import EtcdSettings, Settings
from agent.threads import Jobs

if TYPE_CHECKING:
    import dns.resolver

__all__ = ["Discovery", "Found", "client_for", "look_up", "may_ask", "not_named"]

_log = structlog.get_logger("agent.discovery")

_SERVICES: Final = (("_etcd-client-ssl._tcp", "https"), ("_etcd-client._tcp", "http"))
_LIFETIME_S: Final = 5.0
"""One question to all name servers together."""
_MAX_ENDPOINTS: Final = 16
_LEAST_REFRESH_S: Final = 30.0
_MOST_REFRESH_S: Final = 300.0
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*")
_HINT: Final = (
    "name it in agent.toml: [etcd] endpoints; or publish SRV records _etcd-client-ssl._tcp and set"
    " etcd.domain to their domain"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Where etcd is, as DNS says.

    Attributes:
        endpoints: URLs in the order to try them; empty when never found.
        told_by: The record's name, "" when never found.
        unavailable: Why the last question had no answer, None when it had.
        ttl_s: For how long the records say they hold.
    """

    endpoints: tuple[str, ...] = ()
    told_by: str = ""
    unavailable: EtcdUnavailable | None = None
    ttl_s: float = _LEAST_REFRESH_S


def look_up(settings: EtcdSettings, root: Path = Path("/")) -> Found:
    """Ask DNS where etcd is. Blocks, for a quarter of a minute at most.

    An attacker who suppresses an answer must not be able to make this host speak in the clear: the
    record without TLS counts only after DNS said that there is none with it, and never when a CA,
    a certificate or a user is set.

    Args:
        settings: ``domain``, or empty for the host's own; certificates.
        root: Where the file system begins, for tests.

    Raises:
        EtcdUnavailable: No such record, or no answer; the message has the names asked for.
    """
    resolver = _resolver(root / "etc/resolv.conf")
    domains = (settings.domain,) if settings.domain else tuple(_domains(resolver, root))
    if not domains:
        raise _not_found("this host has no domain, neither in its name nor in /etc/resolv.conf")
    only_tls = bool(settings.ca_file or settings.cert_file or settings.username)
    absent: list[str] = []
    deadline_s = time.monotonic() + 3 * _LIFETIME_S
    for domain in domains:
        for service, scheme in _SERVICES[:1] if only_tls else _SERVICES:
            name = f"{service}.{domain}"
            left_s = min(_LIFETIME_S, deadline_s - time.monotonic())
            if left_s <= 0:
                raise _not_found(f"no answer in time about {name}")
            found = _ask(resolver, name, scheme, left_s)
            if found is not None:
                return found
            absent.append(name)
    raise _not_found(f"there is no {' and no '.join(absent)}")


def may_ask(settings: Settings) -> bool:
    """Whether DNS is asked for etcd: a domain is set.

    A host that joined before this was needed goes on with its own domain.
    """
    return bool(settings.etcd.domain) or settings.agent.mesh_copy.exists()


def not_named() -> EtcdUnavailable:
    """Return the error of a host that is not configured."""
    return EtcdUnavailable(
        "no etcd is known: agent.toml and the environment set neither etcd.endpoints nor"
        " etcd.domain",
        hint=_HINT,
    )


def client_for(settings: Settings) -> EtcdClient:
    """Make a client for a single run: of the endpoints that are set, else of those in DNS.

    Without any, every call on it fails with the reason.
    """
    client = EtcdClient(settings.etcd)
    if not settings.etcd.endpoints:
        try:
            if not may_ask(settings):
                raise not_named()
            client.use(look_up(settings.etcd).endpoints)
        except EtcdUnavailable as error:
            client.unknown(error)
    return client


def _not_found(why: str) -> EtcdUnavailable:
    return EtcdUnavailable(
        f"no etcd is known: agent.toml and the environment name none, and in DNS: {why}",
        hint=_HINT,
    )


def _resolver(path: Path) -> dns.resolver.Resolver:
    """The resolver as the host's file has it; a file with which nothing can be asked is said."""
    from dns import exception  # noqa: PLC0415 - only hosts that look load it
    from dns import resolver as dns_resolver  # noqa: PLC0415 - the same

    try:
        return dns_resolver.Resolver(str(path))
    except dns_resolver.NoResolverConfiguration as error:
        raise _not_found(f"there is no usable {path}") from error
    except (exception.DNSException, ValueError) as error:  # a name server that is no address,
        # a domain that no name can have, bytes that are no text
        raise _not_found(f"{path}: {_first_line(error)}") from error


def _domains(resolver: dns.resolver.Resolver, root: Path) -> Iterator[str]:
    """The host's domain as `hostname -d` has it, then what the resolver searches first."""
    seen: set[str] = set()
    name = socket.gethostname()
    found = [name, _name_in_hosts(name, root)]
    texts = [each.partition(".")[2] for each in found]
    texts += [each.to_text(omit_final_dot=True) for each in resolver.search[:1]]
    for text in texts:
        domain = text.strip(".").lower()
        if domain and domain not in seen and _HOST.fullmatch(domain):
            seen.add(domain)
            yield domain


def _name_in_hosts(name: str, root: Path) -> str:
    """The whole name of this host in /etc/hosts, "" when it is not there (hosts(5))."""
    try:
        lines = (root / "etc/hosts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.partition("#")[0].split()[1:]
        if name in words or any(word.startswith(f"{name}.") for word in words):
            return next((word for word in words if word.startswith(f"{name}.")), "")
    return ""


def _ask(resolver: dns.resolver.Resolver, name: str, scheme: str, timeout_s: float) -> Found | None:
    """Ask for one name. None when DNS says that there is no such record; raises otherwise."""
    from dns import exception  # noqa: PLC0415 - as above
    from dns import resolver as dns_resolver  # noqa: PLC0415 - the same
    from dns.rdtypes.IN.SRV import SRV  # noqa: PLC0415 - the same

    try:
        answer = resolver.resolve(name, "SRV", lifetime=timeout_s, search=False)
    except (dns_resolver.NXDOMAIN, dns_resolver.NoAnswer):
        return None
    except (exception.DNSException, OSError) as error:
        raise _not_found(f"{name}: {_first_line(error)}") from error
    if answer.rrset is None:
        return None
    urls = [
        f"{scheme}://{host}:{record.port}"
        for record in answer.rrset.processing_order()
        if isinstance(record, SRV)
        and _HOST.fullmatch(host := record.target.to_text(omit_final_dot=True))
        and record.port
    ]
    if not urls:
        raise _not_found(f"{name} names no usable host")
    unique = tuple(dict.fromkeys(urls))[:_MAX_ENDPOINTS]
    return Found(unique, told_by=name, ttl_s=float(answer.rrset.ttl))


def _first_line(error: Exception) -> str:
    text = re.sub(r"[^\x20-\x7e]+", " ", str(error)) or type(error).__name__
    return text[:200]


class Discovery:
    """Asks DNS again and again.

    Args:
        settings: As for :func:`look_up`.
        on_found: Called on the jobs' thread after every question, with what is in force now: an
            unanswered question keeps the endpoints and says the problem.
        jobs: Runs it; None: jobs of its own.
        look: How to ask.
    """

    name = "discovery"

    def __init__(
        self,
        settings: EtcdSettings,
        on_found: Callable[[Found], None],
        *,
        jobs: Jobs | None = None,
        look: Callable[[EtcdSettings], Found] = look_up,
    ) -> None:
        self._settings = settings
        self._on_found = on_found
        self._look = look
        self._found = Found()
        self._backoff = Backoff(first_s=2.0, longest_s=60.0)
        self._jobs = jobs or Jobs()

    def start(self) -> None:
        """Begin; the first question is asked at once."""
        self._jobs.add(self)

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        self._jobs.remove(self)

    def run(self) -> float:
        """Ask once; return the seconds until the next question."""
        found = self._found
        try:
            seen = self._look(self._settings)
        except EtcdUnavailable as error:
            found = replace(found, unavailable=error)
            wait_s = self._backoff.next_s()
        else:
            if set(seen.endpoints) != set(found.endpoints):
                _log.info("etcd-found", endpoints=list(seen.endpoints), by=seen.told_by)
            else:  # the order is drawn anew for each answer: no news
                seen = replace(seen, endpoints=found.endpoints)
            found = seen
            self._backoff.reset()
            wait_s = jittered(
                min(max(seen.ttl_s, _LEAST_REFRESH_S), _MOST_REFRESH_S), shorter=0.1, longer=0.0
            )
        self._found = found
        self._on_found(found)
        return wait_s
