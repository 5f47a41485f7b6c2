"""The generated blocks of docs/figures.md, from the committed JSON. Pure.

A block lies between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``, NAME a program's. Everything
else on the page is written by hand. A refused figure is on the page without its number.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any

from tests.bench.programs import Program
from tests.bench.statistic import Goal, Verdict

_MARKS = "<!-- begin {0} -->\n{1}<!-- end {0} -->\n"
_HEAD = "| what | Hostmesh | beside it | result (interval) | goal |\n" + "| --- " * 5 + "|"
_SMALLER = {"s": (("ms", 1e3), ("µs", 1e6)), "ms": (("µs", 1e3),)}
_FACTS_SHOWN = 20
_FIGURES_SHOWN = 80
"""Of a program with more, the rest is shown if it has a goal."""
_VERDICTS = {Verdict.OK: "met", Verdict.MISSED: "**missed**", Verdict.REFUSED: "not judged"}


def picture_of(name: str) -> str:
    """Return where a program's plot is, seen from docs."""
    return f"pictures/figures-{name}.svg"


def block(program: Program, document: Mapping[str, Any], *, plot: bool) -> str:
    """Return what lies between the two comments of a program."""
    rows = [row(each) for each in shown(document)]
    facts = [_cells(name, _fact(value)) for name, value in document["facts"].items()]
    lines = [*_about(program, document), "", _HEAD, *rows, *facts[:_FACTS_SHOWN], ""]
    for what, more in (
        ("figures without a goal", len(document["figures"]) - len(rows)),
        ("facts", len(facts[_FACTS_SHOWN:])),
    ):
        if more:
            lines += [f"{more} more {what} are in figures/{program.name}.json.", ""]
    if plot:
        lines += [f"![{program.name} as a plot]({picture_of(program.name)})", ""]
    return "\n".join(lines) + "\n"


def shown(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the figures that the page has, in its table and in its plot."""
    figures = document["figures"]
    return [*figures[:_FIGURES_SHOWN], *(each for each in figures[_FIGURES_SHOWN:] if each["goal"])]


def row(figure: Mapping[str, Any]) -> str:
    """Return a figure's row of the table."""
    judged = Verdict(figure["judgement"]["verdict"])
    goal = f"{_goal(figure)}: {_VERDICTS[judged]}" if figure["goal"] else ""
    if judged is Verdict.REFUSED:
        why = f"refused: {figure['judgement']['why']}"
        return _cells(figure["name"], "", figure["other_name"], why, goal)
    result, unit = figure["result"], figure["unit"]
    span = (result["low"], result["high"])
    if figure["kind"] == "value":
        return _cells(figure["name"], _span(result["median"], span, unit), "", "", goal)
    ours, others = (_number(figure[each]["median"], unit) for each in ("ours", "others"))
    said = (
        f"{_digits(result['median'])} times ({_digits(span[0])} to {_digits(span[1])})"
        if figure["kind"] == "ratio"
        else f"{_span(result['median'], span, unit)} more"
    )
    return _cells(figure["name"], ours, f"{figure['other_name']}: {others}", said, goal)


def _goal(figure: Mapping[str, Any]) -> str:
    goal = Goal(**figure["goal"])
    if figure["kind"] == "ratio" or goal.equal_within is not None:
        return str(goal)
    return f"at {'most' if goal.at_most else 'least'} {_number(goal.value, figure['unit'])}"


def with_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """Return the page with the blocks in place; a program without a place comes at the end."""
    for name, content in blocks.items():
        new = _MARKS.format(name, content)
        begin, end = (re.escape(f"<!-- {each} {name} -->\n") for each in ("begin", "end"))
        if re.search(f"{begin}.*?{end}", page, re.DOTALL):
            page = re.sub(f"{begin}.*?{end}", lambda _, new=new: new, page, flags=re.DOTALL)  # type: ignore[misc] # a default binds it
        else:
            page = f"{page.rstrip()}\n\n## {name}\n\n{new}"
    return page


def block_of(page: str, name: str) -> str | None:
    """Return a program's block as the page has it."""
    found = re.search(f"<!-- begin {re.escape(name)} -->\n(.*?)<!-- end ", page, re.DOTALL)
    return found[1] if found else None


def _about(program: Program, document: Mapping[str, Any]) -> list[str]:
    """Say when, of which code and on which machine, in lines of at most 100 columns."""
    machine = document["machine"]
    changed = document["changed_files"]
    code = f"commit {document['commit'][:10]}" + (
        f" and {changed} changed files" if changed else ""
    )
    load = " **The machine was under load.**" if document["under_load"] else ""
    quick = " --quick" if document["quick"] else ""
    said = (
        f"`python -m {program.module}{quick}`, {document['at'][:10]}, {code}.{load}"
        f" {machine['cores']} cores, {machine['cpu']}, Linux {machine['kernel']},"
        f" Python {machine['python']}, {machine['iptables']}."
    )
    return textwrap.wrap(said, 100, break_long_words=False, break_on_hyphens=False)


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cells(*cells: str) -> str:
    """Return a row of five cells; a bar within one would end it."""
    texts = [each.replace("|", "/").strip() for each in (*cells, "", "", "", "")[:5]]
    return "| " + " | ".join(texts) + " |"


def _digits(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    found = f"{value:.3g}"
    return found if "e" not in found else f"{value:.6f}".rstrip("0").rstrip(".")


def _scale(value: float, unit: str) -> tuple[str, float]:
    """Return a unit in which the value has digits before its point, and the factor to it."""
    found = (unit, 1.0)
    for smaller in _SMALLER.get(unit, ()):
        if abs(value) * found[1] < 0.5:
            found = smaller
    return found


def _number(value: float, unit: str) -> str:
    name, factor = _scale(value, unit)
    return f"{_digits(value * factor)} {name}".strip()


def _span(value: float, span: tuple[float, float], unit: str) -> str:
    """Return a median with its interval, all in one unit."""
    name, factor = _scale(max(abs(value), *map(abs, span)), unit)
    low, high = (_digits(each * factor) for each in span)
    return f"{_digits(value * factor)} {name} ({low} to {high})"
