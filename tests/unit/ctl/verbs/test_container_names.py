"""Which container of the mesh a name means, and what the networks of two containers let pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.main import main
from agent.ctl.path.mesh_containers import MeshAddress, address_of, find_address, network_access
from agent.errors import UsageError
from tests.unit.ctl.verbs.test_ping_map_report import peer

pytestmark = pytest.mark.unit

Serving = Callable[[Path, Mapping[str, Any]], AbstractContextManager[Any]]
Place = tuple[str, str, str]


def container(number: int, name: str, *places: Place, service: str | None = None) -> dict[str, Any]:
    return {
        "host_id": f"{number:032x}",
        "host_name": f"host{number}",
        "own": number == 0,
        "id": f"{number:02x}" + name.encode().hex().ljust(62, "0"),
        "name": name,
        "service": service,
        "addresses": [
            {
                "network": network or "bridge",
                "mesh_network": network or None,
                "address": address,
                "access": access,
                "aliases": ["alias-of-" + name],
            }
            for address, network, access in places
        ],
    }


SHOP = ("shop", "closed")
DOCUMENT: dict[str, Any] = {
    "containers": [
        container(0, "web", ("10.64.1.2", *SHOP)),
        container(1, "web", ("10.65.1.2", *SHOP), ("10.65.0.2", "", "open")),
        container(1, "db", ("10.65.1.3", *SHOP), service="database"),
        container(2, "db.old", ("10.66.1.3", *SHOP)),
        container(2, "shop-app-1", ("10.66.1.4", *SHOP), service="app"),
        container(2, "shop-app-2", ("10.66.1.5", *SHOP), service="app"),
        container(2, "cache", ("10.66.0.6", "", "published")),
    ]
}


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("db", "10.65.1.3"),
        ("db.old", "10.66.1.3"),
        ("db.shop", "10.65.1.3"),
        ("db.old.shop", "10.66.1.3"),
        ("db@host1", "10.65.1.3"),
        ("web@host0", "10.64.1.2"),
        ("web.shop@host1", "10.65.1.2"),
        ("web.bridge@host1", "10.65.0.2"),
        ("web.bridge", "10.65.0.2"),
        (f"web.shop@{1:032x}", "10.65.1.2"),
        ("database", "10.65.1.3"),
        ("alias-of-db", "10.65.1.3"),
        ("app@host2", None),
        ("01" + b"db".hex(), "10.65.1.3"),
        ("web", None),
        ("web@host1", None),
        ("db@host2", None),
        ("db.bridge", None),
        ("zzz", None),
        ("", None),
        ("@", None),
        (".", None),
        ("shop", None),
    ],
)
def test_a_name_means_one_address_or_is_refused(word: str, address: str | None) -> None:
    if address is None:
        with pytest.raises(UsageError) as caught:
            find_address(DOCUMENT, word)
        assert caught.value.hint
    else:
        assert str(find_address(DOCUMENT, word).address) == address


def test_a_name_of_several_is_refused_with_names_that_mean_one() -> None:
    with pytest.raises(UsageError) as caught:
        find_address(DOCUMENT, "web")
    assert caught.value.message == "'web' means 3 addresses of containers"
    choices = caught.value.hint.removeprefix("name one: ").split(", ")
    assert choices == ["web.shop@host0", "web.shop@host1", "web.bridge@host1"]
    assert len({find_address(DOCUMENT, each).address for each in choices}) == 3


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        find_address(DOCUMENT, "cahce")
    assert caught.value.hint == "did you mean cache?"


def at(address: str) -> MeshAddress:
    found = address_of(DOCUMENT, IPv4Address(address))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("source", "to", "port", "result", "says"),
    [
        ("10.64.1.2", "10.65.1.3", 0, "ok", "both ends are on network shop"),
        ("10.66.0.6", "10.65.1.3", 0, "failed", "host1 drops what comes from other networks"),
        (None, "10.65.1.3", 5432, "failed", "db is on network shop of host1, which is closed"),
        ("10.64.1.2", "10.65.0.2", 0, "ok", "it sees host0's address"),
        ("10.66.0.6", "10.65.0.2", 80, "ok", "which is open"),
        ("10.65.0.2", "10.66.0.6", 0, "ok", "which is published"),
        ("10.65.0.2", "10.66.0.6", 80, "unknown", "docker port cache"),
    ],
)
def test_what_networks_let_pass_and_which_rule_drops_the_rest(
    source: str | None, to: str, port: int, result: str, says: str
) -> None:
    found = network_access(at(source) if source else None, at(to), port)
    assert found[0] == result
    assert says in found[1]
    assert ("HOSTMESH-INBOUND, closed network" in found[1]) is (result == "failed")


def test_ping_finds_the_host_of_a_container(
    tmp_path: Path, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.sock"
    documents = {
        "GET /v1/leases": {"leases": [peer(0, own=True), peer(1), peer(2)]},
        "GET /v1/containers": DOCUMENT,
    }
    with serving(path, documents):
        assert main(["ping", "web", "--socket", str(path)]) == 2
        assert "web.bridge@host1" in capsys.readouterr().err
        assert main(["ping", "web@host0", "--socket", str(path)]) == 2
        assert "runs on this host" in capsys.readouterr().err
        assert main(["ping", "hots1", "--socket", str(path)]) == 2
        assert "did you mean host1?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--tcp", "0"), ("--tcp", "x"), ("--tcp", "70000")])
def test_a_port_that_is_none_is_refused(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "web", "db", *words]) == 2
    assert "not a port" in capsys.readouterr().err


def test_a_capture_sends_pings_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "web", "db", "--capture", "--tcp", "80"]) == 2
    assert "--capture sends a ping" in capsys.readouterr().err
