"""What an operator's tools say of healthy hosts and of broken ones. Promise 9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostmesh_lab.host import Host
from hostmesh_lab.kinds import HostOptions
from hostmesh_lab.lab import Lab, LabOptions

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

LAB = LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))


def hosts(mesh: Lab) -> list[Host]:
    return [mesh.hosts[f"host{n}"] for n in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _ready_again(mesh: Lab) -> Iterator[None]:
    """Whatever a test disturbed has healed before the next one starts."""
    yield
    mesh.wait_ready(60)


def doctor(host: Host) -> tuple[int, dict[str, Any]]:
    done = host.agentctl("doctor", "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_promise_9_the_doctor_finds_nothing_wrong_with_a_healthy_member(mesh: Lab) -> None:
    for host in hosts(mesh):
        status, document = doctor(host)
        wrong = [each for each in document["checks"] if each["state"] != "ok"]
        assert (status, document["member"], wrong) == (0, True, []), host.name
        assert document["would"] == []
    shown = hosts(mesh)[0].agentctl("doctor").stdout
    assert shown.splitlines()[-1] == "this host is a member; no check fails"


def test_promise_9_the_doctor_names_a_source_check_on_a_members_port(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    with host.source_check():
        status, document = doctor(host)
        shown = host.agentctl("doctor", check=False).stdout
    (underlay,) = (each for each in document["checks"] if each["check"] == "underlay")
    assert (status, underlay["state"]) == (1, "fail"), underlay
    assert "packets with containers' addresses are dropped on the way" in underlay["found"]
    assert "source check" in underlay["hint"]
    assert "this host is a member; 1 of " in shown


def test_promise_9_without_root_the_doctor_says_what_it_did_not_test(mesh: Lab) -> None:
    host = hosts(mesh)[0]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = host.run([*nobody, "agentctl", "doctor", "-o", "json"], check=False)
    document = json.loads(done.stdout)
    by_state: dict[str, list[str]] = {}
    for each in document["checks"]:
        by_state.setdefault(each["state"], []).append(each["check"])
        if each["state"] != "ok":
            assert each["found"].startswith("needs root:"), each
    assert set(by_state) == {"ok", "unknown"}
    assert set(by_state["unknown"]) == {"root", "underlay", "docker"}
    assert done.returncode == 0
