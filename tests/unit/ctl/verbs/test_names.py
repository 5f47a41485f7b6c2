"""Names as a document, as agentctl prints them, and why an asker gets an address or not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.ctl.output import lay_out
from agent.ctl.verbs import names, resolve
from agent.daemon.api.names import NamesSnapshot, names_document, read_snapshot
from agent.errors import StateError
from agent.model import Access, HostId
from agent.model.names import (
    HostNames,
    LocalNames,
    LocalNetwork,
    Name,
    NamedAddress,
    NameKind,
)
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.unit

HERE, THERE = HostId("a" * 32), HostId("b" * 32)


def named(address: str, *texts: tuple[str, NameKind], **more: Any) -> NamedAddress:  # noqa: ANN401
    found = tuple(Name(text, kind) for text, kind in texts)
    return NamedAddress(address=IPv4Address(address), names=found, **more)


HOSTS = (
    HostNames(
        host_id=HERE,
        addresses=(
            named("192.0.2.1", ("one.host", NameKind.OWN)),
            named("10.64.0.2", ("db.one", NameKind.HOST), ("db", NameKind.PLAIN), network="bridge"),
        ),
    ),
    HostNames(
        host_id=THERE,
        addresses=(
            named("192.0.2.2", ("two.host", NameKind.OWN)),
            named("10.65.1.2", ("api.web", NameKind.NETWORK), network="w", mesh_network="web"),
            named("10.65.2.2", ("api.web", NameKind.PROJECT), network="p", healthy=False),
            named("10.65.3.2", ("x.two", NameKind.HOST), network="c", access=Access.CLOSED),
        ),
    ),
)
LOCAL = LocalNames(
    domain="mesh.example",
    host_id=HERE,
    boot_id="boot",
    complete=True,
    networks=(
        LocalNetwork(name="bridge", bridge="docker0", subnets=(IPv4Network("10.64.0.0/17"),)),
        LocalNetwork(
            name="shut",
            bridge="br-1",
            subnets=(IPv4Network("10.64.128.0/24"),),
            access=Access.CLOSED,
        ),
        LocalNetwork(
            name="w", bridge="br-2", subnets=(IPv4Network("10.64.129.0/24"),), mesh_network="web"
        ),
    ),
    askers={IPv4Address("10.64.0.7"): ("bridge", "w")},
)


def document() -> dict[str, Any]:
    snapshot = NamesSnapshot(local=LOCAL, age_s=1.24, hosts={each.host_id: each for each in HOSTS})
    found = names_document(snapshot)
    check("names", found)
    return found


def test_every_name_is_listed_and_the_shadowed_one_says_by_which() -> None:
    shown = lay_out(names.table(document()), None)
    assert shown[0] == "names under mesh.example"
    assert [" ".join(line.split()) for line in shown[2:]] == [
        "api.web 10.65.1.2 two web network -",
        "api.web 10.65.2.2 two p project shadowed by the network's name, not healthy",
        "db.one 10.64.0.2 one bridge host -",
        "one.host 192.0.2.1 one - own -",
        "two.host 192.0.2.2 two - own -",
        "x.two 10.65.3.2 two c host -",
    ]


def test_a_mesh_without_names_says_how_to_turn_them_on(tmp_path: Path) -> None:
    found = names_document(read_snapshot(tmp_path / "none"))
    check("names", found)
    assert lay_out(names.table(found), None) == [
        "this mesh has no names; to turn them on: agentctl config set --names on"
    ]


def test_a_damaged_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text("{")
    with pytest.raises(StateError, match="cannot be used"):
        read_snapshot(tmp_path)


def why(name: str, asker: str | None) -> list[tuple[str, str | None]]:
    at = IPv4Address(asker) if asker else None
    found = resolve.explained(document(), f"{name}.mesh.example", at)
    return [(each["address"], each["why"]) for each in found]


@pytest.mark.parametrize(
    ("name", "asker", "expected"),
    [
        ("api.web", "10.64.0.3", None),
        ("api.web", "10.64.128.3", "the asker's network (shut) is closed or internal"),
        ("api.web", "172.17.0.2", "the asker is in no network of this host's Docker"),
        ("api.web", None, None),
        ("x.two", "10.64.0.3", "network c is closed to other networks"),
        ("db.one", "10.64.0.3", None),
        ("db.one", "10.64.129.3", "Docker keeps network bridge of this host from the asker's"),
        ("db.one", "10.64.0.7", None),
        ("two.host", "10.64.128.3", None),
    ],
)
def test_promise_9_a_name_that_is_hidden_says_by_which_network(
    name: str, asker: str | None, expected: str | None
) -> None:
    assert why(name, asker)[0][1] == expected


def test_a_shadowed_name_says_which_comes_first() -> None:
    assert why("api.web", None)[1] == (
        "10.65.2.2",
        "the network's name of the same spelling comes first",
    )
