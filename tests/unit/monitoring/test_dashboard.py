"""Dashboard and alerts use metrics that exist, and show every one; their links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from agent.daemon.api.metrics import render  # noqa: E402 # made importable
from tests.house.test_docs import anchors  # noqa: E402
from tests.unit.daemon.api.test_metrics import reading  # noqa: E402
from tests.unit.monitoring.promtool import ALERTS, promtool  # noqa: E402

pytestmark = pytest.mark.unit

DASHBOARD = json.loads((ALERTS.parent / "grafana-dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
NAME = re.compile(r"\bhostmesh[a-z_:]+")
DOCS = "/usr/share/doc/hostmesh/"
NOT_SHOWN: Mapping[str, str] = {}
"""Metrics that are on no panel, each with the reason."""


def families() -> Mapping[str, set[str]]:
    """Each family with the names of its samples."""
    text = render(reading())[0].decode()
    return {
        each.name: {each.name, *(sample.name for sample in each.samples)}
        for each in text_string_to_metric_families(text)
    }


def panels() -> list[dict[str, Any]]:
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def expressions() -> Iterator[str]:
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in RULES)


def test_every_metric_that_is_used_exists() -> None:
    known = {name for names in families().values() for name in names}
    known |= {rule["record"] for rule in RULES if "record" in rule}
    for expression in expressions():
        used = set(NAME.findall(expression))
        assert used, expression
        assert used <= known, (expression, used - known)


def test_every_metric_that_is_exported_is_on_the_dashboard() -> None:
    shown = {name for p in panels() for t in p["targets"] for name in NAME.findall(t["expr"])}
    missing = {family for family, names in families().items() if not names & shown}
    assert missing == set(NOT_SHOWN)


def test_every_panel_says_what_it_shows_and_where_it_turns_bad() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert len(panel["description"]) > 20, panel["title"]
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        assert len(steps) != 1
        assert panel["type"] != "stat" or steps, panel["title"]
    (table,) = (panel for panel in panels() if panel["type"] == "table")
    assert table["title"] == "Hosts"
    colored = {each["matcher"]["options"] for each in table["fieldConfig"]["overrides"]}
    renamed = set(table["transformations"][1]["options"]["renameByName"].values())
    assert colored <= renamed
    assert {"Host", "Ready", "Errors", "Version", "Backend"} <= renamed


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_prometheus_reads_every_expression_and_every_metric(tmp_path: Path) -> None:
    subprocess.run([promtool(), "check", "rules", str(ALERTS)], check=True)
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$instance", ".*")}
        for number, each in enumerate(expressions())
    ]
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    subprocess.run([promtool(), "check", "rules", str(file)], check=True)
    check = [promtool(), "check", "metrics"]
    done = subprocess.run(check, input=render(reading())[0], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "rule", [each for each in RULES if "alert" in each], ids=lambda r: r["alert"]
)
def test_an_alert_says_what_to_do_and_links_to_a_place_that_exists(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert {"summary", "description", "runbook_url"} == set(notes)
    assert rule["labels"]["severity"] in ("critical", "warning")
    page, _, anchor = notes["runbook_url"].removeprefix(DOCS).partition("#")
    known = anchors(ROOT / "docs" / page)
    if "{{" in anchor:  # the name of a condition
        assert page == "conditions.md"
        assert {"etcd-alarm", "route-refused", "firewalld-blocks-mesh"} <= known
    else:
        assert anchor in known


def test_conditions_that_alerts_name_exist() -> None:
    known = anchors(ROOT / "docs/conditions.md")
    for rule in RULES:
        for names in re.findall(r'condition!?[=~]+"([^"]+)"', rule["expr"]):
            for name in names.split("|"):
                assert any(re.fullmatch(name, each) for each in known), name
