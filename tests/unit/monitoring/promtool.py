"""Evaluate deploy/monitoring/alerts.yml with Prometheus' own tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.debian import unpacked

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/monitoring/alerts.yml"
STEP = "4m"
"""As long as a sample counts, less one minute."""
FIRING = 'ALERTS{alertstate="firing"}'


def promtool() -> str:
    """Return the program, out of Debian's package where root may unpack it."""
    found = shutil.which("promtool")
    if found is None and os.geteuid() != 0:
        pytest.skip("NOT TESTED: no promtool here (Debian: prometheus); root unpacks it")
    return found or str(unpacked("prometheus", "usr/bin/promtool"))


def series(name: str, labels: Mapping[str, str], values: str) -> dict[str, str]:
    """Return one input series."""
    text = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": values}


def evaluate(folder: Path, tests: Iterable[Mapping[str, Any]]) -> None:
    """Run tests of rules (promtool's own format); what differs fails."""
    file = folder / "rules-test.json"
    # YAML that is written as JSON.
    file.write_text(
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": STEP, "tests": list(tests)})
    )
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)],
        check=False, capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
