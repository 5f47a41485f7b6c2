"""A plot of a program's figures: medians and intervals, drawn by gnuplot as SVG.

The script with its data is made from the JSON here; its hash is in the SVG. So `make check` knows
without gnuplot whether a plot is of the committed JSON.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.report.page import shown
from tests.bench.statistic import Verdict

_FEWEST = 3
"""Fewer figures need no plot."""
_MOST_NAME = 60
_SCRIPT = """\
set terminal svg size 860,{height} dynamic font "sans-serif,12" noenhanced
set border 1 linecolor rgb "#808080"
set tics nomirror textcolor rgb "#808080"
set grid xtics linecolor rgb "#808080" linewidth 0.3
set xlabel "{label}" textcolor rgb "#808080"
set lmargin 58
unset key
{scale}
set yrange [{most}.5:-0.5]
set ytics ({names})
{limit}
$data << END
{data}
END
plot $data using 1:4:2:3 with xerrorbars pointtype 7 pointsize 0.6 linewidth 2 \\
    linecolor rgb "#3b82c4"
"""


def script(document: Mapping[str, Any]) -> str:
    """Return gnuplot's commands for a program's figures; "" where a plot would say little."""
    figures = _chosen(document)
    if len(figures) < _FEWEST:
        return ""
    is_ratio = figures[0]["kind"] == "ratio"
    points = [_point(each) for each in figures]
    lows, highs = min(point[1] for point in points), max(point[2] for point in points)
    is_wide = lows > 0 and highs / lows > 20
    return _SCRIPT.format(
        height=80 + 24 * len(figures),
        label="times what it is compared with" if is_ratio else figures[0]["unit"],
        scale="set logscale x" if is_wide else "set xrange [0:*]",
        most=len(figures) - 1,
        names=", ".join(f'"{_name(each)}" {place}' for place, each in enumerate(figures)),
        limit='set arrow from first 1, graph 0 to first 1, graph 1 nohead linecolor rgb "#c4553b"'
        if is_ratio
        else "",
        data="\n".join(
            f"{middle:.6g} {low:.6g} {high:.6g} {place}"
            for place, (middle, low, high) in enumerate(points)
        ),
    )


def draw(commands: str, path: Path) -> None:
    """Have gnuplot draw them, and put their hash beside the picture."""
    drawn = subprocess.run(["gnuplot"], input=commands, text=True, check=True, capture_output=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{drawn.stdout}<!-- {digest(commands)} -->\n")


def digest(commands: str) -> str:
    """Return the hash by which a picture names its source."""
    return hashlib.sha256(commands.encode()).hexdigest()


def _chosen(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the ratios if there are enough, else the values of the unit that most have."""
    known = [each for each in shown(document) if each["judgement"]["verdict"] != Verdict.REFUSED]
    found = [each for each in known if each["kind"] == "ratio"]
    if len(found) < _FEWEST:
        values = [each for each in known if each["kind"] == "value"]
        units = Counter(each["unit"] for each in values).most_common(1)
        found = [each for each in values if each["unit"] == units[0][0]] if units else []
    return found


def _point(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    result = figure["result"]
    return result["median"], result["low"], result["high"]


def _name(figure: Mapping[str, Any]) -> str:
    said = figure["name"] + (f", of {figure['other_name']}" if figure["kind"] == "ratio" else "")
    said = said.replace("\\", "/").replace('"', "'")
    return said if len(said) <= _MOST_NAME else f"{said[: _MOST_NAME - 1]}…"
