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
from prometheus_client.parser import text_string_to_metric_families

from tests.debian import unpacked

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/monitoring/alerts.yml"
STEP = "4m"
"""As long as a sample counts, less one minute."""
FIRING = 'ALERTS{alertstate="firing"}'
Scrape = Mapping[str, str]
"""The text of /metrics by host, "" where none answered."""
_END = "60m"


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


def expect(folder: Path, now: Scrape, before: Scrape, *alerts: tuple[str, str]) -> None:
    """Keep what was scraped for an hour; exactly these alerts fire, with these conditions.

    Args:
        before: What hosts said that do not answer now.
    """
    inputs = []
    for instance, text in now.items():
        labels = {"job": "mesh", "instance": instance}
        inputs.append(series("up", labels, f"1x1 {1 if text else 0}x15"))
        for family in text_string_to_metric_families(text or before[instance]):
            inputs += [
                series(each.name, {**labels, **each.labels}, f"{each.value}x{15 if text else 1}")
                for each in family.samples
            ]
    expected = [
        {
            "labels": f'{{alertname="{alert}"' + (f', condition="{name}"}}' if name else "}"),
            "value": 1,
        }
        for alert, name in alerts
    ]
    check = {
        "expr": f"count by (alertname, condition) ({FIRING})",
        "eval_time": _END,
        "exp_samples": expected,
    }
    evaluate(folder, [{"interval": STEP, "input_series": inputs, "promql_expr_test": [check]}])
