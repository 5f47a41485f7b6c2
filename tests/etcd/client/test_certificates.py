"""Certificates that expire, are renewed while the client runs, or are not there at all."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EtcdAuthError
from agent.etcd.certificates import own_certificates, served_certificate
from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import EndpointCheck, open_condition
from agent.etcd.errors import CertificateRefusedError
from agent.model import Condition
from agent.registry.directory import Directory
from agent.settings import EtcdSettings, Settings
from agent.standalone.doctor.findings import Findings
from agent.standalone.doctor.mesh_checks import look_at_etcd
from tests.etcd.support.etcdlab import Etcd, Heard, Wire, config, host, registry, request
from tests.etcd.support.pki import issue, openssl
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def lasting(folder: Path, name: str, left: timedelta) -> None:
    """Make a certificate that ends then."""
    now = datetime.now(UTC)
    end = f"{now + left:%Y%m%d%H%M%SZ}"
    issue(folder, name, "ca", "-not_before", "20200101000000Z", "-not_after", end)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    ca = ("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "400")
    openssl(folder, "req", "-x509", *_EC, *ca)
    lasting(folder, "server", timedelta(days=100))
    return folder


@pytest.fixture(scope="module")
def mutual(pki: Path) -> Iterator[Etcd]:
    """An etcd that wants client certificates."""
    flags = ["--cert-file", "server.crt", "--key-file", "server.key", "--client-cert-auth"]
    flags = [str(pki / each) if "." in each else each for each in flags]
    etcd = Etcd(scheme="https", arguments=[*flags, "--trusted-ca-file", f"{pki}/ca.crt"])
    lasting(pki, "tool", timedelta(days=1))
    own = ["--cacert", "ca.crt", "--cert", "tool.crt", "--key", "tool.key"]
    own = [str(pki / each) if "." in each else each for each in own]
    try:
        etcd.start()
        eventually(lambda: etcd.ctl("endpoint", "health", check=False, flags=own), timeout_s=20)
        yield etcd
    finally:
        etcd.__exit__()


def settings(etcd: Etcd, pki: Path, own: Path) -> EtcdSettings:
    return EtcdSettings(
        endpoints=(etcd.endpoint,),
        ca_file=pki / "ca.crt",
        cert_file=own / "own.crt",
        key_file=own / "own.key",
    )


def put(pki: Path, name: str, own: Path, *endings: str) -> None:
    """Copy a certificate, a key or both to where the client's settings name them."""
    for each in endings or ("key", "crt"):
        shutil.copy(pki / f"{name}.{each}", own / "own.new")
        (own / "own.new").rename(own / f"own.{each}")


def test_promise_9_a_client_goes_on_with_renewed_files_when_the_old_ones_expire(
    pki: Path, mutual: Etcd, tmp_path: Path
) -> None:
    lasting(pki, "brief", timedelta(seconds=6))
    lasting(pki, "next", timedelta(days=90))
    put(pki, "brief", tmp_path)
    views, problems = Heard(), Heard()
    wanted = settings(mutual, pki, tmp_path)
    more: dict[str, Any] = {
        "ca_file": wanted.ca_file,
        "cert_file": wanted.cert_file,
        "key_file": wanted.key_file,
    }
    with registry(mutual, **more) as mesh:
        mesh.create_config(config())
        directory = Directory(mesh, views, problems)
        directory.start()
        try:
            eventually(lambda: views.last)
            (end_s,) = (
                each.not_after_s for each in own_certificates(wanted) if each.role == "client"
            )
            eventually(lambda: time.time() > end_s, timeout_s=20)
            mesh.client.reconnect()  # connections that are open are not asked again
            with pytest.raises(CertificateRefusedError, match=r"own\.crt expired on"):
                mesh.snapshot()
            eventually(
                lambda: isinstance((problems.last or [None])[0], EtcdAuthError), timeout_s=20
            )
            put(pki, "next", tmp_path)
            lease = eventually(lambda: mesh.claim(request(1)), timeout_s=5)
            eventually(lambda: views.last.lease_of(host(1)) == lease, timeout_s=20)
            eventually(lambda: problems.last[0] is None, timeout_s=20)
        finally:
            directory.stop()


def test_half_copied_files_leave_the_connection_as_it_is(
    pki: Path, mutual: Etcd, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        lasting(pki, name, timedelta(days=90))
    put(pki, "first", tmp_path)
    client = EtcdClient(settings(mutual, pki, tmp_path))
    found = Heard()
    check = EndpointCheck(client, found)
    try:
        client.range(b"/a")
        before = client._pool.current()
        put(pki, "second", tmp_path, "key")
        client.range(b"/a")
        assert client._pool.current() is before
        check.run()
        (condition,) = found.last
        assert condition.name == "etcd-auth-failed"
        put(pki, "second", tmp_path, "crt")
        client.range(b"/a")
        assert client._pool.current() is not before
        check.run()
        assert found.last == ()
    finally:
        client.close()


def test_certificates_that_end_within_two_weeks_are_named(
    pki: Path, mutual: Etcd, tmp_path: Path
) -> None:
    for left, expected in ((timedelta(days=13), "warning"), (timedelta(days=15), None)):
        lasting(pki, "soon", left)
        put(pki, "soon", tmp_path)
        client = EtcdClient(settings(mutual, pki, tmp_path))
        found = Heard()
        check = EndpointCheck(client, found)
        try:
            check.run()
        finally:
            client.close()
        assert [(each.name, each.severity) for each in found.last or ()] == (
            [("etcd-certificate-expires", expected)] if expected else []
        )
        assert [each.role for each in check.certificates] == ["client", "ca", "server"]


def test_the_last_moment_is_what_openssl_says(pki: Path, mutual: Etcd, tmp_path: Path) -> None:
    put(pki, "server", tmp_path)
    wanted = settings(mutual, pki, tmp_path)
    found = {each.role: each.not_after_s for each in own_certificates(wanted)}
    found["server"] = served_certificate(mutual.endpoint, wanted).not_after_s
    for role, file in (("client", "server"), ("server", "server"), ("ca", "ca")):
        shown = subprocess.run(
            ["openssl", "x509", "-in", pki / f"{file}.crt", "-noout", "-enddate"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert found[role] == ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter="))


@pytest.fixture
def reachable() -> Iterator[Etcd]:
    with Wire(7) as wire, Etcd(wire=wire) as etcd:
        yield etcd


def _open(etcd: Etcd) -> Condition | None:
    client = EtcdClient(EtcdSettings(endpoints=(etcd.endpoint,)))
    try:
        return open_condition(client, etcd.endpoint)
    finally:
        client.close()


def test_promise_9_an_etcd_that_is_open_to_all_is_a_condition(reachable: Etcd) -> None:
    found = _open(reachable)
    assert found is not None
    assert found.name == "etcd-open"
    assert "no TLS and no accounts" in found.cause
    for command in ("user add root:pw", "user grant-role root root", "auth enable"):
        reachable.ctl(*command.split())
    found = _open(reachable)
    assert found is not None
    assert "no TLS:" in found.cause


def test_a_new_mesh_in_an_open_etcd_keeps_containers_from_it(reachable: Etcd, etcd: Etcd) -> None:
    with registry(reachable) as mesh, registry(etcd, prefix="/closed") as at_loopback:
        assert mesh.create_config(config()).etcd_closed
        assert not at_loopback.create_config(config()).etcd_closed
        assert mesh.snapshot().config == mesh.create_config(config())


def test_the_doctor_warns_of_an_etcd_that_is_open_to_all(reachable: Etcd) -> None:
    findings = Findings()
    settings = Settings(etcd=EtcdSettings(endpoints=(reachable.endpoint,)))
    client = EtcdClient(settings.etcd)
    try:
        look_at_etcd(settings, client, findings)
    finally:
        client.close()
    found = {each["check"]: each["state"] for each in findings.document()["checks"]}
    assert found["etcd access"] == "warn"


def test_an_etcd_on_loopback_is_open_to_nobody_else(etcd: Etcd) -> None:
    assert _open(etcd) is None
