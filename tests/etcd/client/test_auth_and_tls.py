"""Users, passwords, tokens that run out, and certificates, on a real etcd."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EtcdAuthError, EtcdUnavailable
from agent.registry.directory import Directory
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, request
from tests.etcd.support.pki import issue, openssl
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server and a client certificate, one of another CA and an expired one."""
    folder = tmp_path_factory.mktemp("pki")
    for authority in ("ca", "other-ca"):
        openssl(
            folder,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{authority}.key", "-out", f"{authority}.crt"),
            *("-subj", f"/CN={authority}", "-days", "2"),
        )
    issue(folder, "server", "ca")
    issue(folder, "client", "ca")
    issue(folder, "stranger", "other-ca")
    issue(
        folder, "expired", "ca", "-not_before", "20200101000000Z", "-not_after", "20200102000000Z"
    )
    return folder


def _secure(pki: Path, name: str = "server", *more: str) -> Etcd:
    return Etcd(
        scheme="https",
        arguments=["--cert-file", f"{pki}/{name}.crt", "--key-file", f"{pki}/{name}.key", *more],
    )


def _serve(etcd: Etcd, pki: Path) -> None:
    etcd.start()
    flags = ["--cacert", f"{pki}/ca.crt", "--cert", f"{pki}/client.crt"]
    flags += ["--key", f"{pki}/client.key", "--insecure-skip-tls-verify"]
    eventually(lambda: etcd.ctl("endpoint", "health", check=False, flags=flags), timeout_s=20)


@pytest.fixture(scope="module")
def mutual(pki: Path) -> Iterator[Etcd]:
    """An etcd that wants client certificates."""
    etcd = _secure(pki, "server", "--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.crt")
    try:
        _serve(etcd, pki)
        yield etcd
    finally:
        etcd.__exit__()


def _files(pki: Path, name: str = "client", ca: str = "ca") -> dict[str, Any]:
    return {
        "ca_file": pki / f"{ca}.crt",
        "cert_file": pki / f"{name}.crt",
        "key_file": pki / f"{name}.key",
    }


def test_tls_with_a_ca_only(pki: Path) -> None:
    etcd = _secure(pki)
    try:
        _serve(etcd, pki)
        with registry(etcd, ca_file=pki / "ca.crt") as mesh:
            mesh.create_config(config())
            assert mesh.claim(request(1)).host_id == host(1)
    finally:
        etcd.__exit__()


def test_mutual_tls_and_a_watch_over_it(pki: Path, mutual: Etcd) -> None:
    views = Heard()
    with registry(mutual, **_files(pki)) as mesh:
        mesh.create_config(config())
        directory = Directory(mesh, views, Heard())
        directory.start()
        lease = mesh.claim(request(1))
        eventually(lambda: views.last and views.last.lease_of(host(1)) == lease)
        directory.stop()


@pytest.mark.parametrize(
    "files",
    [{"ca": "other-ca"}, {"name": "stranger"}],
    ids=["wrong CA", "client certificate of another CA"],
)
def test_certificates_that_do_not_fit_are_an_error_that_says_so(
    pki: Path, mutual: Etcd, files: dict[str, str]
) -> None:
    with registry(mutual, **_files(pki, **files)) as mesh:
        with pytest.raises((EtcdAuthError, EtcdUnavailable)) as refused:
            mesh.snapshot()
        assert mutual.endpoint in refused.value.message
        if files.get("ca"):
            assert isinstance(refused.value, EtcdAuthError)
            assert "ca_file" in refused.value.hint


def test_an_expired_server_certificate_is_an_error_that_says_so(pki: Path) -> None:
    etcd = _secure(pki, "expired")
    try:
        _serve(etcd, pki)
        with (
            registry(etcd, ca_file=pki / "ca.crt") as mesh,
            pytest.raises(EtcdAuthError) as refused,
        ):
            mesh.snapshot()
        assert "dates" in refused.value.hint
    finally:
        etcd.__exit__()


def test_a_certificate_file_that_is_missing_is_named(mutual: Etcd, pki: Path) -> None:
    with (
        registry(mutual, ca_file=pki / "absent.crt") as mesh,
        pytest.raises(EtcdAuthError, match=r"absent\.crt"),
    ):
        mesh.snapshot()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Etcd, Path]]:
    """An etcd with users whose tokens live two seconds; and the file with the password."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    with Etcd(arguments=["--auth-token-ttl", "2"]) as etcd:
        for command in (
            "user add root:rootpw",
            "user grant-role root root",
            "user add mesh:secret",
            "role add mesh",
            "role grant-permission mesh readwrite --prefix=true /hostmesh/",
            "user grant-role mesh mesh",
            "auth enable",
        ):
            etcd.ctl(*command.split())
        yield etcd, password


def test_user_and_password_and_a_token_that_runs_out(guarded: tuple[Etcd, Path]) -> None:
    """Unary calls and watches both go on after the token's lifetime, without a gap to be seen."""
    etcd, password = guarded
    views, problems = Heard(), Heard()
    with registry(etcd, username="mesh", password_file=password) as mesh:
        mesh.create_config(config())
        mesh.claim(request(1))
        directory = Directory(mesh, views, problems)
        directory.start()
        eventually(lambda: views.last)
        for number in range(2, 4):
            time.sleep(3)
            lease = mesh.claim(request(number))
            eventually(lambda: views.last.lease_of(host(number)) == lease)  # noqa: B023  # at once
        assert [error for error, _ in problems.items if error is not None] == []
        directory.stop()


@pytest.mark.parametrize("user", ["", "mesh", "unknown"])
def test_no_user_or_a_wrong_password_is_an_error_that_says_so(
    guarded: tuple[Etcd, Path], tmp_path: Path, user: str
) -> None:
    etcd, _ = guarded
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    with registry(etcd, username=user, password_file=wrong) as mesh:
        with pytest.raises(EtcdAuthError) as refused:
            mesh.snapshot()
        assert "username" in refused.value.hint
        assert "wrong" not in str(refused.value)


def test_a_password_that_cannot_be_read_is_an_error_that_names_its_file(
    guarded: tuple[Etcd, Path], tmp_path: Path
) -> None:
    etcd, _ = guarded
    with (
        registry(etcd, username="mesh", password_file=tmp_path / "absent") as mesh,
        pytest.raises(EtcdAuthError, match="absent"),
    ):
        mesh.snapshot()


def test_a_user_without_a_grant_on_the_prefix_is_told(guarded: tuple[Etcd, Path]) -> None:
    etcd, password = guarded
    with (
        registry(etcd, prefix="/else", username="mesh", password_file=password) as mesh,
        pytest.raises(EtcdAuthError, match="permission denied"),
    ):
        mesh.snapshot()


def test_users_set_here_before_authentication_is_enabled_do_no_harm(
    etcd: Etcd, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    with registry(etcd, username="mesh", password_file=password) as mesh:
        assert mesh.create_config(config()).mod_revision > 0


_FIRST_USERS = (
    "user add root:rootpw",
    "user grant-role root root",
    "user add mesh:secret",
    "user grant-role mesh root",
    "auth enable",
)


@pytest.mark.parametrize("mutual_too", [False, True], ids=["CA only", "mutual TLS"])
def test_user_and_password_over_tls_and_a_token_that_runs_out(
    pki: Path, tmp_path: Path, mutual_too: bool
) -> None:
    """Tokens live two seconds: calls and the watch go on past them, over TLS as without."""
    password = tmp_path / "password"
    password.write_text("secret")
    wanted = ["--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.crt"] if mutual_too else []
    files = _files(pki) if mutual_too else {"ca_file": pki / "ca.crt"}
    etcd = _secure(pki, "server", "--auth-token-ttl", "2", *wanted)
    views, problems = Heard(), Heard()
    try:
        _serve(etcd, pki)
        flags = ["--cacert", f"{pki}/ca.crt", "--cert", f"{pki}/client.crt"]
        flags += ["--key", f"{pki}/client.key"]
        for command in _FIRST_USERS:
            etcd.ctl(*command.split(), flags=flags)
        with registry(etcd, username="mesh", password_file=password, **files) as mesh:
            mesh.create_config(config())
            directory = Directory(mesh, views, problems)
            directory.start()
            eventually(lambda: views.last)
            for number in range(1, 3):
                lease = mesh.claim(request(number))
                eventually(lambda: views.last.lease_of(host(number)) == lease)  # noqa: B023  # at once
                time.sleep(3)
            beat = mesh.snapshot()
            assert len(beat.leases) == 2
            assert [error for error, _ in problems.items if error is not None] == []
            directory.stop()
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong")
        with (
            registry(etcd, username="mesh", password_file=wrong, **files) as mesh,
            pytest.raises(EtcdAuthError) as refused,
        ):
            mesh.snapshot()
        assert "username" in refused.value.hint
    finally:
        etcd.__exit__()


def test_an_expired_client_certificate_is_an_error_that_says_so(pki: Path, mutual: Etcd) -> None:
    with registry(mutual, **_files(pki, name="expired")) as mesh:
        with pytest.raises((EtcdAuthError, EtcdUnavailable)) as refused:
            mesh.snapshot()
        assert mutual.endpoint in refused.value.message
        assert refused.value.hint
