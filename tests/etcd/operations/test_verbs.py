"""agentctl reserve, remove and config set against a real etcd, with no agent anywhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from agent.errors import ClaimConflict, MeshConfigError, OverlapError, Refused, UsageError
from agent.etcd import kv
from agent.registry.records import LEASES
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import host, request
from tests.unit.ctl.schemas import check

pytestmark = pytest.mark.etcd

Run = Callable[..., int]


def answer(capsys: pytest.CaptureFixture[str], schema: str = "config") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    check(schema, found)
    return found


def test_reserve_list_and_delete_can_all_be_repeated(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh.claim(request(1))
    assert ctl("reserve") == 0
    assert "no subnet is reserved" in capsys.readouterr().out
    for changed in (True, False):
        assert ctl("reserve", "host1", "10.70.0.0/16", "-o", "json") == 0
        found = answer(capsys, "change")
        assert (found["changed"], found["host_id"]) == (changed, host(1))
    assert ctl("reserve", host(9), "10.71.0.0/16") == 0, "a host that is yet to come, by its id"
    capsys.readouterr()
    assert ctl("reserve", "-o", "json") == 0
    listed = answer(capsys, "reservations")["reservations"]
    assert [(each["subnet"], each["host_name"], each["held"]) for each in listed] == [
        ("10.70.0.0/16", "host1", False),
        ("10.71.0.0/16", "", False),
    ]
    for changed in (True, False):
        assert ctl("reserve", "--delete", "10.70.0.0/16", "-o", "json") == 0
        assert answer(capsys, "change")["changed"] is changed
    assert set(mesh.snapshot().reservations) == {IPv4Network("10.71.0.0/16")}


def test_reserve_says_when_the_host_holds_another_subnet(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = mesh.claim(request(1))
    assert ctl("reserve", "host1", "10.79.0.0/16") == 0
    said = capsys.readouterr()
    assert said.out == f"reserved 10.79.0.0/16 for host1 ({host(1)}) at 192.0.2.2\n"
    assert f"holds {lease.subnet} now" in said.err


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("reserve", "host1"), UsageError.exit_code),
        (("reserve", "host1", "10.70.1.0/16"), UsageError.exit_code),
        (("reserve", "host1", "--delete", "10.70.0.0/16"), UsageError.exit_code),
        (("reserve", "unknown", "10.70.0.0/16"), Refused.exit_code),
        (("reserve", "web", "10.70.0.0/16"), Refused.exit_code),
        (("reserve", "host1", "10.99.0.0/16"), MeshConfigError.exit_code),
        (("reserve", "host1", "10.70.0.0/31"), MeshConfigError.exit_code),
        (("reserve", "host1", "10.72.0.0/16"), ClaimConflict.exit_code),
        (("remove", "unknown"), Refused.exit_code),
        (("remove", "web"), Refused.exit_code),
        (("config", "set"), UsageError.exit_code),
        (("config", "set", "--cidr", "10.64.0.1/10"), UsageError.exit_code),
        (("config", "set", "--subnet-len", "x"), UsageError.exit_code),
        (("config", "set", "--backend", "hostgw"), UsageError.exit_code),
        (("config", "set", "--move"), UsageError.exit_code),
        (("config", "set", "--subnet-len", "13"), MeshConfigError.exit_code),
        (("config", "set", "--subnet-max", "10.99.0.0"), MeshConfigError.exit_code),
        (("config", "set", "--cidr", "10.96.0.0/12"), Refused.exit_code),
        (("config", "set", "--cidr", "10.64.0.0/14"), Refused.exit_code),
    ],
)
def test_what_cannot_be_meant_has_its_own_status_and_writes_nothing(
    mesh: Registry, ctl: Run, words: tuple[str, ...], status: int
) -> None:
    mesh.claim(request(1))
    for number in (2, 3):
        wanted = IPv4Network(f"10.7{number}.0.0/16")
        mesh.claim(replace(request(number, wanted=wanted), host_name="web"))
    before = mesh.snapshot()
    assert main_status(ctl, *words) == status
    assert mesh.snapshot() == before


def main_status(ctl: Run, *words: str) -> int:
    try:
        return ctl(*words)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_remove_retires_a_host_and_can_be_repeated_by_its_id(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = mesh.claim(request(1))
    assert ctl("remove", "host1", "--dry-run") == 0
    assert f"would take {lease.subnet} away from host1" in capsys.readouterr().out
    assert mesh.snapshot().leases == (lease,)
    assert ctl("remove", "host1", "-o", "json") == 0
    assert answer(capsys, "change")["subnets"] == [str(lease.subnet)]
    assert ctl("remove", host(1)) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    view = mesh.snapshot()
    assert (view.leases, dict(view.memory)) == ((), {})


def test_config_set_grows_a_mesh_and_new_hosts_get_the_new_length(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = mesh.claim(request(1))
    words = ("config", "set", "--cidr", "10.64.0.0/10", "--subnet-len", "20")
    assert ctl(*words, "--dry-run") == 0
    assert "would be: 10.64.0.0/10, a /20" in capsys.readouterr().out
    for changed in (True, False):
        assert ctl(*words, "-o", "json") == 0
        found = answer(capsys)
        assert (found["changed"], found["subnet_max"]) == (changed, "10.127.240.0")
    assert mesh.claim(request(2)).subnet.prefixlen == 20
    assert lease in mesh.snapshot().leases


def test_flannel_hosts_are_named_that_would_leave_and_their_time_left_is_told(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """As flannel's registry writes: a new etcd lease of 24 h with each renewal."""
    mesh.claim(request(1, wanted=IPv4Network("10.70.0.0/16")))
    for octet, address in ((71, "192.0.2.77"), (72, "192.0.2.78")):
        key = mesh.keys.of(LEASES, IPv4Network(f"10.{octet}.0.0/16"))
        value = f'{{"PublicIP":"{address}","BackendType":"host-gw"}}'.encode()
        lease_id = mesh.client.grant(86_400).id if octet == 71 else 0  # 0: flannel's reservation
        mesh.client.txn("as flannel", [], [kv.put(key, value, lease_id)])
    assert ctl("leases", "-o", "json") == 0
    left = {each["node_address"]: each["ttl_left_s"] for each in answer(capsys, "leases")["leases"]}
    assert 86_000 < left["192.0.2.77"] <= 86_400
    assert left["192.0.2.78"] is None
    assert left["192.0.2.2"] is not None
    assert ctl("config", "set", "--cidr", "10.64.0.0/11", "--dry-run") == 0
    assert "flannel" not in capsys.readouterr().err
    assert ctl("config", "set", "--subnet-len", "20") == 0
    assert "2 flannel hosts (192.0.2.77, 192.0.2.78)" in capsys.readouterr().err


def test_config_set_refuses_a_cidr_that_this_host_uses(mesh: Registry, ctl: Run) -> None:
    assert mesh.snapshot().config is not None
    change = ["ip", "address", "add", "172.30.0.1/24", "dev", "lo"]
    subprocess.run(change, check=True)
    try:
        status = ctl("config", "set", "--cidr", "172.30.0.0/16", "--move")
    finally:
        subprocess.run([*change[:2], "del", *change[3:]], check=True)
    assert status == OverlapError.exit_code


def test_config_set_refuses_a_cidr_that_no_mesh_may_have(mesh: Registry, ctl: Run) -> None:
    assert mesh.snapshot().config is not None
    for cidr in ("127.0.0.0/8", "169.254.0.0/16"):
        assert ctl("config", "set", "--cidr", cidr, "--move") == MeshConfigError.exit_code


def test_a_move_is_said_with_who_has_not_moved_and_finished_by_word(
    mesh: Registry, ctl: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh.claim(request(1))
    assert ctl("config", "set", "--cidr", "10.32.0.0/12", "--move") == 0
    said = capsys.readouterr().out
    assert "10.32.0.0/12, a /16 for each of up to 16 hosts, host-gw, level 1, moving from" in said
    assert "10.64.0.0/12 stays in use until its hosts have moved: host1" in said
    assert ctl("config", "set", "--finish") == Refused.exit_code
    mesh.release(host(1))
    capsys.readouterr()
    assert ctl("config", "show") == 0
    assert "moving from 10.64.0.0/12" in capsys.readouterr().out
    for changed in (True, False):
        assert ctl("config", "set", "--finish", "-o", "json") == 0
        found = answer(capsys)
        assert (found["changed"], found["previous"]) == (changed, [])
