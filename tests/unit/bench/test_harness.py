"""The bench harness: runs in turn, judged, written as JSON with machine and commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.harness import Bench, Run, interleave
from tests.bench.statistic import Goal

pytestmark = pytest.mark.unit


def test_runs_take_turns_in_alternating_order_after_a_warm_up() -> None:
    said: list[str] = []

    def run(name: str) -> Run:
        def one() -> float:
            said.append(name)
            return float(len(said))

        return one

    ours, other = interleave((run("a"), run("b")), rounds=3, warm_up=1)
    assert "".join(said) == "ab" + "ba" + "ab" + "ba"
    assert (ours, other) == ([4.0, 5.0, 8.0], [3.0, 6.0, 7.0])


def test_a_result_has_machine_commit_and_every_round_and_hides_no_refusal(tmp_path: Path) -> None:
    said: list[str] = []
    bench = Bench("try", tmp_path, said.append)
    steady, noisy = [2.0, 2.1, 2.0, 2.2, 2.1, 2.0], [1.0, 9.0, 2.0, 8.0, 1.0, 30.0]
    bench.ratio("a", steady, "the other", [1.0] * 6, goal=Goal(3))
    bench.value("b", noisy)
    bench.value("few", [1.0, 1.0], goal=Goal(3))
    bench.difference("c", steady, "the other", [1.9] * 6, goal=Goal(1.0))
    assert bench.finish() == 2
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    assert {"cpu", "cores", "kernel", "load_before", "load_after"} <= document["machine"].keys()
    assert "commit" in document
    assert isinstance(document["under_load"], bool)
    a, b, few, c = document["figures"]
    assert a["judgement"] == {"verdict": "ok", "why": ""}
    assert (a["result"]["low"], a["result"]["high"]) == (2.0, 2.2)
    assert a["others"]["values"] == [1.0] * 6
    assert b["judgement"]["verdict"] == "REFUSED"
    assert few["result"]["low"] is None
    assert c["judgement"]["verdict"] == "ok"
    line = next(each for each in said if each.startswith("b:"))
    assert "REFUSED" in line
    assert "spans a factor" in line
    assert not any(character.isdigit() for character in line.split("REFUSED")[0])


def test_a_goal_that_is_missed_fails_the_program(tmp_path: Path) -> None:
    bench = Bench("try", tmp_path, lambda _: None)
    bench.compare("a", lambda: 4.0, "the other", lambda: 1.0, rounds=6, goal=Goal(3))
    assert bench.finish() == 1
    bench = Bench("try", tmp_path, lambda _: None)
    bench.value("more is better", [5.0] * 6, goal=Goal(3, at_most=False))
    assert bench.finish() == 0
