"""Containers with any names and labels, and any JSON in place of Docker's answers."""

import itertools
import json
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.docker.endpoints.containers import inspected, listed
from agent.docker.endpoints.publishable import EndpointTerms, bound_conditions, endpoint_of
from agent.docker.endpoints.work import WorkList
from agent.docker.engine.api import FAILURES
from agent.docker.engine.events import UNREADABLE, EngineEvent, EventLines
from agent.model import DockerNetwork, HostId
from agent.model.endpoint import LONGEST_NAME, NAMES_MOST
from tests.property.docker.test_document_property import relaxed

pytestmark = pytest.mark.property

TEXTS = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[a-z0-9_.-]{1,20}", fullmatch=True),
    st.sampled_from(["/web", "web\n", "x" * 300, "../../etc", "$(reboot)", "\x1b[2J", "ä", ""]),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
SHOP = DockerNetwork(id="n" * 64, name="shop", bridge="br-1", subnet=IPv4Network("10.64.130.0/24"))
TERMS = EndpointTerms(host_id=HostId("h"), subnets=(IPv4Network("10.64.0.0/16"),), boot_id="b")
USABLE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Any]:
    """Make an inspection of the right shape, with any text and some values of another type."""
    aliases = draw(st.one_of(st.none(), st.lists(st.one_of(TEXTS, st.integers()), max_size=40)))
    address = draw(st.sampled_from(["10.64.130.7", "10.65.0.1", "", "nowhere", "::1"]))
    labels = st.one_of(TEXTS, JSON)
    return {
        "Id": draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        "Name": draw(TEXTS),
        "State": {"Running": True, "Health": draw(st.one_of(st.none(), st.just({"Status": "x"})))},
        "Config": {
            "Labels": {
                "com.docker.compose.project": draw(labels),
                "com.docker.compose.service": draw(labels),
            }
        },
        "NetworkSettings": {
            "Networks": {
                draw(TEXTS): {
                    "NetworkID": "n" * 64,
                    "IPAddress": address,
                    "Aliases": aliases,
                }
            }
        },
    }


@relaxed(100)
@given(raw=containers())
def test_an_endpoint_has_bounded_names_of_harmless_characters(raw: dict[str, Any]) -> None:
    container = inspected(raw)
    assert container is not None
    bound_conditions([container], 0)
    found = endpoint_of(container, {SHOP.id: SHOP}, TERMS)
    if found is None:
        assert raw["NetworkSettings"]["Networks"].popitem()[1]["IPAddress"] != "10.64.130.7"
        return
    assert USABLE.fullmatch(found.name)
    for label in (found.project, found.service):
        assert not label or USABLE.fullmatch(label)
    for place in found.addresses:
        assert place.address == IPv4Address("10.64.130.7")
        assert len(place.aliases) <= NAMES_MOST
        assert list(place.aliases) == sorted(set(place.aliases))
        assert all(USABLE.fullmatch(each) for each in place.aliases)


@relaxed(100)
@given(raw=JSON)
def test_any_json_is_a_container_or_no_answer_of_docker(raw: Any) -> None:  # noqa: ANN401
    for read in (inspected, listed):
        try:
            read(raw)
        except FAILURES:
            continue


@relaxed(100)
@given(
    raw=containers(), key=st.sampled_from(["Id", "State", "Config", "NetworkSettings"]), odd=JSON
)
def test_one_odd_part_is_no_crash(raw: dict[str, Any], key: str, odd: Any) -> None:  # noqa: ANN401
    try:
        inspected({**raw, key: odd})
    except FAILURES:
        return


@relaxed(100)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["start", "die", "connect"]), st.text("0123456789abcdef"))
    ),
    cuts=st.lists(st.integers(min_value=0, max_value=4000), max_size=8),
)
def test_a_stream_cut_anywhere_is_the_same_events(
    events: list[tuple[str, str]], cuts: list[int]
) -> None:
    data = b"".join(
        json.dumps({"Type": "container", "Action": action, "Actor": {"ID": identity}}).encode()
        + b"\n"
        for action, identity in events
    )
    ends = sorted({min(each, len(data)) for each in cuts} | {0, len(data)})
    lines = EventLines()
    found = [
        event for begin, end in itertools.pairwise(ends) for event in lines.feed(data[begin:end])
    ]
    assert found == [EngineEvent("container", action, identity) for action, identity in events]


@relaxed(100)
@given(data=st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_events(data: list[bytes]) -> None:
    lines = EventLines()
    for part in data:
        for event in lines.feed(part):
            assert event == UNREADABLE or event.kind


CONTAINERS = ("a", "b")
EVENTS = st.builds(
    EngineEvent,
    st.sampled_from(["container", "network"]),
    st.sampled_from(["start", "die", "destroy", "connect", "disconnect", "rename", "create"]),
    container=st.sampled_from(CONTAINERS),
    network=st.sampled_from(["x", "y"]),
)


@relaxed(100)
@given(events=st.lists(EVENTS, max_size=12))
def test_work_is_what_the_last_events_of_each_container_say(events: list[EngineEvent]) -> None:
    """One end, networks that were left, or one inspection; never two for a container."""
    work = WorkList()
    work.add(events)
    taken = work.take()
    assert not taken.whole
    assert not set(taken.ended) & set(taken.inspect)
    assert not set(taken.left) & set(taken.inspect)
    for container in CONTAINERS:
        actions = [each.action for each in events if each.container == container]
        last = [each for each in actions if each in {"start", "rename", "die"}][-1:]
        if last == ["die"]:
            assert container in taken.ended
        elif last:
            assert container in taken.inspect
    assert work.take().ended == ()
