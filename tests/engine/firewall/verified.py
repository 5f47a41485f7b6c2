"""Keep what the matrix verified on which engine, and make its table in docs/docker.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.engine.firewall.matrix import PAIRS

__all__ = ["ENGINES", "PAGE", "VARIANTS", "add", "load", "page_with", "save", "table"]

ENGINES = {
    "bookworm": "20.10 (Debian 12)",
    "trixie": "26.1 (Debian 13)",
    "forky": "28.5 (Debian forky)",
}
VARIANTS = ("nft", "legacy")
PAGE = Path(__file__).parents[3] / "docs/docker.md"
_KEPT = Path(__file__).with_name("verified.json")
_BEGIN, _END = "<!-- verified: begin -->", "<!-- verified: end -->"

Verified = dict[str, Any]


def load() -> Verified:
    """Suite -> {"version", "runs": {forwarding: {phase: {variant: {pair: probes}}}}}."""
    return json.loads(_KEPT.read_text()) if _KEPT.exists() else {}


def add(
    suite: str,
    version: str,
    forwarding: str,
    phase: str,
    counts: Mapping[tuple[str, str], int],
) -> None:
    """Keep one phase of a run and write the page anew. A run of another version starts afresh."""
    kept = load()
    entry = kept.get(suite)
    if entry is None or entry["version"] != version:
        entry = {"version": version, "runs": {}}
    by_variant: dict[str, dict[str, int]] = {}
    for (variant, pair), count in sorted(counts.items()):
        by_variant.setdefault(variant, {})[pair] = count
    entry["runs"].setdefault(forwarding, {})[phase] = by_variant
    kept[suite] = entry
    save(kept)


def save(kept: Verified) -> None:
    """Write results and page."""
    _KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page_with(PAGE.read_text(), table(kept)))


def table(kept: Verified) -> str:
    """The tables: pairs by engine and iptables, then disturbances by engine."""
    suites = list(ENGINES)
    columns = [(suite, variant) for suite in suites for variant in VARIANTS]
    head = [f"{_engine(kept, suite)}, {variant}" for suite, variant in columns]
    lines = ["| | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(columns)]
    for key, pair in PAIRS.items():
        cells = [_cell(kept, suite, variant, key) for suite, variant in columns]
        expected = "closed" if pair.closed else "open"
        lines.append(f"| {pair.name}: {expected} | " + " | ".join(cells) + " |")
    lines += ["", "| after | " + " | ".join(_engine(kept, suite) for suite in suites) + " |"]
    lines.append("| --- |" + " --- |" * len(suites))
    phases = list(
        dict.fromkeys(
            phase
            for suite in suites
            for run in kept.get(suite, {}).get("runs", {}).values()
            for phase in run
        )
    )
    for phase in sorted(phases, key=lambda name: (name != "at first", name)):
        lines.append(
            f"| {phase} | " + " | ".join(_phase(kept, suite, phase) for suite in suites) + " |"
        )
    return "\n".join(lines) + "\n"


def _engine(kept: Verified, suite: str) -> str:
    version = kept.get(suite, {}).get("version")
    return f"{version} ({ENGINES[suite].split('(')[1]}" if version else ENGINES[suite]


def _cell(kept: Verified, suite: str, variant: str, pair: str) -> str:
    """How many probes got what they must, over all phases."""
    runs = kept.get(suite, {}).get("runs", {})
    count = sum(
        phase.get(variant, {}).get(pair, 0) for run in runs.values() for phase in run.values()
    )
    return f"{count} probes" if count else "not run"


def _phase(kept: Verified, suite: str, phase: str) -> str:
    """With which ways of ip_forward a disturbance was tried, and how many pairs were asked."""
    runs = kept.get(suite, {}).get("runs", {})
    found = [
        f"{len(set().union(*run[phase].values()))} of {len(PAIRS)} pairs, ip_forward {forwarding}"
        for forwarding, run in sorted(runs.items())
        if phase in run
    ]
    return "; ".join(found) or "not run"


def page_with(page: str, text: str) -> str:
    """Return the page with the text between its two comments."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert end, f"{PAGE} has lost {_BEGIN} or {_END}"
    return f"{before}{_BEGIN}\n{text}{_END}{after}"
