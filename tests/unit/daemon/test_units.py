"""The units on paper: what systemd-analyze says of them. tests/engine/boot runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

CLONE = Path(__file__).parents[3]
AGENT, GATE = "hostmesh-agent.service", "hostmesh-docker-gate.service"


_IN_DOCS = {
    "(CHOWN|": "CAP_CHOWN",
    "CAP_NET_ADMIN": "CAP_NET_ADMIN",
    "BROADCAST|RAW)": "CAP_NET_RAW",
    "(INET|": "AF_INET6",
    "AF_PACKET": "AF_PACKET",
    "AF_NETLINK": "AF_NETLINK",
    "AF_UNIX": "AF_UNIX",
    "~@": "~@",
}
"""Names of groups of lines in docs/systemd.md; other lines have their own name."""


def lines_of(name: str) -> Mapping[str, list[str]]:
    """Values by key."""
    found: dict[str, list[str]] = {}
    for line in (CLONE / "systemd" / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """Copies whose programs exist on this machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("THE UNITS ARE NOT CHECKED: systemd-analyze is not installed here")
    made = {}
    for name in (AGENT, GATE):
        text = (CLONE / "systemd" / name).read_text()
        programs = r"(?m)=(-?)(hostmesh-agent|agentctl .*|systemctl .*)$"
        text = re.sub(programs, r"=\1/bin/true", text)
        made[name] = tmp_path / name
        made[name].write_text(text)
    return made


def analyze(*argv: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *argv], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def test_systemd_finds_no_fault_with_the_units(units: dict[str, Path]) -> None:
    assert analyze("verify", "--man=no", *map(str, units.values())) == ""


def test_every_line_of_the_exposure_is_small_and_explained(units: dict[str, Path]) -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(units[AGENT]))
    total = re.search(r"exposure level for .*: ([0-9.]+)", said)
    assert total is not None, said
    assert float(total[1]) <= 3.0
    page = (CLONE / "docs/systemd.md").read_text()
    # Private mounts come with the other lines; offline it is not known.
    left = [line.split()[1] for line in said.splitlines() if line.startswith("✗")]
    for name in set(left) - {"PrivateMounts="}:
        words = [_IN_DOCS[key] for key in _IN_DOCS if key in name] or [name.partition("=")[0]]
        assert all(word in page for word in words), f"docs/systemd.md says nothing of {name}"


def test_docker_is_ordered_behind_the_gate_and_not_behind_the_agent() -> None:
    agent, gate = lines_of(AGENT), lines_of(GATE)
    assert "Before" not in agent
    assert gate["Before"] == ["docker.service"]
    assert gate["After"] == [AGENT]
    assert int(gate["JobTimeoutSec"][0]) <= 60
    assert gate["ExecStart"][0].startswith("-")
    # Not wanted by Docker: a restart by the agent would pull it in and wait for it.
    assert gate["WantedBy"] == ["multi-user.target"]


def test_no_name_server_and_no_port_of_one_is_given_up() -> None:
    server = lines_of("hostmesh-dns@.service")
    assert server["StartLimitIntervalSec"] == ["0"]
    assert server["Restart"] == ["always"]
    for number in (53, 54):
        assert lines_of(f"hostmesh-dns-{number}.socket")["TriggerLimitIntervalSec"] == ["0"]


def test_nothing_strands_the_agent_or_takes_the_data_path() -> None:
    agent = lines_of(AGENT)
    assert agent["StartLimitIntervalSec"] == ["0"]
    assert agent["Restart"] == ["always"]
    assert "RestartPreventExitStatus" not in agent
    assert agent["KillMode"] == ["process"]
    assert agent["RuntimeDirectoryPreserve"] == ["yes"]
    assert not {"ExecStop", "ExecStopPost"} & agent.keys()
