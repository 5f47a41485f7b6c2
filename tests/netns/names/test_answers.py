"""The real server on real bridges: who gets which answer, and what a snapshot proves."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import dns.edns
import dns.flags
import dns.message
import pytest

from agent.model import Access
from agent.model.names import Name, NamedAddress, NameKind
from tests.netns.names.stage import DOMAIN, FIRST, HERE, NETWORKS, Stage, answers, code, in_web
from tests.waiting import eventually

pytestmark = pytest.mark.netns

BOTH = ["10.65.1.2", "10.65.1.3"]


def test_a_container_finds_others_of_its_network_by_full_and_by_short_name(stage: Stage) -> None:
    for name in (f"api.web.{DOMAIN}", "api", f"api.{DOMAIN}", f"API.Web.{DOMAIN}."):
        assert stage.addresses(stage.web, name) == BOTH
        assert stage.addresses(stage.web, name, tcp=True) == BOTH
    assert answers(stage.ask(stage.web, "2.1.65.10.in-addr.arpa", "PTR")) == [f"api.web.{DOMAIN}."]
    orders = {tuple(answers(stage.ask(stage.web, "api"))) for _ in range(40)}
    assert len(orders) == 2


def test_a_container_of_another_network_gets_full_names_only(stage: Stage) -> None:
    assert stage.addresses(stage.plain, f"api.web.{DOMAIN}") == BOTH
    assert code(stage.ask(stage.plain, f"api.{DOMAIN}")) == "NXDOMAIN"
    assert code(stage.ask(stage.plain, "api")) == "NXDOMAIN"  # the upstream's answer
    stage.write_local(networks=(replace(NETWORKS[0], access=Access.CLOSED), NETWORKS[1]))
    eventually(lambda: code(stage.ask(stage.plain, f"api.web.{DOMAIN}")) == "NXDOMAIN")
    assert stage.addresses(stage.web, f"api.web.{DOMAIN}") == BOTH


def test_nothing_is_proven_for_a_container_whose_network_is_not_known_yet(stage: Stage) -> None:
    stage.write_local(networks=NETWORKS[:1])
    eventually(lambda: code(stage.ask(stage.web, f"api.web.{DOMAIN}")) == "SERVFAIL")
    for name in (f"api.{DOMAIN}", f"nope.web.{DOMAIN}"):
        assert code(stage.ask(stage.web, name)) == "SERVFAIL"
    assert code(stage.ask(stage.plain, f"nope.web.{DOMAIN}")) == "NXDOMAIN"


def test_another_machine_is_refused_and_the_host_sees_for_a_container(stage: Stage) -> None:
    stage.stranger.ip("route replace 169.254.20.53/32 via 192.0.2.1")
    for name in (f"api.web.{DOMAIN}", "world.example"):
        assert code(stage.ask(stage.stranger, name)) == "REFUSED"
        assert code(stage.ask(stage.stranger, name, tcp=True)) == "REFUSED"
    assert stage.addresses(stage.host, f"api.web.{DOMAIN}") == BOTH
    for tcp in (False, True):  # a container with --network host has these servers, too
        assert stage.addresses(stage.host, "world.example", tcp=tcp) == ["203.0.113.7"]
    as_web, as_plain = (dns.edns.ECSOption(each, 32) for each in ("10.64.1.2", "10.64.0.2"))
    assert stage.addresses(stage.host, f"api.{DOMAIN}", use_edns=0, options=[as_web]) == BOTH
    assert stage.addresses(stage.host, f"api.{DOMAIN}", use_edns=0, options=[as_plain]) == []
    # A container cannot ask for another one.
    assert stage.addresses(stage.plain, f"api.{DOMAIN}", use_edns=0, options=[as_web]) == []


def test_a_container_with_another_bridges_address_is_refused(stage: Stage) -> None:
    stage.ask(stage.plain, "api")  # it has written its status
    before = stage.status()["counters"]["refused"]
    stage.plain.ip("addr add 10.64.1.77/24 dev eth0")
    try:
        sent = stage.plain.call(_ask_from, "10.64.1.77")
    finally:
        stage.plain.ip("addr del 10.64.1.77/24 dev eth0")
    assert sent is None or code(sent) == "REFUSED"
    eventually(lambda: stage.status()["counters"]["refused"] > before or sent is not None, 10)


def _ask_from(source: str) -> dns.message.Message | None:
    query = dns.message.make_query(f"api.{DOMAIN}", "A")
    try:
        return dns.query.udp(query, FIRST, source=source, timeout=1)
    except dns.exception.Timeout:
        return None


def test_healthy_addresses_come_alone_unless_there_is_none(stage: Stage) -> None:
    stage.write_host(in_web("10.65.1.2", "api", healthy=False), in_web("10.65.1.3", "api"))
    eventually(lambda: stage.addresses(stage.web, "api") == BOTH[1:])
    stage.write_host(*(in_web(each, "api", healthy=False) for each in BOTH))
    eventually(lambda: stage.addresses(stage.web, "api") == BOTH)


def test_a_network_comes_before_a_project_and_a_project_before_a_host(stage: Stage) -> None:
    def named(address: str, kind: NameKind) -> NamedAddress:
        return NamedAddress(
            address=IPv4Address(address), names=(Name("db.shop", kind),), network="bridge"
        )

    by_kind = {
        NameKind.HOST: named("10.65.9.3", NameKind.HOST),
        NameKind.PROJECT: named("10.65.9.2", NameKind.PROJECT),
        NameKind.NETWORK: named("10.65.9.1", NameKind.NETWORK),
    }
    given: list[NamedAddress] = []
    for each in by_kind.values():
        given.append(each)
        stage.write_host(*given)
        eventually(
            lambda each=each: (
                stage.addresses(stage.plain, f"db.shop.{DOMAIN}")  # type: ignore[misc]
                == [str(each.address)]
            )
        )


def test_absence_is_proven_only_by_a_complete_and_fresh_snapshot(stage: Stage) -> None:
    missing, known = f"nope.web.{DOMAIN}", f"api.web.{DOMAIN}"
    eventually(lambda: code(stage.ask(stage.web, missing)) == "NXDOMAIN")

    stage.write_local(complete=False)  # etcd is away
    eventually(lambda: code(stage.ask(stage.web, missing)) == "SERVFAIL")
    assert code(stage.ask(stage.web, f"nope.{DOMAIN}")) == "SERVFAIL"
    assert code(stage.ask(stage.plain, f"nope.{DOMAIN}")) == "NXDOMAIN", "only this host adds one"
    assert stage.addresses(stage.web, known) == BOTH

    stage.write_local(boot_id="another")  # after a reboot, before the agent
    eventually(lambda: code(stage.ask(stage.plain, f"nope.{DOMAIN}")) == "SERVFAIL")
    assert stage.addresses(stage.web, known) == BOTH

    stage.write_local()
    eventually(lambda: code(stage.ask(stage.web, missing)) == "NXDOMAIN")
    stage.confirmed_ago(3600)  # the agent does not run
    eventually(lambda: code(stage.ask(stage.web, missing)) == "SERVFAIL")
    stage.confirmed_ago(0)
    eventually(lambda: code(stage.ask(stage.web, missing)) == "NXDOMAIN")


def test_a_damaged_file_leaves_its_names_and_proves_nothing(stage: Stage) -> None:
    stage.put(f"{'b' * 32}.json", b'{"format": 1, "host": "b')
    eventually(lambda: code(stage.ask(stage.web, f"nope.web.{DOMAIN}")) == "SERVFAIL")
    assert stage.addresses(stage.web, "api") == BOTH
    stage.put(f"{'b' * 32}.json", b'{"format": 1, "host": "' + b"c" * 32 + b'"}')
    eventually(lambda: stage.status()["damaged_files"] == 1, 15)
    assert stage.addresses(stage.web, "api") == BOTH
    (stage.names / f"{'b' * 32}.json").unlink()
    eventually(lambda: code(stage.ask(stage.web, f"api.web.{DOMAIN}")) == "NXDOMAIN")


def test_a_container_of_this_host_is_seen_on_its_own_network_only(stage: Stage) -> None:
    here = NamedAddress(
        address=IPv4Address("10.64.0.9"),
        names=(Name("cache", NameKind.PLAIN), Name("cache.host1", NameKind.HOST)),
        network="bridge",
    )
    stage.write_host(here, host_id=HERE)
    eventually(lambda: stage.addresses(stage.plain, "cache") == ["10.64.0.9"])
    assert stage.addresses(stage.plain, f"cache.host1.{DOMAIN}") == ["10.64.0.9"]
    assert stage.addresses(stage.web, f"cache.host1.{DOMAIN}") == []


def test_malformed_packets_and_half_connections_stop_nothing(stage: Stage) -> None:
    chance = random.Random(19)  # noqa: S311 - packets, no secrets
    good = dns.message.make_query(f"api.web.{DOMAIN}", "A", use_edns=0).to_wire()

    def flood() -> list[socket.socket]:
        held = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((FIRST, 53))
            for _ in range(3000):
                packet = bytearray(good)
                for _ in range(chance.randrange(1, 8)):
                    packet[chance.randrange(len(packet))] = chance.randrange(256)
                udp.send(bytes(packet[: chance.randrange(len(packet) + 1)]) or b"\0")
            udp.send(b"\xff" * 9000)
        for start in (b"", b"\0", b"\xff\xff", b"\0\x05ab", b"\0\0", b"\0\x0c" + b"\0" * 12):
            tcp = socket.create_connection((FIRST, 53), timeout=5)
            tcp.sendall(start)
            held.append(tcp)
        # More than one asker may have.
        return held + [socket.create_connection((FIRST, 53), timeout=5) for _ in range(60)]

    held = stage.web.call(flood)
    try:
        assert stage.addresses(stage.web, "api") == BOTH
        assert stage.addresses(stage.plain, f"api.web.{DOMAIN}", tcp=True) == BOTH
        eventually(lambda: stage.status()["counters"]["over_limit"] > 0, 15)
    finally:
        for each in held:
            each.close()
    eventually(lambda: stage.addresses(stage.web, "api", tcp=True) == BOTH)
    log = (stage.folder / f"server-{FIRST}.log").read_text()
    assert "Traceback" not in log, log


def test_dig_agrees(stage: Stage) -> None:
    if shutil.which("dig") is None:
        pytest.skip("DIG IS NOT ASKED: apt-get install bind9-dnsutils")
    for option in ("+noedns", "+bufsize=512", "+tcp", "+cookie", "+ednsopt=65001:00", "+dnssec"):
        done = stage.web.call(
            subprocess.run,
            ["dig", f"@{FIRST}", "+time=5", option, f"aPi.wEb.{DOMAIN}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "status: NOERROR" in done.stdout, done.stdout
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [f"aPi.wEb.{DOMAIN}.", "5", "IN", "A", "10.65.1.2"] in rows, done.stdout
        assert ";; WARNING" not in done.stdout, done.stdout
