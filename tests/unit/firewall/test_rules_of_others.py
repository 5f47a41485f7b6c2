"""Rules of other programs that affect mesh traffic, and the conditions about them."""

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.kernel.firewall.advice.conditions import conditions_of, other_variant
from agent.kernel.firewall.advice.operator_rules import Judgement, Way, judge
from agent.kernel.firewall.chains.declared import our_chains
from agent.kernel.firewall.parse import Ruleset, parse_ruleset
from agent.mesh.firewall import DesiredFirewall, WantedNetwork
from tests.unit.firewall.wanted import (
    CLOSED,
    DOCKER_20,
    INTERNAL,
    OPEN,
    SHOWN,
    SPANNING_CLOSED,
    wants,
)

pytestmark = pytest.mark.unit


def names(user: str, wanted: DesiredFirewall | None = None) -> list[str]:
    ruleset = parse_ruleset(DOCKER_20.format(user=user))
    return [c.name for c in conditions_of(ruleset, wanted or wants(OPEN, SHOWN))]


@pytest.mark.parametrize(
    "rule",
    [
        "-i eth0 -j DROP",
        "-i eth+ -j REJECT --reject-with icmp-port-unreachable",
        "-j DROP",
        "! -s 192.168.1.0/24 -i eth0 -j DROP",
        "-i eth0 -m conntrack --ctstate NEW -j DROP",
        "-s 10.0.0.0/8 -j DROP",
        "-d 10.65.0.0/24 -i eth0 -j DROP",
        "-i docker0 -o eth0 -j DROP",
        '-i eth0 -m comment --comment "no way" -j DROP',
        "-i eth0 -o docker0 -j REJECT",
    ],
)
def test_an_operators_rule_that_surely_shuts_the_mesh_off_is_quoted(rule: str) -> None:
    ruleset = parse_ruleset(DOCKER_20.format(user=f"-A DOCKER-USER {rule}\n"))
    found = conditions_of(ruleset, wants(OPEN, SHOWN))
    assert [condition.name for condition in found] == ["operator-blocks-mesh"]
    assert f"-A DOCKER-USER {rule}" in found[0].cause


def test_a_rule_that_shuts_slices_of_a_mesh_network_off_is_quoted() -> None:
    rule = f"-A DOCKER-USER -d {SPANNING_CLOSED.subnet} -i eth0 -j DROP\n"
    assert names(rule, wants(OPEN, SPANNING_CLOSED)) == ["operator-blocks-mesh"]
    assert names(rule, wants(OPEN, replace(SPANNING_CLOSED, slices=""))) == []


def elsewhere(table: str, *rules: str, policy: str = "ACCEPT") -> Ruleset:
    """Docker's rules, and others in chains that lead to none of the agent's."""
    chains = {rule.split()[1] for rule in rules} or {"FORWARD"}
    declared = "".join(f":{chain} {policy} [0:0]\n" for chain in sorted(chains))
    text = f"*{table}\n{declared}" + "".join(f"{rule}\n" for rule in rules) + "COMMIT\n"
    if table == "filter":
        return parse_ruleset(text)
    return parse_ruleset(DOCKER_20.format(user="") + text)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("mangle", "-A PREROUTING -i eth0 -j DROP"),
        ("mangle", "-A FORWARD -s 10.64.0.0/10 -j DROP"),
        ("mangle", "-A POSTROUTING -o eth0 -m conntrack --ctstate NEW -j DROP"),
        ("security", "-A FORWARD -j DROP"),
        ("mangle", "-A OUTPUT -d 10.0.0.0/8 -j DROP"),
        ("raw", "-A OUTPUT -o eth0 -d 10.64.0.0/10 -j DROP"),
    ],
)
def test_a_rule_that_shuts_the_mesh_off_elsewhere_is_quoted(table: str, rule: str) -> None:
    found = conditions_of(elsewhere(table, rule), wants(OPEN, SHOWN))
    assert [condition.name for condition in found if "docker" not in condition.name] == [
        "operator-blocks-mesh"
    ]
    assert f"-t {table} {rule}" in found[-1].cause


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("mangle", "-A PREROUTING -i eth0 -j MARK --set-xmark 0x1/0xffffffff"),
        ("mangle", "-A FORWARD -m conntrack --ctstate INVALID -j DROP"),
        ("mangle", "-A FORWARD -i eth1 -j DROP"),
        ("mangle", "-A POSTROUTING -o eth0 -p tcp -j DROP"),
        ("raw", "-A OUTPUT -d 10.66.0.9/32 -j DROP"),
    ],
)
def test_a_rule_elsewhere_that_drops_a_part_or_nothing_is_no_condition(
    table: str, rule: str
) -> None:
    assert conditions_of(elsewhere(table, rule), wants(OPEN, SHOWN)) == ()


@pytest.mark.parametrize(
    ("other", "quoted"),
    [
        (elsewhere("filter", policy="DROP"), "-t filter -P FORWARD DROP"),
        (elsewhere("filter", "-A FORWARD -p tcp", policy="DROP"), "-t filter -P FORWARD DROP"),
        (elsewhere("filter", "-A FORWARD -i eth0 -j REJECT"), "-A FORWARD -i eth0 -j REJECT"),
    ],
)
def test_what_the_other_iptables_drops_is_quoted(other: Ruleset, quoted: str) -> None:
    (found,) = other_variant(other, "legacy", wants(OPEN))
    assert (found.name, found.subject) == (
        "operator-blocks-mesh",
        "iptables-legacy filter FORWARD",
    )
    assert quoted in found.cause


@pytest.mark.parametrize(
    "other",
    [
        Ruleset(),
        elsewhere("filter", "-A INPUT -j DROP"),
        elsewhere("filter", "-A FORWARD -s 10.64.0.0/10 -j ACCEPT", policy="DROP"),
    ],
)
def test_the_other_iptables_may_let_the_mesh_by(other: Ruleset) -> None:
    assert other_variant(other, "legacy", wants(OPEN)) == ()


@pytest.mark.parametrize(
    "rule",
    [
        "-i eth1 -j DROP",
        "-i eth0 -p tcp -m tcp --dport 22 -j DROP",
        "! -s 10.0.0.0/8 -i eth0 -j DROP",
        "-s 10.66.0.77/32 -j DROP",
        "-i eth0 -m set --match-set bad src -j DROP",
        "-i eth0 -m conntrack --ctstate INVALID -j DROP",
        "-i eth0 -m limit --limit 5/sec -j DROP",
    ],
)
def test_a_rule_that_closes_only_a_part_is_the_operators_right(rule: str) -> None:
    assert names(f"-A DOCKER-USER {rule}\n") == []


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("-i eth0 -j ACCEPT", [OPEN]),
        ("-i eth0 -j RETURN", [OPEN]),
        ("-d 10.65.0.0/16 -i eth0 -j ACCEPT", [SHOWN]),
        ("-s 10.64.0.0/10 -i eth0 -j ACCEPT", [OPEN, SHOWN]),
        ("-s 10.64.0.0/10 -j RETURN", [OPEN]),
        ("-i eth0 -j ACCEPT", [CLOSED]),
        ("-s 10.0.0.0/8 -i eth0 -j ACCEPT", [INTERNAL]),
    ],
)
def test_an_operators_rule_that_leads_traffic_past_the_agents_is_quoted(
    rule: str, wanted: list[WantedNetwork]
) -> None:
    ruleset = parse_ruleset(DOCKER_20.format(user=f"-A DOCKER-USER {rule}\n"))
    found = conditions_of(ruleset, wants(*wanted))
    assert [condition.name for condition in found] == ["operator-bypasses-mesh"]
    assert f"-A DOCKER-USER {rule}" in found[0].cause


@pytest.mark.parametrize(
    "rule",
    [
        "-s 10.64.0.0/10 -d 10.65.0.0/17 -i eth0 -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-s 192.168.50.0/24 -i eth0 -j ACCEPT",
        "-i eth0 -p tcp -m tcp --dport 443 -j ACCEPT",
        "-i docker0 -j ACCEPT",
        "-i eth1 -j RETURN",
        "-j RETURN",
    ],
)
def test_a_rule_that_lets_in_the_same_or_only_a_part_is_no_bypass(rule: str) -> None:
    assert names(f"-A DOCKER-USER {rule}\n", wants(OPEN)) == []


def test_a_rule_behind_one_that_spares_the_mesh_does_not_shut_it_off() -> None:
    spare = "-A DOCKER-USER -s 10.64.0.0/10 -d 10.65.0.0/17 -i eth0 -j ACCEPT\n"
    assert names(spare + "-A DOCKER-USER -i eth0 -j DROP\n", wants(OPEN)) == []
    assert names("-A DOCKER-USER ! -s 10.64.0.0/10 -i eth0 -j DROP\n") == []


def test_rules_ahead_are_judged_alike_before_the_agents_are_written() -> None:
    """The first look of an agent; a REJECT behind the agent's rules does not matter."""
    text = DOCKER_20.format(user="").replace("COMMIT", "-A FORWARD -j REJECT\nCOMMIT", 1)
    without = re.sub(r".*HOSTMESH.*\n", "", text)
    assert conditions_of(parse_ruleset(without), wants(OPEN, SHOWN)) == ()


def test_an_operators_own_chain_is_followed() -> None:
    text = DOCKER_20.format(user="-A DOCKER-USER -i eth0 -j GUARD\n")
    text = text.replace("-A FORWARD -j DOCKER-USER", "{}-A FORWARD -j DOCKER-USER", 1)
    shut = ":GUARD - [0:0]\n-A GUARD -s 10.9.9.9/32 -j ACCEPT\n-A GUARD -j DROP\n"
    kept = ":GUARD - [0:0]\n-A GUARD -s 10.64.0.0/10 -j RETURN\n-A GUARD -j DROP\n"
    assert _blocked(text.format(shut))
    assert not _blocked(text.format(kept))


def _blocked(text: str) -> bool:
    return bool(conditions_of(parse_ruleset(text), wants(OPEN)))


def test_dockers_nftables_backend_is_one_clear_condition() -> None:
    found = conditions_of(parse_ruleset(""), wants(OPEN, docker_backend="nftables"))
    assert [condition.name for condition in found] == ["firewall-backend-nftables"]


def test_dockers_lost_jumps_and_lost_chains_say_to_restart_it() -> None:
    flushed = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\nCOMMIT\n"
    for text in (flushed, ""):
        found = conditions_of(parse_ruleset(text), wants(OPEN))
        assert [condition.name for condition in found] == ["docker-rules-missing"]
        assert "restart docker" in found[0].hint


OUT = Way(
    in_link="docker0", out_link="eth0",
    source=IPv4Address("10.65.0.2"), destination=IPv4Address("10.66.0.2"),
)  # fmt: skip


def coming(bridge: str, to: str) -> Way:
    return Way(
        in_link="eth0",
        out_link=bridge,
        source=IPv4Address("10.66.0.2"),
        destination=IPv4Address(to),
    )


PEER = IPv4Network("10.66.0.0/16")


def judged(
    way: Way,
    user: str = "",
    members: tuple[IPv4Network, ...] = (PEER,),
    *,
    published: bool = False,
) -> Judgement:
    """Under our rules as they are written, behind ``user`` in DOCKER-USER."""
    chains = our_chains(wants(OPEN, SHOWN, CLOSED, INTERNAL))["filter"]
    names = "".join(f":{name} - [0:0]\n" for name in chains)
    rules = "".join(f"-A {name} {body}\n" for name, found in chains.items() for body in found)
    jump = f"{user}-A DOCKER-USER -j HOSTMESH-FORWARD\n"
    text = DOCKER_20.format(user=jump).replace("-A FORWARD -j", f"{names}-A FORWARD -j", 1)
    text = text.replace("COMMIT", f"{rules}COMMIT")
    sets = {"hostmesh-in-eth0": members}
    return judge(parse_ruleset(text).table("filter"), way, sets, published=published)


@pytest.mark.parametrize(
    ("way", "verdict", "says"),
    [
        (OUT, "accepted", "-A HOSTMESH-FORWARD "),
        (coming("docker0", "10.65.0.2"), "accepted", "hostmesh: open network"),
        (coming("br-a", "10.65.128.2"), "accepted", "hostmesh: ICMP"),
        (coming("br-c", "10.65.129.2"), "shut", "hostmesh: closed network, running flows too"),
        (coming("br-x", "10.65.200.2"), "shut", "hostmesh: strangers"),
    ],
)
def test_what_becomes_of_a_ping_under_our_rules(way: Way, verdict: str, says: str) -> None:
    found = judged(way)
    assert (found.place, found.verdict, found.ours) == ("DOCKER-USER, rule 1", verdict, True)
    assert says in found.rule


def test_what_becomes_of_a_connection_under_our_rules_and_an_operators() -> None:
    way = replace(coming("br-a", "10.65.128.2"), tcp_port=80)
    passes, dropped = judged(way, published=True), judged(way)
    assert passes.verdict == "accepted"
    assert "hostmesh: published ports" in passes.rule
    assert dropped.verdict == "shut"
    assert "hostmesh: strangers" in dropped.rule
    user = "-A DOCKER-USER -p tcp -m tcp --dport 80 -j DROP\n"
    assert judged(way, user, published=True).rule == user.strip()
    other = replace(way, tcp_port=81)
    assert "hostmesh: published ports" in judged(other, user, published=True).rule
    assert "hostmesh: ICMP" in judged(replace(way, tcp_port=0), user).rule


def test_a_ping_of_a_peer_that_may_not_come_in_is_shut_out() -> None:
    found = judged(coming("docker0", "10.65.0.2"), members=())
    assert (found.verdict, found.ours) == ("shut", True)
    assert "hostmesh: strangers" in found.rule


def test_what_becomes_of_a_ping_that_an_operator_stops_or_lets_by() -> None:
    drop = "-A DOCKER-USER -i docker0 -d 10.66.0.0/16 -j DROP\n"
    found = judged(OUT, drop)
    assert (found.place, found.verdict, found.ours) == ("DOCKER-USER, rule 2", "shut", False)
    assert found.rule == drop.strip()
    assert judged(coming("docker0", "10.65.0.2"), drop).ours
    let_by = judged(OUT, "-A DOCKER-USER -i docker0 -j ACCEPT\n")
    assert (let_by.verdict, let_by.ours) == ("accepted", False)
    assert judged(OUT, "-A DOCKER-USER -p tcp -j DROP\n").ours


def test_what_becomes_of_a_ping_without_our_rules() -> None:
    table = parse_ruleset(DOCKER_20.format(user="")).table("filter")
    assert judge(table, OUT, {}) == Judgement(place="", verdict="unsure")


def test_a_return_from_an_own_chain_goes_on_behind_the_jump_to_it() -> None:
    user = "-A DOCKER-USER -j HOSTMESH-FORWARD\n-A HOSTMESH-FORWARD -j HOSTMESH-INBOUND\n"
    user += "-A HOSTMESH-INBOUND -j RETURN\n-A HOSTMESH-FORWARD -j DROP\n"
    text = DOCKER_20.format(user=user)
    chains = ":HOSTMESH-FORWARD - [0:0]\n:HOSTMESH-INBOUND - [0:0]\n-A FORWARD -j"
    table = parse_ruleset(text.replace("-A FORWARD -j", chains, 1)).table("filter")
    assert judge(table, OUT, {}).rule == "-A HOSTMESH-FORWARD -j DROP"
