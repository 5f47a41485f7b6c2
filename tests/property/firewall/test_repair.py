"""One pass repairs any order, doubles and losses of the agent's rules; others' stay theirs."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kernel.firewall.chains.declared import entries, our_chains
from agent.kernel.firewall.chains.rule import OURS
from agent.kernel.firewall.edits import entry_chain, removal_edits, restore_text, table_edits
from agent.kernel.firewall.parse import parse_rule, parse_ruleset
from agent.mesh.backends.base import TunnelPort
from agent.mesh.firewall import DesiredFirewall, Ingress, LocalBridge, WantedNetwork
from agent.model import Access
from agent.model.family import FAMILIES
from tests.property.firewall.model import BUILT_IN, State, restore, save
from tests.unit.firewall.wanted import RANGES, network, sources

pytestmark = pytest.mark.property

OUR_TARGETS = ("HOSTMESH-FORWARD", "HOSTMESH-INBOUND", "HOSTMESH-PREROUTING", "HOSTMESH-OLD")
FOREIGN = (
    "-j DOCKER-USER",
    "-m comment --comment \"it\\'s HOSTMESH-FORWARD's\" -j ACCEPT",
    "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "-i eth0 -p tcp -m tcp --dport 22 -j ACCEPT",
    "-j RETURN",
    "-i eth0 -j DROP",
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-o docker0 -j DOCKER",
    '-m comment --comment "hostmesh: everything of ours is in this chain"',
)


@st.composite
def wants(draw: st.DrawFn) -> DesiredFirewall:
    family = draw(st.sampled_from(FAMILIES))
    cidr, lease = RANGES[family]
    octets = draw(st.lists(st.integers(0, 255), unique=True, max_size=4))
    networks = tuple(
        WantedNetwork(
            subnet=network("", octet, "open", family=family).subnet,
            bridge=f"br-{octet}",
            access=draw(st.sampled_from(Access)),
            internal=draw(st.booleans()),
            labelled=draw(st.booleans()),
            slices=draw(st.sampled_from(["", "hostmesh-net-0123456789"])),
        )
        for octet in sorted(octets)
    )
    return DesiredFirewall(
        cidr=cidr,
        lease=lease,
        ingress=tuple(
            Ingress(name, sources(1, family))
            for name in draw(st.sampled_from([("eth0",), ("eth0", "hostmesh.1")]))
        ),
        networks=networks,
        bridges=tuple(LocalBridge(each.bridge, each.subnet) for each in networks),
        tunnels=draw(st.sampled_from([(), (TunnelPort(8472, "eth0"),)])),
    )


@st.composite
def states(draw: st.DrawFn, wanted: DesiredFirewall) -> State:
    """Foreign rules, with ours as a pass leaves them, and then a storm over ours."""
    state: State = {table: {chain: [] for chain in chains} for table, chains in BUILT_IN.items()}
    docker = draw(st.sampled_from([(), ("DOCKER",), ("DOCKER", "DOCKER-USER"), ("DOCKER-USER",)]))
    for chain in docker:
        state["filter"][chain] = []
    for chains in state.values():
        for chain, rules in chains.items():
            bodies = draw(st.lists(st.sampled_from(FOREIGN), max_size=5))
            allowed = {"", "ACCEPT", "DROP", "RETURN", "MASQUERADE", *chains} - {chain}
            rules.extend(body for body in bodies if parse_rule(body).target in allowed)
    if draw(st.booleans()):
        restore(state, restore_text(table_edits(parse_ruleset(save(state)), wanted)))
    storm(draw, state)
    if draw(st.booleans()):
        del state[draw(st.sampled_from(sorted(state)))]
    return state


def storm(draw: st.DrawFn, state: State) -> None:
    """Lose, double, move and change own rules; add chains and jumps of an older version."""
    for chains in state.values():
        for chain in [chain for chain in chains if chain.startswith(OURS)]:
            kept = [draw(st.booleans()) for _ in chains[chain]]
            chains[chain] = [body for body, keep in zip(chains[chain], kept, strict=True) if keep]
            if draw(st.booleans()):
                chains[chain].reverse()
        for target in OUR_TARGETS:
            if target not in chains and draw(st.integers(0, 3)) == 0:
                chains[target] = draw(st.sampled_from([[], ["-j ACCEPT"], ["-j DROP", "-j DROP"]]))
        for rules in [rules for chain, rules in chains.items() if not chain.startswith(OURS)]:
            storm_jumps(draw, rules, [chain for chain in chains if chain.startswith(OURS)])


def storm_jumps(draw: st.DrawFn, rules: list[str], ours: list[str]) -> None:
    """Lose our jumps in a foreign chain, put in others, in any place and number."""
    if draw(st.integers(0, 2)) == 0:
        rules[:] = [body for body in rules if not is_jump(body)]
    put_in: bool = draw(st.booleans())
    if ours and put_in:
        target = draw(st.sampled_from(ours))
        head = draw(st.sampled_from(["", "-p tcp ", "-i eth1 "]))
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(rules)))
            rules.insert(at, f"{head}-j {target}")


def is_jump(body: str) -> bool:
    return parse_rule(body).target.startswith(OURS)


def foreign(state: State) -> dict[tuple[str, str], list[str]]:
    """Foreign rules, byte for byte; an unused table counts as empty."""
    held = {
        (table, chain): [body for body in rules if not is_jump(body)]
        for table, chains in state.items()
        for chain, rules in chains.items()
        if not chain.startswith(OURS)
    }
    return {key: rules for key, rules in held.items() if rules or key[1] not in BUILT_IN[key[0]]}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_pass_converges_and_foreign_rules_stay_byte_for_byte(data: st.DataObject) -> None:
    wanted = data.draw(wants())
    state = data.draw(states(wanted))
    before = copy.deepcopy(foreign(state))
    restore(state, restore_text(table_edits(parse_ruleset(save(state)), wanted)))
    assert foreign(state) == before
    after = parse_ruleset(save(state))
    assert table_edits(after, wanted) == ()
    for name, chains in our_chains(wanted).items():
        jumps = [
            (chain, parse_rule(body).target)
            for chain, rules in state.get(name, {}).items()
            for body in rules
            if is_jump(body) and not chain.startswith(OURS)
        ]
        assert sorted(jumps) == sorted(
            (entry_chain(after.table(name), base), target)
            for base, target in entries(name).items()
            if target in chains
        )


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_removal_takes_exactly_the_agents_rules(data: st.DataObject) -> None:
    wanted = data.draw(wants())
    state = data.draw(states(wanted))
    before = copy.deepcopy(foreign(state))
    restore(state, restore_text(removal_edits(parse_ruleset(save(state)))))
    assert foreign(state) == before
    assert OURS + "F" not in str([list(chains) for chains in state.values()])
    assert removal_edits(parse_ruleset(save(state))) == ()
