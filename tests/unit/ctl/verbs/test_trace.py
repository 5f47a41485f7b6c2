"""trace: what it prints, what a word means to it, and what the parts under it make of bytes."""

from __future__ import annotations

import struct
import unicodedata
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from agent.ctl.main import main
from agent.ctl.path.ends import LocalHost
from agent.ctl.verbs.diagnose import trace
from agent.docker.engine.containers import containers_of
from agent.errors import UsageError
from agent.kernel.diagnose.frames import parse_frame
from agent.model import DockerNetwork, Link
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.unit

HOSTILE = "x\x1b[2J\u202e\u0301\x07"


def end(name: str | None) -> dict[str, object]:
    return {"address": "10.64.0.2", "container": name, "network": name, "link": name}


def frame(link: str, ttl: int, at_s: float) -> dict[str, object]:
    return {
        "link": link, "at_s": at_s, "ttl": ttl, "source": "10.64.0.2", "destination": "10.65.0.2",
        "source_mac": "02:42:0a:40:00:02", "destination_mac": "02:42:24:38:a9:66",
        "what": "echo request",
    }  # fmt: skip


def document(word: str | None, frames: list[dict[str, object]]) -> dict[str, object]:
    step = {"host": "here", "step": "route", "result": "ok", "text": word or "via 192.0.2.2"}
    capture = {
        "links": ["docker0", "eth0"], "sent": 1, "answered": 1, "problem": word or "",
        "frames": frames,
    }  # fmt: skip
    return {
        "version": 1,
        "source": end(word),
        "destination": end(None),
        "passes": True,
        "steps": [step],
        "capture": capture,
    }


def test_a_packets_walk_is_a_line_for_each_link() -> None:
    made = document(None, [frame("docker0", 64, 100.0), frame("eth0", 63, 100.0005)])
    check("trace", made)
    assert trace.lines(made) == [
        "10.64.0.2 > 10.64.0.2",
        "  here  ok      route      via 192.0.2.2",
        "captured on docker0, eth0; 1 of 1 pings answered",
        (
            "     0.000 ms  docker0  ttl 64   10.64.0.2 > 10.65.0.2"
            "  02:42:0a:40:00:02 > 02:42:24:38:a9:66  echo request"
        ),
        (
            "     0.500 ms  eth0     ttl 63   10.64.0.2 > 10.65.0.2"
            "  02:42:0a:40:00:02 > 02:42:24:38:a9:66  echo request"
        ),
    ]
    assert trace.lines(made, width=160) == trace.lines(made)
    narrow = trace.lines(made, width=80)
    assert narrow[3:5] == [
        "     0.000 ms  docker0  ttl 64   10.64.0.2 > 10.65.0.2",
        "               02:42:0a:40:00:02 > 02:42:24:38:a9:66  echo request",
    ]
    assert max(map(len, narrow)) <= 80
    assert trace.lines(document(None, []))[-1] == "  no packet passed"
    check("trace", {**made, "capture": None})


def test_promise_8_hostile_names_in_a_trace() -> None:
    hostile = {**frame(HOSTILE, 1, 1.0), "what": HOSTILE, "source": HOSTILE}
    for line in trace.lines(document(HOSTILE, [hostile])):
        assert line.isprintable(), ascii(line)
        assert not any(unicodedata.combining(char) for char in line)


def place() -> LocalHost:
    """A host with docker0 and eth0, and containers as Docker lists them."""
    made = object.__new__(LocalHost)
    made.links = (
        Link(index=2, name="eth0", kind="", up=True, mtu=1500, mac="",
             addresses=(IPv4Interface("192.0.2.1/24"),)),
        Link(index=3, name="docker0", kind="bridge", up=True, mtu=1500, mac=""),
    )  # fmt: skip
    listed: list[dict[str, object]] = [
        {"Id": "abcd" * 16, "Names": ["/web"], "NetworkSettings": {"Networks": {"bridge": {
            "NetworkID": "n1", "IPAddress": "10.64.0.2", "MacAddress": "02:42:0a:40:00:02"}}}},
        {"Id": "abef" * 16, "Names": ["/on-host"], "NetworkSettings": {"Networks": {"host": {
            "NetworkID": "n2", "IPAddress": ""}}}},
        {"Id": "0" * 64},
    ]  # fmt: skip
    made.containers = containers_of(listed)
    made.networks = (
        DockerNetwork(id="n1", name="bridge", bridge="docker0", subnet=IPv4Network("10.64.0.0/17")),
    )
    made.problem = ""
    return made


@pytest.mark.parametrize("word", ["web", "abcdab", "10.64.0.2"])
def test_a_container_is_found_by_name_id_and_address(word: str) -> None:
    found = place().end(word)
    assert found.document() == {
        "address": "10.64.0.2", "container": "web", "network": "bridge", "link": "docker0",
    }  # fmt: skip
    assert (found.mac, found.is_host) == ("02:42:0a:40:00:02", False)


def test_an_address_of_the_host_and_one_of_nobody_here() -> None:
    own = place().end("192.0.2.1")
    assert own.is_host
    assert own.link is not None
    assert own.link.name == "eth0"
    assert place().end("10.65.0.2").link is None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("wbe", "did you mean web"),
        ("zzzzzz", "give its address"),
        ("on-host", "no address on a bridge network"),
        ("10.64.0.2/16", "give its address"),
        ("fd00::1", "give its address"),
        (HOSTILE, "no container"),
    ],
)
def test_a_word_that_means_nothing_here(word: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        place().end(word)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_capture_takes_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    words = ["trace", "a", "b", "--capture", "--socket", str(tmp_path / "none")]
    assert main(words) == 11
    assert "only root may capture packets" in capsys.readouterr().err


def ipv4(protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    ethernet = bytes.fromhex("024224 38a966 02420a 400002 0800")
    addresses = IPv4Address("10.64.0.2").packed + IPv4Address("10.65.0.2").packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 63, protocol, 0)
    return ethernet + header + addresses + body


def test_a_frame_is_read_and_a_broken_one_is_none() -> None:
    echo = ipv4(1, struct.pack("!BBHHH", 8, 0, 0, 77, 1))
    found = parse_frame(echo, "eth0", 1.5)
    assert found is not None
    assert (found.ttl, found.what, found.identifier) == (63, "echo request", 77)
    assert (found.source_mac, found.destination_mac) == ("02:42:0a:40:00:02", "02:42:24:38:a9:66")
    for length in range(34):
        assert parse_frame(echo[:length], "eth0", 0.0) is None
    assert parse_frame(echo[:14] + b"\x4f" + echo[15:], "eth0", 0.0) is not None
    assert parse_frame(echo[:14] + b"\x65" + echo[15:], "eth0", 0.0) is None
    later = parse_frame(ipv4(1, b"\x08" * 8, fragment=5), "eth0", 0.0)
    assert later is not None
    assert later.what == "icmp"
