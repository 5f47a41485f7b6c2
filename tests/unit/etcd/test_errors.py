"""Translate gRPC errors for an operator."""

from __future__ import annotations

import grpc
import pytest

from agent.errors import EtcdAuthError, EtcdUnavailable
from agent.etcd.errors import CertificateRefusedError, contact_condition, translate

pytestmark = pytest.mark.unit


class Refusal:
    """A gRPC error as the library hands it over."""

    def __init__(self, details: str) -> None:
        self._details = details

    def code(self) -> object:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    "details",
    [
        "failed to connect to all addresses; last error: UNKNOWN: tcp handshaker shutdown",
        "failed to connect to all addresses; last error: UNKNOWN: Connection refused",
        "Socket closed",
    ],
)
def test_a_connection_that_was_not_made_is_no_certificate_trouble(details: str) -> None:
    for scheme in ("http", "https"):
        found = translate(Refusal(details), f"{scheme}://192.0.2.1:2379", "read")
        assert isinstance(found, EtcdUnavailable)
        assert not isinstance(found, EtcdAuthError)


def test_certificate_trouble_is_named_on_https_only() -> None:
    details = "Ssl handshake failed: SSL_ERROR_SSL: certificate verify failed"
    assert isinstance(
        translate(Refusal(details), "https://192.0.2.1:2379", "read"), CertificateRefusedError
    )
    assert isinstance(translate(Refusal(details), "http://192.0.2.1:2379", "read"), EtcdUnavailable)


def test_a_refused_login_is_a_condition_of_its_own() -> None:
    refused = contact_condition(EtcdAuthError("authentication failed", hint="repair"), "wait")
    assert (refused.name, refused.severity, refused.hint) == ("etcd-auth-failed", "error", "repair")
    away = contact_condition(EtcdUnavailable("no answer"), "wait")
    assert (away.name, away.severity, away.hint) == ("etcd-unreachable", "warning", "wait")
