"""iptables-nft's tables are read again when, and only when, a transaction may have changed them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from agent.kernel.firewall import nft
from agent.kernel.firewall.nft import NftWriter
from agent.kernel.firewall.variant.iptables import Iptables
from tests.netns.netlab import Host

pytestmark = pytest.mark.netns


@pytest.fixture
def alone() -> Iterator[Host]:
    host = Host("alone")
    yield host
    host.close()


def test_a_rule_of_another_program_is_seen_at_the_next_look(
    alone: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Iptables()
    writer = NftWriter(programs)
    first = alone.call(writer.read)
    assert alone.call(writer.read) == first
    assert len(programs.own_pids()) == 1, "nothing has changed, so nothing is read"
    for runs, change in enumerate(("-A FORWARD -s 10.9.9.9", "-D FORWARD -s 10.9.9.9"), 2):
        before = alone.call(writer.read)
        alone.call(subprocess.run, ["iptables-nft", *change.split()], check=True)
        assert alone.call(writer.read) != before
        assert alone.call(writer.read) != before
        assert len(programs.own_pids()) == runs
    monkeypatch.setattr(nft, "_TRUSTED_S", 0.0)
    alone.call(subprocess.run, ["iptables-nft", "-P", "INPUT", "DROP"], check=True)
    for _ in range(2):
        alone.call(writer.read)
    assert len(programs.own_pids()) == 5, "read anew in time"
