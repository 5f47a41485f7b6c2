"""Which iptables ours are in, and what the other one, nft and a broken program do to that."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.firewall.rig.docker_rules import docker_text
from tests.netns.firewall.rig.probing import Probe
from tests.netns.firewall.rig.rig import C0, PEER_CONTAINER, WANTS, Rig, conditions

pytestmark = pytest.mark.netns


@contextlib.contextmanager
def nft_tables(rig: Rig, family: int, tables: tuple[str, ...], *lines: str) -> Iterator[None]:
    """Tables made with nft, filled by ``lines`` of Python."""

    def run(word: str, *more: str) -> None:
        made = [f"nft.table('{word}', name='{table}')" for table in tables]
        script = (
            "from pyroute2.nftables.expressions import genex, verdict\n"
            "from pyroute2.nftables.main import NFTables\n"
            f"with NFTables(nfgen_family={family}) as nft:\n"
        )
        script += "".join(f"    {line}\n" for line in (*made, *more))
        rig.host.run(sys.executable, "-c", script)

    run("add", *lines)
    try:
        yield
    finally:
        run("del")


NFT_CONDITIONS = {
    "firewalld-blocks-mesh": "inet firewalld forward",
    "operator-nft-chain": "inet filter forward",
}


def test_chains_of_nft_with_a_drop_at_their_end_are_conditions(bare: Rig) -> None:
    """As firewalld and Debian's /etc/nftables.conf make them, beside iptables' own."""
    bare.iptables("-P", "FORWARD", "DROP")
    found_conditions = bare.firewall("apply")["conditions"]
    assert "operator-nft-chain" not in {condition["name"] for condition in found_conditions}
    chains = [
        f"nft.chain('add', table='{table}', name='{hook}', hook='{hook}', type='filter',"
        f" policy={policy})"
        for table, policy in (("firewalld", 1), ("filter", 0))
        for hook in ("input", "forward")
    ]
    reject = "expressions=([genex('reject', {'TYPE': 2, 'ICMP_CODE': 3})],)"
    rules = [
        f"nft.rule('add', table='firewalld', chain='{hook}', {reject})"
        for hook in ("input", "forward")
    ]
    with nft_tables(bare, 1, ("firewalld", "filter"), *chains, *rules):
        bare.reopen(bare.variant)
        found_conditions = bare.firewall("apply")["conditions"]
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
    found = {each["name"]: each for each in found_conditions if each["name"] in NFT_CONDITIONS}
    assert {name: each["subject"] for name, each in found.items()} == NFT_CONDITIONS
    assert {each["severity"] for each in found.values()} == {"warning"}


def test_a_rule_that_only_sets_a_mark_decides_nothing(bare: Rig) -> None:
    """nft loads a packet mark by the same expression as a verdict."""
    chain = "nft.chain('add', table='filter', name='forward', hook='forward', type='filter', {})"
    value = "{'attrs': [('NFTA_DATA_VALUE', bytes([5, 0, 0, 0]))]}"
    mark = ", ".join(
        (
            f"genex('immediate', {{'DREG': 1, 'DATA': {value}}})",
            "genex('meta', {'KEY': 3, 'SREG': 1})",
        )
    )
    rules = [
        f"nft.rule('add', table='filter', chain='forward', expressions=([{mark}]{accept},))"
        for accept in ("", " + verdict(1)")
    ]
    with nft_tables(bare, 1, ("filter",), chain.format("policy=0"), *rules):
        bare.reopen(bare.variant)
        found_conditions = bare.firewall("apply")["conditions"]
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))
    assert "operator-nft-chain" not in {each["name"] for each in found_conditions}


COUNT_DECODED = """
from agent.kernel.firewall.advice import nft_chains as nftchains
found, decode = [], nftchains.decode_rule
nftchains.decode_rule = lambda raw: found.append(raw) or decode(raw)
print(nftchains.dropping_chains(), len(found))
"""


def test_the_rules_of_a_table_that_drops_nothing_are_not_read(bare: Rig) -> None:
    """Those of its chain in the forward hook are: the last of them could drop."""
    chains = (
        "nft.chain('add', table='kube', name='forward', hook='forward', type='filter', policy=1)",
        "nft.chain('add', table='kube', name='services')",
    )
    rules = [
        f"nft.rule('add', table='kube', chain='{chain}', expressions=(verdict(1),))"
        for chain in ("forward", "services", "services", "services")
    ]
    with nft_tables(bare, 2, ("kube",), *chains, *rules):
        assert bare.host.run(sys.executable, "-c", COUNT_DECODED).strip() == "() 1"


def test_rules_in_the_other_variant_are_moved(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.reopen(other)
    bare.firewall("apply")
    bare.reopen(bare.variant)
    report = bare.firewall("apply")
    assert report["variant"] == bare.variant
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]
    assert [line for line in bare.save() if "HOSTMESH" in line]
    assert bare.firewall("check")["differs"] is False


def test_auto_goes_where_dockers_rules_are(bare: Rig) -> None:
    bare.restore(docker_text("26.1"))
    bare.reopen("auto")
    assert bare.firewall("apply")["variant"] == bare.variant
    assert [line for line in bare.save() if "HOSTMESH" in line]


def test_docker_in_both_variants_is_a_condition(docked: Rig, engine: str) -> None:
    other = "legacy" if docked.variant == "nft" else "nft"
    docked.restore(docker_text(engine), variant=other)
    said = conditions(docked.firewall("apply"))
    assert f"iptables-{other}" in said["firewall-stale-variant"]


@contextlib.contextmanager
def broken(rig: Rig, variant: str) -> Iterator[None]:
    """The programs of a variant end with an error; the next run of the agent meets that."""
    program = f"/usr/sbin/xtables-{variant}-multi"
    rig.host.run("mount", "--bind", "/bin/false", program)
    try:
        rig.reopen(rig.variant)
        yield
    finally:
        rig.host.run("umount", program)


@pytest.fixture
def broken_other(bare: Rig) -> Iterator[str]:
    """The variant that ours are not in."""
    other = "legacy" if bare.variant == "nft" else "nft"
    with broken(bare, other):
        yield other


def test_promise_9_rules_left_in_a_broken_variant_are_an_error_of_leaving(
    bare: Rig,
) -> None:
    """The agent cannot look there, and the set that they name cannot go: leaving is not done."""
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.reopen(other)
    bare.firewall("apply")
    with broken(bare, other):
        assert "firewall-variant-unreadable" in conditions(bare.firewall("apply"))
        bare.driver.send({"op": "remove", "arguments": []})
        assert "a rule still names it" in bare.driver.receive()["message"]
    assert bare.firewall("remove")["differs"]
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]
    assert "hostmesh" not in bare.host.run("ipset", "list", "-n")


def test_promise_9_a_broken_other_variant_costs_a_condition_and_nothing_else(
    bare: Rig, broken_other: str
) -> None:
    bare.restore(docker_text("28.5"))
    report = bare.firewall("apply")
    assert report["variant"] == bare.variant
    assert f"iptables-{broken_other}" in conditions(report)["firewall-variant-unreadable"]
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))
    assert bare.firewall("apply")["differs"] is False
    removed = bare.firewall("remove")["edits"]
    assert [edit for edit in removed if edit.startswith(f"{broken_other}: not looked at")]
    assert not [line for line in bare.save() if "HOSTMESH" in line]
    assert "hostmesh" not in bare.host.run("ipset", "list", "-n")


@pytest.mark.parametrize("table", ["filter", "mangle"])
def test_rules_that_only_nft_can_show_do_not_stop_what_does_not_need_them(
    bare: Rig, table: str
) -> None:
    """The nft variant is not ours to write to, or the table is none that ours belong in."""
    bare.reopen(bare.variant)
    odd = f"table='{table}', chain='odd'"
    lines = (
        f"nft.chain('add', table='{table}', name='odd')",
        f"nft.rule('add', {odd}, expressions=([genex('ct', {{'DREG': 1, 'KEY': 0}})],))",
    )
    with nft_tables(bare, 2, (table,), *lines):
        if (bare.variant, table) == ("nft", "filter"):
            bare.driver.send({"op": "apply", "wants": {**WANTS}})
            assert "another program wrote it" in bare.driver.receive()["message"]
            return
        report = bare.firewall("apply")
        own, other = "firewall-table-unreadable", "firewall-variant-unreadable"
        found_conditions = {
            name: cause for name, cause in conditions(report).items() if name in {own, other}
        }
        if bare.variant == "nft":
            assert "mangle" in found_conditions.pop(own)
        elif table == "filter":
            assert "another program wrote it" in found_conditions.pop(other)
        assert found_conditions == {}
        bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))
        assert bare.firewall("apply")["differs"] is False


def test_the_variant_that_settings_name_may_be_the_one_docker_is_not_in(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    bare.restore(docker_text("28.5"), variant=other)
    bare.reopen(bare.variant)
    found_conditions = conditions(bare.firewall("apply"))
    assert list(found_conditions) == ["firewall-variant-mismatch"]
    assert f"iptables-{other}" in found_conditions["firewall-variant-mismatch"]
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), None))
    bare.reopen("auto")
    assert conditions(bare.firewall("apply")) == {}
    bare.expect((Probe("peer", C0, "tcp81", PEER_CONTAINER), PEER_CONTAINER))


def test_what_an_older_docker_left_in_the_other_iptables_moves_nothing(
    bare: Rig, tmp_path: Path
) -> None:
    """Docker writes with ``bare.variant``; its chains there are flushed and deleted."""
    other = "legacy" if bare.variant == "nft" else "nft"
    (tmp_path / "iptables").symlink_to(f"/usr/sbin/xtables-{bare.variant}-multi")
    dockerd = subprocess.Popen(["/bin/sleep", "120"], env={"PATH": str(tmp_path)})
    try:
        for variant in (bare.variant, other):
            bare.restore(docker_text("26.1"), variant=variant)
        bare.reopen("auto", dockerd=dockerd.pid)
        assert bare.firewall("apply")["variant"] == bare.variant
        for table in ("filter", "nat", "raw"):
            bare.iptables("-t", table, "-F")
            bare.iptables("-t", table, "-X")
        bare.firewall("later")
        report = bare.firewall("apply")
    finally:
        dockerd.kill()
        dockerd.wait(5)
    assert report["variant"] == bare.variant
    assert set(conditions(report)) == {"docker-rules-missing", "firewall-stale-variant"}
    assert not [line for line in bare.save(variant=other) if "HOSTMESH" in line]


def test_only_the_own_variant_holds_rules_and_nothing_new_is_made_elsewhere(bare: Rig) -> None:
    other = "legacy" if bare.variant == "nft" else "nft"
    before = bare.save(variant=other)
    bare.firewall("apply")
    bare.firewall("check")
    bare.firewall("remove")
    assert bare.save(variant=other) == before
