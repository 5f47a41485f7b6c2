"""Forwarding is switched on without making the host an open router, and undone exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.daemon.reconcile.ip_forward import IpForward
from agent.daemon.store.state_file import PreviousValues, StateFile
from agent.kernel.firewall import Firewall
from agent.kernel.sysctl import Sysctls

pytestmark = pytest.mark.unit


class Policy:
    """FORWARD's policy, and in which order things were done."""

    def __init__(self, sysctl: Path) -> None:
        self.value = "ACCEPT"
        self.forwarding_when_set: list[str] = []
        self._sysctl = sysctl

    def set_forward_policy_drop(self) -> str:
        self.forwarding_when_set.append(self._sysctl.read_text().strip())
        previous, self.value = self.value, "DROP"
        return previous

    def restore_forward_policy(self, previous: str) -> None:
        self.forwarding_when_set.append(self._sysctl.read_text().strip())
        self.value = previous


@pytest.fixture
def sysctl(tmp_path: Path) -> Path:
    path = tmp_path / "ipv4" / "ip_forward"
    path.parent.mkdir()
    path.write_text("0\n")
    return path


def forwarding(sysctl: Path, policy: Policy | None) -> tuple[IpForward, StateFile]:
    state = StateFile(sysctl.parents[1] / "state")
    firewall: Firewall | None = policy  # type: ignore[assignment] # the two methods that matter
    return IpForward(sysctls=Sysctls(sysctl.parent), firewall=firewall, state=state), state


def test_the_policy_comes_before_the_switch_and_goes_after_it(sysctl: Path) -> None:
    policy = Policy(sysctl)
    subject, state = forwarding(sysctl, policy)
    assert subject.ensure()
    assert policy.value == "DROP"
    assert sysctl.read_text().strip() == "1"
    assert state.now.switched == PreviousValues(ip_forward="0", forward_policy="ACCEPT")
    assert not subject.ensure()
    assert subject.undo()
    assert policy.value == "ACCEPT"
    assert sysctl.read_text().strip() == "0"
    assert policy.forwarding_when_set == ["0", "0"], "forwarding was on with an open FORWARD"
    assert subject.undo() == ()


def test_a_host_that_forwards_already_is_left_as_it_is(sysctl: Path) -> None:
    sysctl.write_text("1\n")
    policy = Policy(sysctl)
    subject, state = forwarding(sysctl, policy)
    assert not subject.ensure()
    assert policy.value == "ACCEPT"
    assert state.now.switched == PreviousValues()
    assert subject.undo() == ()
    assert sysctl.read_text().strip() == "1"


def test_previous_values_survive_a_kill_between_the_two_steps(sysctl: Path) -> None:
    policy = Policy(sysctl)
    subject, _ = forwarding(sysctl, policy)
    subject.ensure()
    sysctl.write_text("0\n")  # as if killed before the switch; DROP is set already
    again, state = forwarding(sysctl, policy)
    again.ensure()
    assert state.now.switched == PreviousValues(ip_forward="0", forward_policy="ACCEPT")


def test_while_another_program_keeps_forwarding_on_the_policy_stays(sysctl: Path) -> None:
    """Opening FORWARD while the host goes on forwarding would make it an open router."""
    policy = Policy(sysctl)
    subject, _ = forwarding(sysctl, policy)
    subject.ensure()
    sysctl.write_text("2\n")  # another program set its own value
    subject.undo()
    assert policy.value == "DROP"
    assert sysctl.read_text().strip() == "2"


def test_without_managed_rules_only_the_sysctl_is_switched(sysctl: Path) -> None:
    subject, state = forwarding(sysctl, None)
    assert subject.ensure()
    assert state.now.switched == PreviousValues(ip_forward="0")
    assert subject.undo()
    assert sysctl.read_text().strip() == "0"
