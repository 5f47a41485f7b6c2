"""docs/figures.md from JSON: no refused number, the same bytes for the same JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench.harness import Bench
from tests.bench.programs import Program
from tests.bench.report import page, plots, write
from tests.bench.report.write import as_text, newest
from tests.bench.runner import Document
from tests.bench.statistic import Goal

pytestmark = pytest.mark.unit

PROGRAM = Program("try", "tests.bench.try", 6, 1, 6, 1)
STEADY = [2.0, 2.1, 2.0, 2.2, 2.1, 2.0]
NOISY = [654.3, 987.6, 123.4, 543.2, 765.4, 198.7]
"""Refused; no digits of it are on the page."""


def document(folder: Path, *, quick: bool = False) -> Document:
    bench = Bench("try", folder, lambda _: None, quick=quick)
    bench.ratio("of a pass", STEADY, "iptables-save", [1.0] * 6, goal=Goal(3))
    bench.ratio("of a list | more", STEADY, "ip", [0.5] * 6, goal=Goal(3))
    bench.ratio("of a write", STEADY, "ip -batch", [4.0] * 6)
    bench.difference("boot", STEADY, "without", [1.5] * 6)
    bench.value("put to route", [each / 500 for each in STEADY], goal=Goal(0.001))
    bench.value("noisy value", NOISY)
    bench.ratio("noisy ratio", NOISY, "noise", NOISY[::-1])
    bench.difference("few", [77.7] * 5, "others", [11.1] * 5)
    bench.fact("Docker", "28.5.2")
    bench.finish()
    (path,) = (each for each in folder.iterdir() if (".quick." in each.name) == quick)
    found: Document = json.loads(path.read_text())
    return found


def rows(block: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()
             if line.startswith("| ")]  # fmt: skip
    return {each[0]: each[1:] for each in cells}


def test_a_row_says_what_was_measured_beside_what_and_whether_the_goal_is_met(
    tmp_path: Path,
) -> None:
    found = rows(page.block(PROGRAM, document(tmp_path), plot=False))
    assert found["of a pass"] == [
        "2.05 s", "iptables-save: 1 s", "2.05 times (2 to 2.2)", "at most 3: met",
    ]  # fmt: skip
    assert found["of a list / more"][3] == "at most 3: **missed**"
    assert found["boot"][1:3] == ["without: 1.5 s", "0.55 s (0.5 to 0.7) more"]
    assert found["put to route"][0] == "4.1 ms (4 to 4.4)"
    assert found["put to route"][3] == "at most 1 ms: **missed**"
    assert found["Docker"][0] == "28.5.2"


def test_a_refused_figure_never_reaches_the_page_with_its_number(tmp_path: Path) -> None:
    made = document(tmp_path)
    block, commands = page.block(PROGRAM, made, plot=True), plots.script(made)
    for name in ("noisy value", "noisy ratio", "few"):
        (figure,) = (each for each in made["figures"] if each["name"] == name)
        assert figure["judgement"]["verdict"] == "REFUSED"
        result = rows(block)[name]
        assert result[0] == ""
        assert result[2] == f"refused: {figure['judgement']['why']}"
        assert name not in commands
        for part in ("ours", "others", "result"):
            for value in (figure[part] or {}).values():
                for number in value if isinstance(value, list) else [value]:
                    if isinstance(number, float) and number not in {0.0, 1.0}:
                        assert f"{number:.3g} " not in " ".join(result)
    numbers = re.findall(r"\d+(?:\.\d+)?", block + commands)
    assert not {"654", "988", "123", "543", "765", "199", "77.7", "11.1"} & set(numbers)


def test_the_page_keeps_its_prose_and_gets_a_place_for_a_new_program(tmp_path: Path) -> None:
    block = page.block(PROGRAM, document(tmp_path), plot=False)
    before = "# Figures\n\n<!-- begin try -->\nold\n<!-- end try -->\n\nProse.\n"
    after = page.with_blocks(before, {"try": block})
    assert after == f"# Figures\n\n<!-- begin try -->\n{block}<!-- end try -->\n\nProse.\n"
    assert page.with_blocks(after, {"try": block}) == after
    assert page.block_of(after, "try") == block
    added = page.with_blocks("# Figures\n", {"try": block})
    assert page.block_of(added, "try") == block
    assert "## try\n" in added
    assert page.block_of(added, "other") is None


def test_many_facts_are_left_to_the_json(tmp_path: Path) -> None:
    made = document(tmp_path)
    made["facts"] = {f"fact {number}": {"p50": number, "max": 99} for number in range(30)}
    block = page.block(PROGRAM, made, plot=False)
    found = rows(block)
    assert found["fact 19"][0] == "p50 19, max 99"
    assert "fact 20" not in found
    assert "10 more facts are in figures/try.json." in block.splitlines()


def test_of_many_figures_those_with_a_goal_are_shown(tmp_path: Path) -> None:
    made = document(tmp_path)
    some = made["figures"]
    made["figures"] = some * 20
    block = page.block(PROGRAM, made, plot=False)
    lines = block.splitlines()
    goals = sum(each["goal"] is not None for each in some)
    assert sum(line.startswith("| of a pass") for line in lines) == 20
    hidden = (20 * len(some) - 80) * (len(some) - goals) // len(some)
    assert f"{hidden} more figures without a goal are in figures/try.json." in lines


def test_a_plot_has_the_figures_of_the_table(tmp_path: Path) -> None:
    made = document(tmp_path)
    without_goal = next(each for each in made["figures"] if each["name"] == "of a write")
    made["figures"] = [without_goal] * 100
    points = plots.script(made).partition("$data << END\n")[2].partition("\nEND")[0]
    assert len(points.splitlines()) == len(page.shown(made)) == 80


def test_published_json_makes_the_same_page_and_plot(tmp_path: Path) -> None:
    """Its numbers are rounded, and none is lost."""
    made = document(tmp_path)
    read = json.loads(as_text(made))
    assert as_text(read) == as_text(made)
    assert len(as_text(made).splitlines()) < 60
    assert read.keys() == made.keys()
    assert page.block(PROGRAM, read, plot=True) == page.block(PROGRAM, made, plot=True)
    assert plots.script(read) == plots.script(made)


def test_lines_of_a_block_are_narrow_outside_of_its_table(tmp_path: Path) -> None:
    made = {**document(tmp_path), "under_load": True, "changed_files": 1234}
    block = page.block(PROGRAM, made, plot=True)
    assert "**The machine was under load.**" in " ".join(block.split())
    assert all(len(line) <= 100 or line.startswith("|") for line in block.splitlines())


def test_writing_publishes_json_page_and_plot_and_keeps_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Program("lost", "tests.bench.lost", 6, 1)
    unsteady = Program("unsteady", "tests.bench.unsteady", 6, 1)
    monkeypatch.setattr(write, "PROGRAMS", (PROGRAM, lost, unsteady))
    monkeypatch.setattr(plots, "draw", lambda commands, path: path.write_text(commands))
    where = write.Places(tmp_path / "build", tmp_path / "docs")
    (tmp_path / "docs/pictures").mkdir(parents=True)
    kept = "<!-- begin lost -->\nold\n<!-- end lost -->\n"
    where.page.write_text(f"# Figures\n\n{kept}")
    made = document(where.measured)
    refused = Bench("unsteady", where.measured, lambda _: None)
    refused.value("noisy value", NOISY)
    refused.finish()
    said = write.publish([PROGRAM, lost, unsteady], where)
    assert [each.partition(":")[2][:14] for each in said] == [
        f" full{', UNDER L' if made['under_load'] else ''}",
        " not measured,",
        " every figure ",
    ]
    page_text = where.page.read_text()
    assert kept in page_text
    assert "## try" in page_text
    assert "unsteady" not in page_text
    assert (where.docs / "pictures/figures-try.svg").exists()
    before = {each: each.read_bytes() for each in where.docs.rglob("*") if each.is_file()}
    write.redraw(where)
    assert {each: each.read_bytes() for each in before} == before


def test_a_plot_has_the_ratios_or_the_values_of_one_unit(tmp_path: Path) -> None:
    made = document(tmp_path)
    commands = plots.script(made)
    assert "of a pass, of iptables-save" in commands
    assert "put to route" not in commands
    made["figures"] = [each for each in made["figures"] if each["kind"] == "value"]
    assert plots.script(made) == ""


def test_the_newest_result_is_published_and_a_full_one_before_a_quick_one(tmp_path: Path) -> None:
    assert newest(PROGRAM, tmp_path) is None
    full = document(tmp_path)
    quick = document(tmp_path, quick=True)
    assert (full["quick"], quick["quick"]) == (False, True)
    found = newest(PROGRAM, tmp_path)
    assert found is not None
    assert not found["quick"]
    later = {**quick, "at": "2999-01-01T00:00:00+00:00", "commit": "d" * 40}
    (tmp_path / "try-dddddddddd.quick.json").write_text(json.dumps(later))
    (tmp_path / "try-other-cccccccccc.json").write_text(json.dumps({**full, "bench": "try-other"}))
    old = {"bench": "try", "version": 1, "at": "2999-02-01T00:00:00+00:00"}
    (tmp_path / "try-eeeeeeeeee.json").write_text(json.dumps(old))
    assert newest(PROGRAM, tmp_path) == later
