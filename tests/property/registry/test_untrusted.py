"""Anything at all may stand in etcd: it costs itself, never the view (promises 4 and 8)."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.etcd.kv import Event, Record
from agent.model import HostId
from agent.model.family import within
from agent.registry.record_store import RecordStore
from agent.registry.records import HEARTBEATS, KINDS, LEASES, Keys, decode_config, encode_config

pytestmark = pytest.mark.property

_KEYS = Keys("/hostmesh")
_CONFIG_KEY = b"/hostmesh/config"
_CONFIG = b'{"Network":"10.64.0.0/10","SubnetLen":16,"Backend":{"Type":"host-gw"}}'
_GOOD = b'{"PublicIP":"192.0.2.1","BackendType":"host-gw"}'

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["10.64.0.0", "127.0.0.1", "192.0.2.7", "10.64.0.0/16", "f" * 32, "c" * 64])
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)
_FIELDS = (
    "PublicIP BackendType Hostmesh HostID TTL Claimed HostName Network SubnetLen SubnetMin Backend"
    " Type Subnet NodeAddress Docker Started Access ID Name Networks Address Aliases Mesh Health"
)
_OURS = (
    *("Hostmesh", "Previous", "Level", "EnableIPv4", "SubnetMax", "Owners", "Flannel", "Accept"),
    *("Networks", "Names"),
)
names = st.sampled_from(_FIELDS.split())
objects = st.dictionaries(
    names, json_values | st.dictionaries(names, json_values, max_size=3), max_size=5
)
values = st.binary(max_size=60) | objects.map(lambda each: json.dumps(each).encode())
kinds = st.sampled_from(
    ["subnets", "owners", "hosts", "memory", "reservations", "networks", "slices", "other", ""]
)
tails = (
    st.text(max_size=20)
    | st.from_regex(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}-\d{1,2}", fullmatch=True)
    | st.sampled_from(["f" * 32, "10.65.0.0-16", "10.64.0.0-12"])
)
events = st.builds(
    lambda kind, tail, value, revision: Event(
        f"/hostmesh/{kind}/{tail}".encode("utf-8", "surrogatepass"),
        Record(b"", value, revision, revision),
    ),
    kinds,
    tails,
    values,
    st.integers(2, 99),
)


@settings(max_examples=150)
@given(st.lists(events, max_size=8), st.none() | values)
def test_promise_4_and_8_no_record_costs_another_or_gets_out_of_the_mesh(
    others: list[Event], config: bytes | None
) -> None:
    records = RecordStore(_KEYS, 1, 100)
    records.load([Record(_CONFIG_KEY, _CONFIG, 1, 1)])
    good = Record(_KEYS.of(LEASES, IPv4Network("10.64.0.0/16")), _GOOD, 1, 1)
    records.load([good])
    expected = records.view().leases
    assert len(expected) == 1
    records.apply([each for each in others if each.key != good.key])
    if config is not None:
        records.apply([Event(_CONFIG_KEY, Record(_CONFIG_KEY, config, 1, 2))])
    view = records.view()
    used = records.last_config
    assert used is not None
    if config is None:
        assert expected[0] in view.leases
    for lease in view.leases:
        assert within(lease.subnet, used.cidr)
        assert lease.node_address not in used.cidr
        assert not lease.node_address.is_loopback
        assert not lease.node_address.is_multicast
        assert lease.host_name.isprintable()
    for index, lease in enumerate(view.leases):
        assert not any(lease.subnet.overlaps(other.subnet) for other in view.leases[index + 1 :])
    for aside in view.set_aside:
        assert aside.key.isprintable()
        assert aside.reason.isprintable()
        assert len(aside.key) + len(aside.reason) < 400


@given(values)
def test_promise_8_decoders_raise_nothing_but_value_errors(value: bytes) -> None:
    host, subnet = HostId("f" * 32), IPv4Network("10.64.0.0/16")
    keys: dict[str, Any] = {
        "config": None,
        "grace": None,
        "subnets": subnet,
        "reservations": subnet,
        "hosts": host,
        "memory": host,
        "owners": (host, subnet),
        "clones": (host, IPv4Address("192.0.2.7")),
        "turns": "docker-restart",
        "networks": "shop",
        "slices": (host, "shop"),
        "endpoints": (host, "c" * 16),
        "checks": host,
    }
    assert set(keys) == {kind.name for kind in KINDS}
    for kind in KINDS:
        try:
            kind.read(keys[kind.name], Record(b"k", value))
        except ValueError as error:
            assert str(error).isprintable()  # noqa: PT017  # not raising is fine, too


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
levels = st.sampled_from([None, 1, 2])
unknown = st.dictionaries(
    st.from_regex(r"[A-Za-z]{1,8}", fullmatch=True).filter(
        lambda name: name.lower() not in {each.lower() for each in (*_FIELDS.split(), *_OURS)}
    ),
    plain,
    max_size=4,
)


@given(
    top=unknown,
    ours=unknown,
    backend=unknown,
    before=levels,
    after=levels,
)
def test_promise_12_what_this_version_does_not_know_survives_a_rewrite(
    top: dict[str, Any],
    ours: dict[str, Any],
    backend: dict[str, Any],
    before: int | None,
    after: int | None,
) -> None:
    """A newer version's fields stay, in whatever order versions write the config."""
    stated = {} if before is None else {"level": before}
    text = json.dumps(
        {
            **top,
            "Network": "10.64.0.0/10",
            "Backend": {**backend, "Type": "host-gw"},
            "Hostmesh": {**ours, **stated},
        }
    ).encode()
    config = decode_config(text)
    assert config.level == (before or 1)
    written = encode_config(replace(config, level=after or config.level), text)
    found = json.loads(written)
    assert {name: found[name] for name in top} == top
    assert {name: found["Backend"][name] for name in backend} == backend
    kept = found.get("Hostmesh", {})
    assert {name: kept[name] for name in ours} == ours
    assert decode_config(written).level == (after or config.level)
    assert [name for name in kept if name.lower() == "level"] == ["Level"] * ("Level" in kept)


@given(more=unknown, level=st.sampled_from([None, 1, 2, 3, 0, "x", [], 10**40]))
def test_promise_12_a_newer_heartbeat_is_read_as_far_as_it_is_known(
    more: dict[str, Any], level: object
) -> None:
    value = json.dumps({**more, "HostName": "h", "Level": level}).encode()
    found = HEARTBEATS.read(HostId("f" * 32), Record(b"k", value))
    assert (found.host_name, found.level) == ("h", level if level in (2, 3) else 1)
