"""Lines flow and are cut to the width of a terminal."""

from __future__ import annotations

import pytest

from agent.ctl.output import Palette, cut, flow

pytestmark = pytest.mark.unit


def test_a_sentence_flows_and_words_stay_whole() -> None:
    assert flow("to be or not", None, first="  ") == ["  to be or not"]
    assert flow("agentctl docker restart --now it", 26, first="hint: ", rest=6) == [
        "hint: agentctl docker",
        "      restart --now it",
    ]
    assert flow("x" * 50, 30, first="- ", rest=2) == ["- " + "x" * 28, "  " + "x" * 22]
    assert flow("名" * 20, 24, first="", rest=0) == ["名" * 12, "名" * 8]
    assert flow("", 80, first="label ") == ["label "]
    assert flow("aa bb", 1, first="", rest=0) == ["aa bb"], "less than is readable"
    painted = Palette(colours=True).paint("bad", "failed")
    assert flow("to be or not to be, or so", 27, first=f"{painted} ", rest=7) == [
        f"{painted} to be or not to be,",
        "       or so",
    ]


def test_a_line_is_cut_where_the_terminal_ends_and_colours_end_with_it() -> None:
    painted = Palette(colours=True).paint("bad", "failed")
    assert cut(f"{painted} all", 10) == f"{painted} all"
    assert cut(f"{painted} all", 8) == f"{painted} …"
    assert cut(f"{painted} all", 4) == "\x1b[31mfai…\x1b[0m"
    assert cut("名名", 3) == "名…"
