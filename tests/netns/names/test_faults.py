"""Nothing that happens to a server or its snapshot loses a query of a client that has both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.model import HostId
from agent.model.names import Name, NamedAddress, NameKind
from tests.netns.names.stage import DOMAIN, FIRST, SECOND, Load, Stage, in_web
from tests.waiting import eventually

pytestmark = pytest.mark.netns

CLIENT = (FIRST, SECOND)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("pair"))
    try:
        stage.upstreams[0].start()
        stage.set_upstreams("127.0.0.2")
        stage.write_host(in_web("10.65.1.2", "api"))
        stage.write_local()
        for address in CLIENT:
            stage.serve(address)
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("name", [f"api.web.{DOMAIN}", "world.example"])
def test_either_process_killed_loses_no_query(pair: Stage, name: str) -> None:
    load = Load(pair.web, name, CLIENT)
    for address in CLIENT:
        pair.kill(address)
        load.wait_asked()
        pair.serve(address)
        load.wait_asked()
    for address in CLIENT:
        pair.processes[address].terminate()
        pair.processes.pop(address).wait()
        pair.serve(address)
    found = load.end()
    assert found["asked"] > 100
    assert found["lost"] == 0, found


def test_a_snapshot_that_is_swapped_all_the_time_loses_no_query(pair: Stage) -> None:
    load = Load(pair.web, f"api.web.{DOMAIN}", CLIENT)
    for n in range(200):
        pair.write_host(in_web(f"10.65.1.{2 + n % 2}", "api"))
        pair.write_host(_many(n), host_id=HostId("c" * 32))
        pair.write_local(serial=n)
    found = load.end()
    assert found["lost"] == 0, found
    assert found["addresses"] == ["10.65.1.2", "10.65.1.3"]
    last = f"10.65.1.{2 + 199 % 2}"
    eventually(lambda: pair.addresses(pair.web, f"api.web.{DOMAIN}") == [last])


def _many(n: int) -> NamedAddress:
    return NamedAddress(
        address=IPv4Address("10.66.0.2"), names=(Name(f"c{n}.web", NameKind.NETWORK),)
    )


def test_a_reboot_without_agent_and_etcd_answers_from_the_files(pair: Stage) -> None:
    pair.write_host(in_web("10.65.1.2", "api"))
    for address in CLIENT:
        pair.kill(address)
    pair.write_local(boot_id="the-one-before")
    pair.confirmed_ago(86400)
    for address in CLIENT:
        pair.serve(address)
    assert pair.addresses(pair.web, "api") == ["10.65.1.2"]
    assert pair.addresses(pair.web, f"api.web.{DOMAIN}", server=SECOND) == ["10.65.1.2"]
    assert pair.addresses(pair.web, "world.example") == ["203.0.113.7"]
    assert pair.status(FIRST)["fresh"] is False
    pair.write_local()


def _is(found: Callable[[], list[str]], wanted: list[str]) -> bool:
    return found() == wanted


def _has_damaged(pair: Stage, server: str) -> bool:
    found: int = pair.status(server)["damaged_files"]
    return found == 1


def test_a_file_that_cannot_be_read_stops_no_server(pair: Stage) -> None:
    (pair.names / f"{'0' * 32}.json").mkdir()
    pair.kill(SECOND)
    pair.serve(SECOND)
    try:
        for address, server in (("10.65.1.4", FIRST), ("10.65.1.5", SECOND)):
            pair.write_host(in_web(address, "api"))
            found = partial(pair.addresses, pair.web, "api", server=server)
            eventually(partial(_is, found, [address]), 20)
            eventually(partial(_has_damaged, pair, server), 20)  # written every second
    finally:
        (pair.names / f"{'0' * 32}.json").rmdir()
        pair.write_host(in_web("10.65.1.2", "api"))


def test_without_any_snapshot_other_names_are_forwarded_and_the_domain_is_not(
    pair: Stage, tmp_path: Path
) -> None:
    pair.kill(FIRST)
    names, pair.names = pair.names, tmp_path / "not-there"
    pair.serve(FIRST)
    try:
        assert pair.addresses(pair.web, "world.example") == ["203.0.113.7"]
        asked = pair.upstreams[0].folder / "log-127.0.0.2"
        before = asked.read_bytes().count(b"hostmesh")
        assert pair.ask(pair.web, f"api.web.{DOMAIN}").rcode() == 2
        assert asked.read_bytes().count(b"hostmesh") == before
        # A folder that comes later is found.
        pair.names.mkdir()
        pair.write_host(in_web("10.65.1.2", "api"))
        pair.write_local()
        eventually(lambda: pair.addresses(pair.web, "api") == ["10.65.1.2"])
    finally:
        pair.kill(FIRST)
        pair.names = names
        pair.serve(FIRST)
