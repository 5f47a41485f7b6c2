"""Calls of wg, taken by a program in its place that writes them down."""

from __future__ import annotations

import base64
import stat
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.errors import KernelError
from agent.kernel.wireguard.handshakes import Handshakes
from agent.kernel.wireguard.key import WireGuardKey
from agent.kernel.wireguard.tables import AllowedIpTable, PeerTable
from agent.kernel.wireguard.tool import DeviceState, PeerState, WireGuardTool
from agent.model.wireguard import AllowedIp, Endpoint, WireGuardPeer
from agent.programs import ProgramRunner
from agent.reconcile.interfaces import Operation, OperationKind, Reason

pytestmark = pytest.mark.unit

NOW_S = 1_800_000_000.0
WANTED = Endpoint(IPv4Address("192.0.2.7"), 51820)
MOVED = Endpoint(IPv4Address("203.0.113.1"), 40000)


def key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32)).decode()


def subnet(number: int) -> IPv4Network:
    return IPv4Network((int(IPv4Address("10.64.0.0")) + number * 256, 24))


class Wg:
    """A program with the name of wg, and all that it was called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = ProgramRunner(path=f"{folder}:/usr/bin:/bin")
        self.does("exit 0")

    def does(self, script: str) -> None:
        program = self.folder / "wg"
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/calls\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


class Tool(WireGuardTool):
    """One whose device is here, and is not listed by wg."""

    state: DeviceState | None = None

    def show(self, link: str) -> DeviceState | None:
        return super().show(link) if self.state is None else self.state

    def _has(self, link: str) -> bool:
        return bool(link)


@pytest.fixture
def wg(tmp_path: Path) -> Wg:
    return Wg(tmp_path)


def peer_table(tool: Tool, handshakes: Handshakes | None = None) -> PeerTable:
    return PeerTable(tool, handshakes or Handshakes(tool), wall_clock=lambda: NOW_S)


def peer_state(
    number: int, *ranges: IPv4Network, endpoint: str = "(none)", age_s: float = 0.0
) -> PeerState:
    return PeerState(key(number), endpoint, tuple(map(str, ranges)), int(NOW_S - age_s), 0)


def replacing(number: int, network: IPv4Network) -> Operation[AllowedIp]:
    wanted = AllowedIp(link="hm-wg", network=network, public_key=key(number))
    return Operation(OperationKind.REPLACE, wanted, Reason.MISSING)


def test_ranges_of_many_peers_are_set_in_few_calls(wg: Wg) -> None:
    tool = Tool(wg.runner)
    tool.state = DeviceState(key(99), 51820, tuple(map(peer_state, range(1, 1001))))
    wanted = [replacing(each, subnet(each)) for each in range(1, 1001)]
    assert all(each.ok for each in AllowedIpTable(tool).apply(wanted))
    assert len(wg.calls) == 10


def test_a_range_is_never_without_a_peer_while_it_moves(wg: Wg) -> None:
    tool = Tool(wg.runner)
    before = peer_state(1, subnet(1), subnet(3)), peer_state(2, subnet(2))
    tool.state = DeviceState(key(99), 51820, before)
    (result,) = AllowedIpTable(tool).apply([replacing(2, subnet(3))])
    assert result.ok
    (call,) = wg.calls
    assert call == (
        f"set hm-wg peer {key(2)} allowed-ips {subnet(2)},{subnet(3)}"
        f" peer {key(1)} allowed-ips {subnet(1)}"
    )


_OWN = 200
_SHOWS_A_DEVICE = f"test $1 != show || printf '(none)\\t{key(_OWN)}\\t51820\\toff\\n'"


def test_promise_10_a_wg_that_hangs_is_waited_for_once(wg: Wg) -> None:
    """A pass over a hundred peers, and lists after it, would take minutes otherwise."""
    wg.does("sleep 60")
    now_s = [100.0]
    tool = Tool(wg.runner, deadline_s=0.3, clock=lambda: now_s[0])
    wanted = [
        Operation(
            OperationKind.REPLACE, WireGuardPeer(link="hm-wg", public_key=key(each)), Reason.MISSING
        )
        for each in range(100)
    ]
    began_s = time.monotonic()
    assert not any(each.ok for each in peer_table(tool).apply(wanted))
    with pytest.raises(KernelError, match="not run again yet"):
        tool.show("hm-wg")
    assert len(wg.calls) == 1
    assert time.monotonic() - began_s < 5
    now_s[0] += 60
    wg.does(_SHOWS_A_DEVICE)
    assert all(each.ok for each in peer_table(tool).apply(wanted))


def test_of_two_hosts_that_meet_the_one_with_the_lower_key_begins(wg: Wg) -> None:
    """Both at once would each drop the other's answer, and wait 5 s."""
    wg.does(_SHOWS_A_DEVICE)
    table = peer_table(Tool(wg.runner))
    own = key(_OWN)
    for at in (_OWN - 1, _OWN + 1):
        peer = WireGuardPeer(link="hm-wg", public_key=key(at), endpoint=WANTED)
        wanted = (Operation(OperationKind.REPLACE, peer, Reason.MISSING),)
        for again in (False, True):  # of a device that was made again the peer knows nothing
            assert all(each.ok for each in table.apply(wanted))
            begun = wg.calls[-1].count("persistent-keepalive") == 2
            assert begun is (again or own < key(at))


@pytest.mark.parametrize(("shaken_s", "kept"), [(0, True), (1, True), (0, False)])
def test_the_other_begins_a_moment_later_unless_they_have_shaken_hands(
    wg: Wg, shaken_s: int, *, kept: bool
) -> None:
    """The first packet of the one with the lower key may come before it is known here."""
    tool, now_s = Tool(wg.runner), [0.0]
    handshakes = Handshakes(tool, clock=lambda: now_s[0])
    table = peer_table(tool, handshakes)
    peer = WireGuardPeer(link="hm-wg", public_key=key(1), endpoint=WANTED)
    there = PeerState(key(1), str(WANTED), (), shaken_s, 0)
    tool.state = DeviceState(key(_OWN), 51820, (there,))
    table.apply([Operation(OperationKind.REPLACE, peer, Reason.MISSING)])
    if not kept:
        table.apply([Operation(OperationKind.DELETE, peer, Reason.EXTRA)])
    calls = len(wg.calls)
    later_s = handshakes.begin()
    assert (later_s is not None, len(wg.calls)) == (kept, calls)
    now_s[0] += later_s or 1
    assert handshakes.begin() is None
    begun = [each for each in wg.calls[calls:] if each.count("persistent-keepalive") == 2]
    assert len(begun) == (kept and not shaken_s)
    assert len(wg.calls) == calls + len(begun)


def test_promise_10_handshakes_with_many_peers_are_begun_some_at_a_time(wg: Wg) -> None:
    """Arguments of a program have a limit."""
    tool, now_s = Tool(wg.runner), [0.0]
    handshakes = Handshakes(tool, clock=lambda: now_s[0])
    there = [PeerState(key(number), str(WANTED), (), 0, 0) for number in range(1, 251)]
    tool.state = DeviceState(key(_OWN), 51820, tuple(there))
    for each in there:
        handshakes.leave(WireGuardPeer(link="hm-wg", public_key=each.public_key, endpoint=WANTED))
    now_s[0] += 1
    assert [handshakes.begin() for _ in range(3)] == [0.0, 0.0, None]
    assert [each.count("persistent-keepalive 25") for each in wg.calls] == [100, 100, 50]


def test_the_private_key_is_in_no_message(wg: Wg) -> None:
    for script in ("printf 'SECRET\\tx\\n'", "printf 'SECRET\\tx\\t1\\toff\\n'; exit 1"):
        wg.does(script)
        with pytest.raises(KernelError) as caught:
            Tool(wg.runner).show("hm-wg")
        assert "SECRET" not in f"{caught.value} {caught.value.message}"


@pytest.mark.parametrize(
    ("age_s", "kept"), [(10.0, True), (600.0, False)], ids=["shakes-hands", "silent"]
)
def test_promise_6_an_agent_that_starts_keeps_an_endpoint_that_moved(
    wg: Wg, age_s: float, *, kept: bool
) -> None:
    tool = Tool(wg.runner)
    there = peer_state(1, subnet(1), endpoint=str(MOVED), age_s=age_s)
    tool.state = DeviceState(key(99), 51820, (there,))
    table = peer_table(tool)
    wanted = WireGuardPeer(link="hm-wg", public_key=key(1), endpoint=WANTED)
    (found,) = table.list_all({wanted.key: wanted}).own
    assert (found == wanted) == kept


def test_an_endpoint_that_could_not_be_written_is_not_taken_for_one_that_moved(wg: Wg) -> None:
    tool = Tool(wg.runner)
    tool.state = DeviceState(key(99), 51820, (peer_state(1, endpoint=str(MOVED)),))
    table = peer_table(tool)
    wanted = WireGuardPeer(link="hm-wg", public_key=key(1), endpoint=WANTED)
    wg.does("exit 1")
    (result,) = table.apply([Operation(OperationKind.REPLACE, wanted, Reason.MISSING)])
    assert not result.ok
    assert table.list_all({wanted.key: wanted}).own != (wanted,)


def test_the_key_is_usable_as_soon_as_wg_is_there(tmp_path: Path) -> None:
    """As the hint of wireguard-unavailable says: install it, and reload."""
    folder = tmp_path / "bin"
    folder.mkdir()
    found = WireGuardKey(tmp_path, ProgramRunner(path=str(folder)))
    found_sbin = ProgramRunner(path=str(folder)).find("wg")
    if found_sbin is not None:
        pytest.skip(f"not run here: there is {found_sbin}")
    assert found.public_key(create=True) == ""
    wg = Wg(folder)
    wg.does(f"echo {key(7)}")
    assert found.public_key(create=True) == key(7)


def test_promise_2_a_key_that_cannot_be_read_is_not_replaced(tmp_path: Path, wg: Wg) -> None:
    wg.does(f"echo {key(7)}")
    found = WireGuardKey(tmp_path, wg.runner)
    assert found.public_key(create=True) == key(7)
    before = found.path.read_bytes()
    aside = tmp_path / "aside"
    found.path.rename(aside)
    found.path.symlink_to(found.path.name)  # ELOOP, an error that is not "missing"
    assert found.public_key(create=True) == key(7)
    assert found.path.is_symlink()
    found.path.unlink()
    aside.rename(found.path)
    assert found.path.read_bytes() == before


def test_a_damaged_key_ends_no_loop(tmp_path: Path, wg: Wg) -> None:
    wg.does("exit 1")
    found = WireGuardKey(tmp_path, wg.runner)
    found.path.write_bytes(b"\xff\xfe\x00 not text")
    assert found.public_key(create=True) == ""
    assert found.path.read_bytes() == b"\xff\xfe\x00 not text"
