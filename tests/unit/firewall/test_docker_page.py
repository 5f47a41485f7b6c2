"""docs/docker.md says what was verified, as the last runs of the matrix left it."""

import re

import pytest

from tests.engine.firewall import verified
from tests.engine.firewall.matrix import PAIRS
from tests.engine.firewall.test_matrix import DISTURBANCES

pytestmark = pytest.mark.unit

PAGE = verified.PAGE.read_text()


def rows() -> dict[str, list[str]]:
    """First cell of each row of the page to the others."""
    lines = (line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|"))
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_page_is_what_the_kept_results_make_of_it() -> None:
    assert verified.page_with(PAGE, verified.table(verified.load())) == PAGE


def test_every_pair_was_verified_on_every_engine_with_both_iptables() -> None:
    columns = len(verified.ENGINES) * len(verified.VARIANTS)
    for pair in PAIRS.values():
        cells = rows()[f"{pair.name}: {'closed' if pair.closed else 'open'}"]
        assert len(cells) == columns
        assert all(re.fullmatch(r"[1-9][0-9]* probes", cell) for cell in cells), pair


def test_every_disturbance_was_tried_on_every_engine_with_both_ways_of_ip_forward() -> None:
    for name in ("at first", *DISTURBANCES):
        cells = rows()[name]
        assert len(cells) == len(verified.ENGINES)
        for cell in cells:
            assert "ip_forward by Docker" in cell, name
            assert "ip_forward before Docker" in cell, name


def test_a_run_of_another_version_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = verified.load()
    monkeypatch.setattr(verified, "load", lambda: kept)
    monkeypatch.setattr(verified, "save", lambda _kept: None)
    verified.add("forky", "99.0", "by Docker", "at first", {("nft", "world"): 3})
    assert kept["forky"] == {
        "version": "99.0",
        "runs": {"by Docker": {"at first": {"nft": {"world": 3}}}},
    }
    assert "99.0 (Debian forky)" in verified.table(kept)
    assert "not run" in verified.table(kept)
