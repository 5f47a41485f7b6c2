"""How long the agent waits for firewall-cmd."""

import itertools
from pathlib import Path

import pytest

from agent.errors import FirewallError
from agent.kernel.firewall import firewalld
from agent.kernel.firewall.advice.nft_chains import NftChain
from agent.kernel.firewall.firewalld import FirewallCmd, Firewalld
from tests.unit.firewall.wanted import wants

pytestmark = pytest.mark.unit

CHAIN = NftChain("inet", "firewalld", "filter_FORWARD", "policy drop")
SLOW = """#!/bin/sh
echo "$*" >>{log}
/bin/sleep 0.3
case $1 in --state) echo running ;; *) echo "  sources: 10.64.0.0/10 198.51.100.1" ;; esac
"""


class Record:
    """Sources that are known to be the agent's."""

    firewalld_sources: tuple[str, ...] = ()

    def set_firewalld_sources(self, sources: tuple[str, ...]) -> None:
        self.firewalld_sources = sources


@pytest.mark.parametrize("removes", [False, True])
def test_promise_10_slow_runs_of_firewall_cmd_share_one_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, removes: bool
) -> None:
    """The loop waits for all of them, and systemd for the loop."""
    monkeypatch.setattr(firewalld, "_BUDGET_S", 0.5, raising=False)
    log, program = tmp_path / "log", tmp_path / "firewall-cmd"
    program.write_text(SLOW.format(log=log))
    program.chmod(0o755)
    record = Record()
    record.firewalld_sources = ("10.64.0.0/10", "198.51.100.1")
    made = Firewalld(
        record, manage=True, command=FirewallCmd(str(tmp_path)), chains=lambda: (CHAIN,)
    )
    with pytest.raises(FirewallError, match="did not end within"):
        made.remove() if removes else made.apply(wants())
    assert len(log.read_text().splitlines()) <= 2


QUICK = """#!/bin/sh
echo "$*" >>{log}
echo "  sources: 10.64.0.0/10 192.168.0.0 198.51.100.1"
"""


def test_promises_3_and_4_a_node_that_may_not_be_gone_stays_in_firewalld(tmp_path: Path) -> None:
    """An agent that starts while etcd is away knows its own copy, which may lack the newest."""
    log, program = tmp_path / "log", tmp_path / "firewall-cmd"
    program.write_text(QUICK.format(log=log))
    program.chmod(0o755)
    record = Record()
    ours = ["10.64.0.0/10", "192.168.0.0", "198.51.100.1"]
    record.firewalld_sources = tuple(ours)
    made = Firewalld(
        record,
        manage=True,
        command=FirewallCmd(str(tmp_path)),
        chains=lambda: (CHAIN,),
        clock=itertools.count(step=1000).__next__,
    )
    made.apply(wants(), may_remove=False)
    assert [*record.firewalld_sources] == ours
    assert "--remove-source" not in log.read_text()
    made.apply(wants(), may_remove=True)
    assert [*record.firewalld_sources] == ours[:2]
    assert log.read_text().count("--remove-source=198.51.100.1") == 2
