"""A table reads back the object that it wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink.links import RawLink
from agent.kernel.netlink.message import attributes
from agent.kernel.netlink.neighbours import permanent_part
from agent.kernel.tables.addresses import AddressTable
from agent.kernel.tables.links import LinkTable
from agent.kernel.tables.neighbours import FdbTable, NeighbourTable
from agent.kernel.tables.own import mark_of
from agent.model import (
    FAMILIES,
    Address,
    FdbEntry,
    LinkAddress,
    LinkSpec,
    Neighbour,
    VxlanOptions,
)
from agent.model.objects import NO_MAC
from agent.reconcile.interfaces import Operation, OperationKind, Reason

pytestmark = pytest.mark.property

OWN = RawLink(
    70000, "hm-vx", "vxlan", up=True, running=True, mtu=1450, mac="", alias=mark_of(mac="", mtu=0)
)
UPLINK = RawLink(7, "eth7", "", up=True, running=True, mtu=1500, mac="")
LINKS = {each.name: each for each in (OWN, UPLINK)}
NAMES = {each.number: each.name for each in (OWN, UPLINK)}
IFALIAS = 20

macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
addresses: st.SearchStrategy[Address] = st.sampled_from(FAMILIES).flatmap(
    lambda family: st.integers(0, (1 << family.bits) - 1).map(family.address)
)
interfaces = st.sampled_from(FAMILIES).flatmap(
    lambda family: st.tuples(
        st.integers(0, (1 << family.bits) - 1), st.integers(0, family.bits)
    ).map(family.interface)
)
options = st.builds(
    VxlanOptions,
    vni=st.integers(1, (1 << 24) - 1),
    port=st.integers(1, 65535),
    local=st.none() | addresses,
    underlay=st.sampled_from([None, "eth7"]),
    learning=st.booleans(),
)
links = st.builds(
    LinkSpec,
    name=st.just("hm-vx"),
    kind=st.just("vxlan"),
    mac=macs | st.just(""),
    mtu=st.sampled_from([0, 1280, 9000]),
    up=st.booleans(),
    options=options,
)


def requests(table: Any, value: object, kind: OperationKind) -> list[bytes]:  # noqa: ANN401
    operation = Operation(kind, value, Reason.MISSING)  # type: ignore[type-var]
    return [each.body for each in table.encode(operation, LINKS.__getitem__)]


@given(
    st.builds(Neighbour, link=st.just("hm-vx"), address=addresses, mac=macs)
    | st.builds(FdbEntry, link=st.just("hm-vx"), mac=macs | st.just(NO_MAC), destination=addresses),
    st.sampled_from(OperationKind),
)
def test_an_entry_is_read_as_it_was_written(value: object, kind: OperationKind) -> None:
    table: Any = NeighbourTable(FAMILIES) if isinstance(value, Neighbour) else FdbTable()
    (body,) = requests(table, value, kind)
    assert table.decode(body, NAMES.__getitem__) == value
    assert permanent_part(body, OWN.number) == body
    assert permanent_part(body, UPLINK.number) is None


@given(st.builds(LinkAddress, link=st.just("hm-vx"), interface=interfaces))
def test_an_address_is_read_as_it_was_written(value: LinkAddress) -> None:
    table: Any = AddressTable(FAMILIES)
    (body,) = requests(table, value, OperationKind.REPLACE)
    assert table.decode(body, NAMES.__getitem__) == value


@given(links)
def test_a_link_is_read_as_it_was_asked_for(value: LinkSpec) -> None:
    """The kernel has an alias only after the second message."""
    table: Any = LinkTable()
    creation, mark = requests(table, value, OperationKind.REPLACE)
    (alias,) = (each for number, each in attributes(mark, 16) if number == IFALIAS)
    assert alias.decode() == mark_of(mac=value.mac, mtu=value.mtu)
    listed = creation + mark[16:]
    assert table.decode(listed, NAMES.__getitem__) == value
