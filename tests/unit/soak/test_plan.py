"""The walk's plan: repeatable, and never more broken than a mesh is promised to bear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.soak.plan import BACKENDS, HOST_FAULTS, HOST_ONCE, MEMBER_FAULTS, MESH_ONCE, Plan, Step

pytestmark = pytest.mark.unit

HOSTS = [f"host{number}" for number in range(1, 5)]
MEMBERS = [f"etcd{number}" for number in range(1, 4)]


def steps(seed: int) -> Iterator[Step]:
    plan = Plan(seed, HOSTS, MEMBERS)
    while True:
        yield plan.next()


def test_a_seed_gives_the_same_steps_again_and_another_seed_others() -> None:
    first = list(islice(steps(7), 300))
    assert first == list(islice(steps(7), 300))
    assert first != list(islice(steps(8), 300))
    assert [each.number for each in first] == list(range(1, 301))


def test_every_kind_of_step_comes() -> None:
    seen = {each.what for each in islice(steps(1), 2000)}
    changes = {"backend", "network", "newcomer", ""}
    assert seen == {*HOST_FAULTS, *HOST_ONCE, *MEMBER_FAULTS, *MESH_ONCE, *changes}


@pytest.mark.parametrize("seed", range(6))
def test_two_hosts_and_two_members_of_etcd_are_well_at_every_moment(seed: int) -> None:
    broken: dict[str, str] = {}
    newcomers = 0
    for step in islice(steps(seed), 500):
        if step.what in {*HOST_FAULTS, *MEMBER_FAULTS}:
            if step.act == "begin":
                assert step.subject not in broken
                broken[step.subject] = step.what
            else:
                assert broken.pop(step.subject) == step.what
        if step.what == "newcomer":
            newcomers += 1 if step.act == "begin" else -1
        if step.act == "compare":
            assert not broken
        assert sum(name.startswith("etcd") for name in broken) <= 1
        hosts = len(HOSTS) + newcomers
        assert hosts - sum(name.startswith("host") for name in broken) >= 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [1, 37, 200])
def test_the_closing_steps_end_everything_and_bring_the_first_backend_back(
    seed: int, length: int
) -> None:
    plan = Plan(seed, HOSTS, MEMBERS)
    whole = [plan.next() for _ in range(length)]
    whole += plan.closing()
    lasting = Counter(
        {"begin": 1, "end": -1}.get(step.act, 0) and (step.what, step.subject)
        for step in whole
        if step.act in {"begin", "end"}
    )
    assert all(number % 2 == 0 for number in lasting.values())
    ended = [each.subject for each in whole if (each.act, each.what) == ("end", "backend")]
    assert not ended or ended[-1] == BACKENDS[0]
    assert whole[-1].act == "compare"
