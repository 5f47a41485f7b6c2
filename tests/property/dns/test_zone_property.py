"""A zone that followed changes answers as one that was made at once."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dns.wire import pack_name
from agent.dns.zone import Zone
from agent.model import Access, HostId
from agent.model.names import HostNames, LocalNames, Name, NamedAddress, NameKind
from tests.property.dns.test_messages_property import ASKER, HERE, NETWORK

pytestmark = pytest.mark.property

HOSTS = [HERE, HostId("b" * 32), HostId("c" * 32)]
TEXTS = ["api.web", "db.web"]
LOCAL = LocalNames(
    domain="hostmesh.internal", host_id=HERE, boot_id="boot", complete=True, networks=(NETWORK,)
)
names = st.one_of(
    st.builds(
        Name,
        st.sampled_from(TEXTS),
        st.sampled_from([NameKind.NETWORK, NameKind.PROJECT, NameKind.HOST]),
    ),
    st.builds(Name, st.sampled_from(["api", "db"]), st.just(NameKind.PLAIN)),
)
addresses = st.builds(
    NamedAddress,
    address=st.integers(2, 6).map(lambda each: IPv4Address(f"10.65.1.{each}")),
    names=st.lists(names, max_size=4).map(tuple),
    network=st.sampled_from(["web", "bridge"]),
    mesh_network=st.sampled_from(["web", ""]),
    access=st.sampled_from(Access),
    healthy=st.booleans(),
    pointer=st.sampled_from(["", *TEXTS]),
)
changes = st.tuples(
    st.sampled_from(HOSTS),
    st.none() | st.lists(addresses, max_size=4, unique_by=lambda each: each.address).map(tuple),
)


def seen(zone: Zone) -> object:
    """Return all that two askers and the host see."""
    found: list[object] = []
    for asker in (ASKER, IPv4Address("192.0.2.1"), None):
        view = zone.view(asker)
        for text in (*TEXTS, "api", "db"):
            answer = zone.find(view, pack_name(text.split("."))[:-1])
            found.append(answer and {key: set(each) for key, each in answer.by_version.items()})
        found += [bool(zone.pointer(view, IPv4Address(f"10.65.1.{each}"))) for each in range(2, 7)]
    return (found, zone.names)


@given(st.lists(changes, max_size=8))
def test_following_changes_is_the_same_as_starting_anew(
    steps: list[tuple[HostId, tuple[NamedAddress, ...] | None]],
) -> None:
    followed = Zone()
    followed.set_local(LOCAL)
    now: dict[HostId, tuple[NamedAddress, ...]] = {}
    for host_id, given_addresses in steps:
        if given_addresses is None:
            followed.remove_host(host_id)
            now.pop(host_id, None)
        else:
            followed.set_host(HostNames(host_id=host_id, addresses=given_addresses))
            now[host_id] = given_addresses
        fresh = Zone()
        fresh.set_local(LOCAL)
        for each, of_host in now.items():
            fresh.set_host(HostNames(host_id=each, addresses=of_host))
        assert seen(followed) == seen(fresh)
