"""Our rules' text and the edits between what is there and what is wanted."""

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest

from agent.errors import FirewallError
from agent.kernel.firewall.chains import declared, forward
from agent.kernel.firewall.chains.declared import OwnChain, our_chains
from agent.kernel.firewall.chains.rule import jump_to
from agent.kernel.firewall.edits import closing_edits, removal_edits, restore_text, table_edits
from agent.kernel.firewall.parse import parse_rule, parse_ruleset
from agent.mesh.backends.base import TunnelPort
from agent.mesh.firewall import (
    DesiredFirewall,
    Ingress,
    PublishedPort,
    Sender,
    WantedNetwork,
    set_name,
)
from agent.model.family import FAMILIES, IPV4, Family
from tests.property.firewall.model import BUILT_IN, State, restore, save
from tests.unit.firewall.wanted import (
    CLOSED,
    DOCKER_20,
    INTERNAL,
    OPEN,
    SHOWN,
    SPANNING,
    SPANNING_CLOSED,
    network,
    sources,
    wants,
)

pytestmark = pytest.mark.unit


EVERY = (OPEN, SHOWN, CLOSED, INTERNAL, SPANNING, SPANNING_CLOSED)


def bodies(wanted: DesiredFirewall) -> list[str]:
    chains = our_chains(wanted)
    return [rule for table in chains.values() for rules in table.values() for rule in rules]


def test_every_rule_says_its_purpose() -> None:
    tunnel = TunnelPort(8472, "eth0")
    for body in bodies(replace(wants(*EVERY), tunnels=(tunnel,))):
        assert '--comment "hostmesh: ' in body


def test_the_number_of_rules_is_that_of_networks_not_of_peers_and_containers() -> None:
    few = wants(OPEN, SHOWN, peers=10)
    assert bodies(few) == bodies(wants(OPEN, SHOWN, peers=10_000))
    address = IPv4Address("10.65.0.2")
    ports = frozenset(PublishedPort(address, "tcp", port) for port in range(1000))
    senders = frozenset(Sender(address, f"br-{number}") for number in range(100))
    assert bodies(replace(few, published=ports, senders=senders)) == bodies(few)


def test_what_closes_before_docker_answers_accepts_nothing_and_needs_no_set() -> None:
    rules = forward.closing((IPv4Network("10.65.0.0/16"),), ("eth0", "eth1"))
    assert {parse_rule(rule).target for rule in rules} == {"RETURN", "DROP"}
    assert not any("match-set" in rule for rule in rules)


def test_containers_of_this_host_ask_its_name_servers_and_no_other_machine_does() -> None:
    servers = (ip_network("169.254.20.53/32"), ip_network("169.254.20.54/32"))
    chains = our_chains(replace(wants(OPEN, INTERNAL), name_servers=servers))["filter"]
    jumps = [rule for rule in chains["HOSTMESH-INPUT"] if rule.endswith("HOSTMESH-NAMES")]
    assert [re.findall(r"-d (\S+)/32 .*-p (\w+)", rule)[0] for rule in jumps] == [
        *(("169.254.20.53", "udp"), ("169.254.20.53", "tcp")),
        *(("169.254.20.54", "udp"), ("169.254.20.54", "tcp")),
    ]
    *accepted, dropped = map(parse_rule, chains["HOSTMESH-NAMES"])
    clauses = (clause for each in accepted for clause in each.clauses)
    links = [clause.values[0] for clause in clauses if clause.option == "-i"]
    new = [each for each in ("docker0", "br-+", "hm-+") if each != OPEN.bridge]
    assert links == ["lo", OPEN.bridge, INTERNAL.bridge, *new]
    assert {each.target for each in accepted} == {"ACCEPT"}
    assert dropped.target == "DROP"
    assert "HOSTMESH-NAMES" not in our_chains(wants(OPEN))["filter"]
    lan = replace(wants(OPEN, ingress=(Ingress("br-lan", frozenset()),)), name_servers=servers)
    rules = our_chains(lan)["filter"]["HOSTMESH-NAMES"]
    closed = next(n for n, each in enumerate(rules) if each.startswith("-i br-lan "))
    assert parse_rule(rules[closed]).target == "DROP"
    assert closed < next(n for n, each in enumerate(rules) if each.startswith("-i br-+ "))


BOTH = (Ingress("eth0", frozenset()), Ingress("hostmesh.1", sources(3)))


def test_every_rule_that_lets_something_in_looks_at_an_interface_of_the_mesh_first() -> None:
    """Promise 5: addresses alone let one network of a host into another."""
    chains = our_chains(wants(OPEN, SHOWN, CLOSED, ingress=BOTH))
    for rules in (chains["filter"]["HOSTMESH-FORWARD"], chains["raw"]["HOSTMESH-PREROUTING"]):
        for spec in map(parse_rule, rules):
            if spec.target in {"ACCEPT", "HOSTMESH-INBOUND"}:
                interfaces = [c for c in spec.clauses if c.option in {"-i", "-o"}]
                (way,) = {c.values[0] for c in interfaces} & {"eth0", "hostmesh.1"}
                (named,) = (c.values[0] for c in spec.clauses if c.option == "--match-set")
                assert named == f"hostmesh-in-{way}", spec
    forged = [f"-s 10.65.0.0/16 -d 10.65.0.0/16 -i {each.interface}" for each in BOTH]
    for rule, words in zip(chains["filter"]["HOSTMESH-FORWARD"], forged, strict=False):
        assert rule.startswith(words)
        assert rule.endswith("-j DROP")


def test_what_a_slice_opens_is_behind_the_ingress_set_in_every_table() -> None:
    """Promise 5: a source alone proves nothing, whatever mesh network it is a slice of."""
    chains = our_chains(wants(SPANNING, SPANNING_CLOSED, ingress=BOTH))
    inward = [body for body in bodies(wants(*EVERY)) if "hostmesh-net-" in body and " src " in body]
    assert all(" -d 10.65.13" in f" {body}" for body in inward), "to the own slice only"
    for body in chains["filter"]["HOSTMESH-NETWORKS"]:
        assert "-i " not in body, "HOSTMESH-FORWARD has looked at it"
    leads = [rule for rule in chains["filter"]["HOSTMESH-FORWARD"] if "HOSTMESH-INBOUND" in rule]
    assert all("--match-set hostmesh-in-" in rule for rule in leads)
    raw = chains["raw"]["HOSTMESH-PREROUTING"]
    for each in BOTH:
        mine = [rule for rule in raw if f"-i {each.interface} " in rule]
        drop = next(n for n, rule in enumerate(mine) if "! --match-set hostmesh-in-" in rule)
        assert drop < next(n for n, rule in enumerate(mine) if "hostmesh-net-" in rule)


def test_a_slice_costs_a_constant_number_of_rules() -> None:
    def count(number: int, of: WantedNetwork) -> int:
        networks = (
            replace(of, bridge=f"br-{n}", slices=of.slices and f"hostmesh-net-{n:010x}")
            for n in range(number)
        )
        return len(bodies(wants(OPEN, *networks)))

    for each, alone in ((SPANNING, SHOWN), (SPANNING_CLOSED, CLOSED)):
        cost = count(100, each) - count(99, each)
        assert cost == count(3, each) - count(2, each)
        assert cost - (count(3, alone) - count(2, alone)) == 4


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_rules_of_either_family_name_nothing_of_the_other(family: Family) -> None:
    networks = (
        network("docker0", 0, "open", family=family),
        network("br-a", 128, "published", family=family),
        network("br-i", 130, "closed", internal=True, family=family),
    )
    wanted = wants(*networks, family=family)
    found = [parse_rule(body) for body in bodies(wanted)]
    words = {
        value
        for spec in found
        for c in spec.clauses
        for value in c.values
        if c.option != "--comment"
    }
    addresses = {word for word in words if "/" in word}
    assert {ip_network(word).version for word in addresses} == {family.version}
    assert (words & {"icmp", "ipv6-icmp"}) == {family.icmp}
    names = {word for word in words if word.startswith("hostmesh-")}
    suffix = "" if family is IPV4 else "6"
    assert names == {
        f"hostmesh-in{suffix}-eth0",
        f"hostmesh-published{suffix}",
        f"hostmesh-senders{suffix}",
    }
    assert all(len(name) <= 31 for name in (*names, set_name("in", family, "x" * 15)))
    text = restore_text(table_edits(parse_ruleset(""), wanted))
    assert table_edits(parse_ruleset(_as_saved(text)), wanted) == ()


def test_nothing_opens_a_closed_network() -> None:
    for body in bodies(wants(CLOSED, INTERNAL)):
        spec = parse_rule(body)
        if "10.65.129.0/24" in body or "10.65.130.0/24" in body:
            assert spec.target in {"RETURN", "DROP", "HOSTMESH-SENDERS"}
        if "br-i" in body or "br-c" in body:
            assert spec.target in {"RETURN", "DROP", "HOSTMESH-SENDERS"}


def test_what_a_network_publishes_is_looked_up_in_a_set_and_never_asked_of_dockers_chain() -> None:
    (body,) = (body for body in bodies(wants(SHOWN)) if "hostmesh-published" in body)
    assert body.startswith(
        "-d 10.65.128.0/24 -o br-a -m set --match-set hostmesh-published dst,dst"
    )
    assert not any(body.endswith("-j DOCKER") for body in bodies(wants(OPEN, SHOWN, CLOSED)))


def test_the_last_rule_drops_strangers_whatever_the_policy() -> None:
    last = our_chains(wants(OPEN))["filter"]["HOSTMESH-FORWARD"][-1]
    assert last.startswith("-d 10.65.0.0/16 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT")
    assert last.endswith("-j DROP")


def test_the_jump_goes_behind_the_operators_rules_and_before_the_return() -> None:
    ruleset = parse_ruleset(DOCKER_20.format(user="-A DOCKER-USER -s 10.9.9.9/32 -j DROP\n"))
    text = restore_text(table_edits(ruleset, wants(OPEN)))
    assert "-I DOCKER-USER 2 " in text
    assert ":DOCKER" not in text
    assert ":FORWARD" not in text


def test_two_built_in_chains_of_a_table_may_lead_to_chains_of_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chain without rules is not made, and goes where an earlier pass had rules for it."""

    def render(wanted: DesiredFirewall) -> tuple[str, ...]:
        return ("-p udp -m udp --dport 4789 -j ACCEPT",) if wanted.networks else ()

    chain = OwnChain("filter", "HOSTMESH-INPUT", render, base="INPUT")
    monkeypatch.setattr(declared, "CHAINS", (*declared.CHAINS, chain))
    declared._our_chains.cache_clear()
    state: State = {table: {each: [] for each in chains} for table, chains in BUILT_IN.items()}
    restore(state, restore_text(table_edits(parse_ruleset(save(state)), wants(OPEN))))
    assert state["filter"]["INPUT"] == [jump_to("HOSTMESH-INPUT")]
    assert state["filter"]["FORWARD"] == [jump_to("HOSTMESH-FORWARD")]
    assert table_edits(parse_ruleset(save(state)), wants(OPEN)) == ()
    restore(state, restore_text(table_edits(parse_ruleset(save(state)), wants())))
    assert state["filter"]["INPUT"] == []
    assert "HOSTMESH-INPUT" not in state["filter"]
    assert state["filter"]["FORWARD"] == [jump_to("HOSTMESH-FORWARD")]
    declared._our_chains.cache_clear()


def test_closing_leaves_the_chains_of_other_built_in_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tunnel that an earlier run let in goes on while Docker has not answered."""
    chain = OwnChain("filter", "HOSTMESH-INPUT", lambda _: (), base="INPUT")
    monkeypatch.setattr(declared, "CHAINS", (*declared.CHAINS, chain))
    there = parse_ruleset(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:HOSTMESH-INPUT - [0:0]\n"
        f"-A INPUT {jump_to('HOSTMESH-INPUT')}\n-A HOSTMESH-INPUT -p udp -j ACCEPT\nCOMMIT\n"
    )
    (edit,) = closing_edits(there, (IPv4Network("10.65.0.0/16"),), ("eth0",))
    assert [jump.chain for jump in edit.jumps] == ["FORWARD"]
    assert list(edit.fill) == ["HOSTMESH-FORWARD"]
    assert edit.drop == ()


def test_jumps_are_deleted_by_their_text_and_never_by_number() -> None:
    jump = "-A DOCKER-USER -m tcp -p tcp -j HOSTMESH-FORWARD\n"
    ruleset = parse_ruleset(
        DOCKER_20.format(user=jump + jump).replace(
            ":DOCKER ", ":HOSTMESH-FORWARD - [0:0]\n:DOCKER "
        )
    )
    text = restore_text(table_edits(ruleset, wants(OPEN)))
    assert text.count("-D DOCKER-USER -m tcp -p tcp -j HOSTMESH-FORWARD\n") == 2
    assert "-D DOCKER-USER 1" not in text


def test_edits_are_described_for_people() -> None:
    """The texts of agentctl diff and the log."""
    chains = ":HOSTMESH-FORWARD - [0:0]\n:DOCKER "
    behind = "-A DOCKER-USER -j RETURN\n" + f"-A DOCKER-USER {jump_to('HOSTMESH-FORWARD')}\n"
    moved = parse_ruleset(DOCKER_20.format(user=behind).replace(":DOCKER ", chains))
    lines = [line for edit in table_edits(moved, wants(OPEN)) for line in edit.described()]
    assert "filter: move the jump to Hostmesh in DOCKER-USER back to rule 1" in lines
    assert "nat: add the jump to Hostmesh to POSTROUTING as rule 1" in lines
    removed = [line for edit in removal_edits(moved) for line in edit.described()]
    assert removed == [
        "filter: remove the jump to Hostmesh from DOCKER-USER",
        "filter: remove chain HOSTMESH-FORWARD",
    ]


def test_removal_of_nothing_is_nothing() -> None:
    assert removal_edits(parse_ruleset(DOCKER_20.format(user=""))) == ()
    assert restore_text(()) == ""


def test_legacys_normal_forms_are_no_difference() -> None:
    wanted = wants(OPEN, SHOWN)
    text = restore_text(table_edits(parse_ruleset(""), wanted))
    tables = parse_ruleset(_as_saved(text))
    assert table_edits(tables, wanted) == ()


def _as_saved(text: str) -> str:
    """As the legacy program prints what python-iptables wrote: other tests first."""
    lines: list[str] = []
    for line in text.split("\n"):
        words = line.split(" -m comment ")
        if line.startswith("-A") and " -m set " in words[0]:
            head, tail = words[0].split(" -m set ")
            comment, jump = words[1].split(" -j ")
            line = f"{head} -m comment {comment} -m set {tail} -j {jump}"  # noqa: PLW2901
        if line.startswith("-I"):
            _, chain, _, rest = line.split(" ", 3)
            line = f"-A {chain} {rest}"  # noqa: PLW2901
            lines.insert(lines.index(f":{rest.split(' -j ')[1]} - [0:0]"), f":{chain} ACCEPT [0:0]")
        lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "*filter\n:FORWARD ACCEPT [0:0]\n",
        "*filter\nsomething\nCOMMIT\n",
        "*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n",
        "iptables: error\n",
        "# Table `nat' is incompatible, use 'nft' tool.\n",
    ],
)
def test_a_partial_or_unreadable_list_is_an_error_never_an_empty_list(text: str) -> None:
    """Promise 4."""
    with pytest.raises(FirewallError):
        parse_ruleset(text)


def test_a_table_that_only_tunnels_need_is_missed_by_them_alone() -> None:
    seen = parse_ruleset("# Table `mangle' is incompatible, use 'nft' tool.\n")
    assert seen.unseen == ("mangle",)
    assert not [each for each in table_edits(seen, wants(OPEN)) if each.table == "mangle"]
    with pytest.raises(FirewallError, match="cannot read table mangle"):
        table_edits(seen, replace(wants(OPEN), tunnels=(TunnelPort(8472, "eth0"),)))


def test_a_foreign_comment_with_odd_line_breaks_is_one_rule() -> None:
    rule = '-A INPUT -m comment --comment "a\x0b\x85\u2028b" -j ACCEPT'
    text = f"*filter\n:INPUT ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert len(parse_ruleset(text).table("filter").rules("INPUT")) == 1
