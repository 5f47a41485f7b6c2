"""Queries outside the mesh: unchanged to the host's upstreams, whatever these do."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.query
import pytest

from agent.dns.forwarding.by_udp import MOST_OF_ASKER
from tests.netns.names.stage import FIRST, SECOND, Stage, answers, code
from tests.waiting import eventually

pytestmark = pytest.mark.netns

LIAR = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    data, sender = sock.recvfrom(4096)
    reply = bytearray(data); reply[2] |= 0x80
    wrong = bytes([data[0] ^ 1]) + bytes(reply[1:])
    for _ in range(3):
        sock.sendto(wrong, sender)                      # another id
    sock.sendto(bytes(reply).replace(b"world", b"wordl"), sender)  # another question
    sock.sendto(data, sender)                           # no reply
    sock.sendto(b"\\0", sender)
"""


LOOP = """
import random, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
waiting, asking = {}, {}
while True:
    data, sender = sock.recvfrom(4096)
    if data[2] & 0x80:
        for each, identity in asking.pop(data[:2], []):
            sock.sendto(identity + data[2:], each)
        continue
    # No query is equal to an earlier one: the letters' case differs.
    text = bytes(each ^ 32 * (chr(each).isalpha() * random.getrandbits(1)) for each in data[2:])
    identity = random.randbytes(2)
    asking.setdefault(identity, []).append((sender, data[:2]))
    sock.sendto(identity + text, ("169.254.20.53", 53))
    with open(sys.argv[2], "a") as log:
        log.write("asked\\n")
"""


@contextmanager
def liar(stage: Stage, address: str, *, script: str = LIAR, log: str = "") -> Iterator[None]:
    process = stage.host.popen([sys.executable, "-c", script, address, log])
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        process.kill()
        process.wait()


def servers(stage: Stage) -> list[str]:
    return [each["address"] for each in stage.status()["upstreams"]]


def use(stage: Stage, *addresses: str) -> None:
    stage.set_upstreams(*addresses)
    # Read again by the first query that is a second later.
    eventually(
        lambda: (
            (stage.ask(stage.plain, "whoami.example", "TXT"), servers(stage))[1] == list(addresses)
        ),
        20,
        every_s=0.2,
    )
    # The first one rests for up to half a minute after a test in which it failed.
    eventually(
        lambda: answers(stage.ask(stage.plain, "whoami.example", "TXT")) == [f'"{addresses[0]}"'],
        60,
        every_s=0.2,
    )


def test_a_reply_comes_back_as_the_upstream_sent_it(stage: Stage) -> None:
    for tcp in (False, True):
        reply = stage.ask(stage.plain, "WORLD.example", use_edns=0, tcp=tcp)
        assert answers(reply) == ["203.0.113.7"]
        assert reply.answer[0].ttl == 60
        assert reply.question[0].name.labels[0] == b"WORLD"
    cut = stage.ask(stage.plain, "large.example", "TXT")
    assert cut.flags & dns.flags.TC
    assert len(answers(stage.ask(stage.plain, "large.example", "TXT", tcp=True))) == 40
    assert code(stage.ask(stage.plain, "nope.example")) == "NXDOMAIN"


def test_resolv_conf_is_followed_and_never_leads_back(stage: Stage) -> None:
    use(stage, "127.0.0.3")
    stage.set_upstreams(FIRST, "127.0.0.11", "127.0.0.2", "169.254.20.54", "nonsense")
    eventually(
        lambda: (stage.ask(stage.plain, "world.example"), servers(stage))[1] == ["127.0.0.2"],
        20,
        every_s=0.2,
    )
    stage.set_upstreams(FIRST)
    eventually(lambda: code(stage.ask(stage.plain, "world.example")) == "SERVFAIL", 10, every_s=0.2)


def test_an_upstream_on_a_link_that_is_not_there_stops_no_server(stage: Stage) -> None:
    stage.set_upstreams("fe80::53%later0", "127.0.0.3")
    stage.serve(SECOND)
    try:
        eventually(
            lambda: stage.addresses(stage.plain, "world.example", server=SECOND) == ["203.0.113.7"],
            20,
            every_s=0.2,
        )
        stage.host.ip("link add later0 type bridge")
        eventually(
            lambda: (
                (
                    stage.ask(stage.plain, "world.example", server=SECOND),
                    [each["address"] for each in stage.status(SECOND)["upstreams"]],
                )[1]
                == ["fe80::53%later0", "127.0.0.3"]
            ),
            20,
            every_s=0.2,
        )
    finally:
        stage.kill(SECOND)


def test_a_resolver_of_the_host_that_asks_back_asks_a_few_times_only(stage: Stage) -> None:
    log = stage.folder / "asked"
    with liar(stage, "127.0.0.4", script=LOOP, log=str(log)):
        stage.set_upstreams("127.0.0.4")
        eventually(lambda: (stage.ask(stage.plain, "loop.example"), log.exists())[1], 20)
        eventually(lambda: stage.status()["under_way"] == 0, 20)
        log.write_text("")
        assert code(stage.ask(stage.plain, "loop.example")) in {"SERVFAIL", "REFUSED"}
        eventually(lambda: stage.status()["under_way"] == 0, 20)
        assert 0 < log.read_text().count("asked") < 50


@pytest.mark.parametrize("how", ["dead", "frozen", "lying", "SERVFAIL", "REFUSED", "SILENT"])
def test_a_first_upstream_that_fails_costs_little_and_loses_nothing(stage: Stage, how: str) -> None:
    use(stage, "127.0.0.2", "127.0.0.3")
    first = stage.upstreams[0]

    def all_answered() -> float:
        took = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert stage.addresses(stage.plain, "world.example") == ["203.0.113.7"]
            took = max(took, time.monotonic() - began)
        return took

    if how == "lying":
        first.stop()
        with liar(stage, first.address):
            assert all_answered() < 4
            eventually(
                lambda: (all_answered(), stage.status()["counters"]["false_replies"] > 0)[1], 60
            )
        first.start()
    elif how == "dead":
        first.stop()
        assert all_answered() < 4
        first.start()
    elif how == "frozen":
        first.signal(signal.SIGSTOP)
        assert all_answered() < 4
        eventually(lambda: stage.status()["counters"]["upstream_failures"] > 0, 15)
        first.signal(signal.SIGCONT)
    else:
        first.fail(every=how)
        assert all_answered() < 4
        first.fail()
    # It is used again when its rest is over.
    asked = first.asked()
    eventually(
        lambda: (stage.ask(stage.plain, "world.example"), first.asked() > asked)[1],
        60,
        every_s=0.2,
    )


def test_the_only_upstream_frozen_delays_its_own_queries_only(stage: Stage) -> None:
    use(stage, "127.0.0.2")
    only = stage.upstreams[0]
    only.signal(signal.SIGSTOP)
    # They are all there when a server that had to wait for a core reads the first.
    stage.processes[FIRST].send_signal(signal.SIGSTOP)
    flood = stage.plain.call(_flood, MOST_OF_ASKER + 50)
    stage.processes[FIRST].send_signal(signal.SIGCONT)
    try:
        eventually(lambda: stage.status()["counters"]["over_limit"] >= 50, 15)
        assert stage.status()["under_way"] <= MOST_OF_ASKER
        began = time.monotonic()
        assert stage.addresses(stage.web, "api") == ["10.65.1.2", "10.65.1.3"]
        assert time.monotonic() - began < 2
        # Another container's queries are not in that one's limit.
        pending = stage.web.call(_flood, 1)
        only.signal(signal.SIGCONT)
        assert stage.web.call(pending.recv, 4096)
        pending.close()
    finally:
        only.signal(signal.SIGCONT)
        flood.close()
    eventually(lambda: stage.addresses(stage.plain, "world.example") == ["203.0.113.7"], 20)
    eventually(lambda: stage.status()["under_way"] == 0, 20)


def test_equal_queries_wait_as_long_as_others(stage: Stage) -> None:
    use(stage, "127.0.0.2")
    only = stage.upstreams[0]
    only.signal(signal.SIGSTOP)
    try:
        asking = stage.plain.call(_flood, 120, "world.example")
    finally:
        only.signal(signal.SIGCONT)
    found = [stage.plain.call(asking.recv, 4096) for _ in range(120)]
    asking.close()
    assert {code(dns.message.from_wire(each)) for each in found} == {"NOERROR"}


def _flood(count: int, name: str = "") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(15)
    sock.connect((FIRST, 53))
    for _ in range(count):
        asked = name or f"{secrets.token_hex(4)}.example"
        sock.send(dns.message.make_query(asked, "A").to_wire())
    return sock


def test_ports_and_ids_towards_the_upstream_are_random(stage: Stage) -> None:
    use(stage, "127.0.0.2")
    seen = stage.folder / "seen"
    stage.upstreams[0].stop()
    script = (
        "import socket,sys\nsock=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "sock.bind((sys.argv[1],53))\nprint('ready',flush=True)\n"
        "while True:\n data,sender=sock.recvfrom(4096)\n"
        " print(sender[1],data[:2].hex(),flush=True)\n"
        " sock.sendto(data[:2]+bytes([data[2]|128])+data[3:],sender)\n"
    )
    process: subprocess.Popen[bytes] = stage.host.call(
        subprocess.Popen, [sys.executable, "-c", script, "127.0.0.2"], stdout=seen.open("wb")
    )
    try:
        eventually(lambda: b"ready" in seen.read_bytes())
        for _ in range(40):
            stage.ask(stage.plain, "world.example")
        rows = [line.split() for line in seen.read_text().splitlines()[1:]]
    finally:
        process.kill()
        process.wait()
        stage.upstreams[0].start()
    assert len(rows) >= 40
    for column in zip(*rows, strict=True):
        assert len(set(column)) > len(rows) * 0.9, column
