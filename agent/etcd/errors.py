"""Translate gRPC's status codes to the agent's errors, with endpoint, cause and hint."""

from __future__ import annotations

import re
from typing import Any

from agent.errors import EtcdAuthError, EtcdError, EtcdUnavailable, HostmeshError
from agent.etcd.etcd3_compat import grpc
from agent.model import Condition, Severity

__all__ = [
    "CertificateRefusedError",
    "CompactedError",
    "EtcdLeaseExistsError",
    "EtcdLeaseGoneError",
    "ForeignClusterError",
    "PermissionDeniedError",
    "TokenExpiredError",
    "TooLargeError",
    "contact_condition",
    "translate",
]


class CompactedError(EtcdError):
    """The wanted revision is no longer in etcd's history: take a new snapshot."""


class EtcdLeaseGoneError(EtcdError):
    """The etcd lease that a key was to be attached to has expired or was revoked."""


class EtcdLeaseExistsError(EtcdError):
    """An etcd lease with this id is there already: our own earlier try got through."""


class TooLargeError(EtcdError):
    """An answer is larger than this client accepts; ask for less at a time."""


class ForeignClusterError(EtcdUnavailable):
    """An endpoint is of another cluster than the mesh's: the next one may not be."""


class TokenExpiredError(EtcdAuthError):
    """etcd no longer knows the token; authenticating again gives a new one."""


class PermissionDeniedError(EtcdAuthError):
    """The account has no right to that key; another account may have it."""


class CertificateRefusedError(EtcdAuthError):
    """No TLS session: one side does not accept the other's certificate."""


_TLS = re.compile(r"ssl|tls|certificate|(?<!tcp )handshake|x509", re.IGNORECASE)
"""gRPC's "tcp handshaker shutdown" is a connection that was not made, not a certificate."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_MAX_DETAILS = 300

_HINT_REACH = "check that etcd runs there and that this host reaches it: etcdctl endpoint health"
_HINT_USER = "check [etcd] username and password_file: deploy/etcd/hosts.sh add NAME repairs them"
_HINT_NO_USER = (
    "set [etcd] cert_file and key_file, or username and password_file, as `hosts.sh add` wrote them"
)
_HINT_ROLE = "give this host's account its role again: deploy/etcd/hosts.sh add NAME"
_HINT_TLS = (
    "check [etcd] ca_file, cert_file and key_file, their dates, and that the endpoint's name"
    " or address is in etcd's certificate"
)
_EXPIRED_TOKEN = ("invalid auth token", "revision of auth store is old")


def _details(error: Any) -> str:  # noqa: ANN401 - grpc ships no types
    """Return what the server said, printable and short: it is another machine's text."""
    text = _UNPRINTABLE.sub(" ", str(error.details() or ""))
    return text.removeprefix("etcdserver: ")[:_MAX_DETAILS]


def translate(error: Any, endpoint: str, action: str) -> EtcdError:  # noqa: ANN401 - as above
    """Turn a ``grpc.RpcError`` into an error of this module.

    Args:
        error: The error with ``code()`` and ``details()``.
        endpoint: Where it happened, as in settings.
        action: What was being done, "read the config", for the message.
    """
    code, details = error.code(), _details(error)
    what = f"cannot {action} at {endpoint}: {details or code.name.lower()}"
    status = grpc.StatusCode
    if code == status.UNAUTHENTICATED or any(text in details for text in _EXPIRED_TOKEN):
        return TokenExpiredError(what, hint=_HINT_USER)
    if code == status.PERMISSION_DENIED or "user name not found" in details:
        return PermissionDeniedError(what, hint=_HINT_ROLE)
    if "authentication failed" in details:
        return EtcdAuthError(what, hint=_HINT_USER)
    if "user name is empty" in details:
        return EtcdAuthError(what, hint=_HINT_NO_USER)
    tls = endpoint.startswith("https") and _TLS.search(details)
    if code == status.UNAVAILABLE and tls:
        return CertificateRefusedError(what, hint=_HINT_TLS)
    return _by_code(code, details, what)


def contact_condition(error: HostmeshError, hint: str) -> Condition:
    """Say why etcd cannot be read or followed; ``hint`` is for where the error has none."""
    refused = isinstance(error, EtcdAuthError)
    return Condition(
        name="etcd-auth-failed" if refused else "etcd-unreachable",
        severity=Severity.ERROR if refused else Severity.WARNING,
        cause=error.message,
        hint=error.hint or hint,
    )


_SPECIAL: tuple[tuple[Any, str, type[EtcdError]], ...] = (
    (grpc.StatusCode.OUT_OF_RANGE, "compacted", CompactedError),
    (grpc.StatusCode.NOT_FOUND, "lease", EtcdLeaseGoneError),
    (grpc.StatusCode.FAILED_PRECONDITION, "lease already exists", EtcdLeaseExistsError),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max", TooLargeError),
)


def _by_code(code: Any, details: str, what: str) -> EtcdError:  # noqa: ANN401 - as above
    status = grpc.StatusCode
    for special, text, error in _SPECIAL:
        if code == special and text in details:
            return error(what)
    if code == status.RESOURCE_EXHAUSTED and "space exceeded" in details:
        return EtcdError(what, hint="etcd's database is full: compact, defragment, disarm alarm")
    if code == status.DEADLINE_EXCEEDED:
        return EtcdUnavailable(what + " (no answer in time)", hint=_HINT_REACH)
    if code in {
        status.UNAVAILABLE,
        status.CANCELLED,
        status.RESOURCE_EXHAUSTED,  # "too many requests"
        status.ABORTED,
        status.INTERNAL,
        status.UNKNOWN,  # a member's Go error without a code, such as "raft: stopped"
    }:
        return EtcdUnavailable(what, hint=_HINT_REACH)
    return EtcdError(what)
