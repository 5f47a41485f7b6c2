"""The kinds of records in etcd: declared once, and everything else follows from that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.etcd.kv import Event, Record
from agent.mesh.check.result import CheckState, CheckSummary, CheckTest, WorstPeer
from agent.model import Access, DockerState, Heartbeat, HostId, Lease, MeshConfig, View
from agent.model.endpoint import Endpoint, EndpointAddress, Health
from agent.model.network import MeshNetwork, NetworkSlice
from agent.registry.record_store import RecordStore
from agent.registry.records import KINDS, LEASES, Keys, LockRecord, RecordKind, Writer

pytestmark = pytest.mark.unit

_ROOT = Path(__file__).parents[3]
_KEYS = Keys("/hostmesh")
_HOST = HostId("0123456789abcdef0123456789abcdef")
_SUBNET = IPv4Network("10.64.0.0/16")
_ADDRESS = IPv4Address("192.0.2.1")
_BEAT = Heartbeat(
    host_id=_HOST,
    host_name="host1",
    node_address=_ADDRESS,
    subnet=_SUBNET,
    docker=DockerState.READY,
    agent_version="0.2.0",
    boot_id="b",
    started_s=1.0,
    level=2,
)
_LEASE = Lease(subnet=_SUBNET, node_address=_ADDRESS, backend="host-gw", host_id=_HOST, ttl_s=60)
_CONFIG = MeshConfig(
    cidr=IPv4Network("10.64.0.0/10"),
    subnet_len=16,
    subnet_min=IPv4Address("10.64.0.0"),
    subnet_max=IPv4Address("10.127.0.0"),
    level=2,
)
_EXAMPLES: Mapping[str, tuple[str, Any, tuple[Any, ...]]] = {
    "config": ("config", None, (_CONFIG,)),
    "subnets": ("subnets/10.64.0.0-16", _SUBNET, (replace(_LEASE, host_name="host1"),)),
    "owners": (
        f"owners/{_HOST}/10.64.0.0-16",
        (_HOST, _SUBNET),
        (replace(_LEASE, host_name="host1"),),
    ),
    "hosts": (f"hosts/{_HOST}", _HOST, (_BEAT,)),
    "clones": (f"clones/{_HOST}/192.0.2.1", (_HOST, _ADDRESS), (_BEAT,)),
    "memory": (f"memory/{_HOST}", _HOST, (_SUBNET,)),
    "turns": ("turns/docker-restart", "docker-restart", (LockRecord(_HOST, "host1"),)),
    "networks": (
        "networks/shop",
        "shop",
        (MeshNetwork(name="shop", access=Access.CLOSED, hosts=("web-*", _HOST), removed=True),),
    ),
    "slices": (
        f"slices/{_HOST}/shop",
        (_HOST, "shop"),
        (
            NetworkSlice(
                host_id=_HOST, network="shop", subnet=IPv4Network("10.64.1.0/24"), since_s=1.5
            ),
        ),
    ),
    "endpoints": (
        f"endpoints/{_HOST}/{'c' * 16}",
        (_HOST, "c" * 16),
        (
            Endpoint(
                host_id=_HOST,
                container_id="c" * 64,
                name="shop-web-1",
                project="shop",
                service="web",
                health=Health.STARTING,
                addresses=(
                    EndpointAddress(
                        network="shop_front",
                        address=IPv4Address("10.64.1.2"),
                        mesh_network="front",
                        access=Access.OPEN,
                        aliases=("web", "www"),
                    ),
                    EndpointAddress(network="bridge", address=IPv4Address("10.64.0.2")),
                ),
                boot_id="b" * 32,
            ),
        ),
    ),
    "checks": (
        f"checks/{_HOST}",
        _HOST,
        (
            CheckSummary(
                host_id=_HOST,
                began_s=1.5,
                own_failed=(CheckTest.NAMES,),
                counts={CheckState.FAILED: 1, CheckState.OK: 7},
                worst=(
                    WorstPeer(
                        subnet=IPv4Network("10.65.0.0/16"),
                        state=CheckState.FAILED,
                        failed=(CheckTest.PATH, CheckTest.MTU),
                        rtt_s=0.25,
                    ),
                ),
            ),
        ),
    ),
    "grace": ("grace", None, ()),
    "reservations": ("reservations/10.64.0.0-16", _SUBNET, (_HOST,)),
}


def test_every_kind_has_an_example_here() -> None:
    assert set(_EXAMPLES) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_written_is_found_under_its_key_and_read_again(kind: RecordKind[Any, Any]) -> None:
    path, key, values = _EXAMPLES[kind.name]
    name = f"/hostmesh/{path}".encode()
    assert _KEYS.of(kind, *(() if key is None else (key,))) == name
    found, rest = _KEYS.split(name)
    assert (found, kind.key(rest)) == (kind, key)
    inside = _KEYS.range(kind)
    assert inside.start <= name < inside.end
    record = Record(name, kind.encode(*values))
    assert len(record.value) < 1024 < kind.largest_bytes
    assert _KEYS.read(kind, record) == (values[0] if values else None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_promise_10_larger_values_are_not_read(kind: RecordKind[Any, Any]) -> None:
    path, key, _ = _EXAMPLES[kind.name]
    record = Record(f"/hostmesh/{path}".encode(), b" " * (kind.largest_bytes + 1))
    with pytest.raises(ValueError, match=f"more than {kind.largest_bytes}"):
        kind.read(key, record)


@pytest.mark.parametrize(
    ("key", "following"),
    [
        ("", "clones/"),
        ("a", "clones/"),
        ("config", "config\0"),
        ("config/x", "grace"),
        ("confix", "grace"),
        ("endpoints/x", "grace"),
        ("hosts/x", "hosts/x\0"),
        ("hosts0", "memory/"),
        ("memory0", "networks/"),
        ("other/1", "owners/"),
        ("owners0", "reservations/"),
        ("reservations0", "slices/"),
        ("turns/x", "turns/x\0"),
        ("turnsy", None),
    ],
)
def test_a_list_goes_on_behind_unknown_keys(key: str, following: str | None) -> None:
    found = _KEYS.following(f"/hostmesh/{key}".encode())
    assert found == (None if following is None else f"/hostmesh/{following}".encode())


@pytest.mark.parametrize("key", ["config/x", "subnets", "grace/", "more", "", "hosts2/x"])
def test_a_key_of_no_kind_is_left_alone(key: str) -> None:
    assert _KEYS.split(f"/hostmesh/{key}".encode())[0] is None


def test_a_mesh_is_followed_without_the_kinds_that_are_followed_apart() -> None:
    apart = [kind for kind in KINDS if kind.apart]
    assert [kind.name for kind in apart] == ["endpoints", "checks"]
    ranges = _KEYS.followed
    for kind in KINDS:
        path, key, _ = _EXAMPLES[kind.name]
        name = _KEYS.of(kind, *(() if key is None else (key,)))
        assert any(start <= name < end for start, end in ranges) is not kind.apart, path
    last = ranges[-1]
    elsewhere = {kind.name for kind in KINDS if not last.start <= _KEYS.range(kind).start}
    assert elsewhere == {"checks", "clones", "config", "endpoints"}, (
        "what may be older than a view's revision"
    )
    assert last.end == _KEYS.everything.end
    assert len(ranges) == 2, "each one is a watch of every host"


def test_a_view_shows_the_kinds_that_say_so() -> None:
    shown = {kind.view for kind in KINDS if kind.view}
    assert shown <= {field.name for field in fields(View)}
    assert {kind.view for kind in KINDS if kind.cached} == {
        "config",
        "leases",
        "memory",
        "networks",
        "reservations",
        "slices",
    }, "what agent/registry/copy.py writes"


def test_a_kind_takes_one_declaration() -> None:
    """A new one: its records are set aside when they are bad, its number is limited."""
    toy: RecordKind[str, int] = RecordKind(
        name="toys",
        pattern="<name>",
        spell=str,
        parse=str,
        decode=lambda _, record: int(record.value),
        encode=lambda number: str(number).encode(),
        writer=Writer.HOST,
        view="memory",  # any attribute of a view will do
        most=2,
    )
    keys = Keys("/hostmesh", (*(kind for kind in KINDS if kind.name != "memory"), toy))
    records = RecordStore(keys, cluster_id=1, revision=1)
    good, bad = keys.of(toy, "good"), keys.of(toy, "bad")
    assert records.apply([Event(good, Record(good, b"7")), Event(bad, Record(bad, b"x"))])
    view = records.view()
    shown: dict[Any, Any] = dict(view.memory)
    assert shown == {"good": 7}
    assert [each.key for each in view.set_aside] == ["/hostmesh/toys/bad"]


def test_the_architecture_page_lists_every_kind() -> None:
    page = (_ROOT / "docs" / "architecture.md").read_text()
    cell = r" ([^|]*) \|"
    rows = re.findall(rf"^\| `<prefix>/([^`]*)` \|{cell}{cell}{cell}$", page, re.MULTILINE)
    assert {path: (writer, ttl) for path, _, writer, ttl in rows} == {
        "/".join(filter(None, (kind.name, kind.pattern))): (str(kind.writer), kind.ttl or "none")
        for kind in KINDS
    }


def test_a_hosts_role_may_write_what_hosts_write() -> None:
    script = (_ROOT / "deploy" / "etcd" / "hosts.sh").read_text()
    (keys,) = re.findall(r"^keys='(.*)'$", script, re.MULTILINE)
    written = {
        re.sub(r"/<(?!id>).*", "", f"{kind.name}/{kind.pattern}".replace("host id", "id"))
        for kind in KINDS
        if kind.writer is Writer.HOST_ID
    } | {kind.name for kind in KINDS if kind.writer is Writer.HOST}
    assert written <= {key.rstrip("/") for key in keys.split()}
    operators = {kind.name for kind in KINDS if kind.writer is Writer.OPERATOR}
    assert not operators & {key.partition("/")[0] for key in keys.split()}


def test_leases_are_flannels_kind() -> None:
    assert _KEYS.range(LEASES).start == b"/hostmesh/subnets/"
