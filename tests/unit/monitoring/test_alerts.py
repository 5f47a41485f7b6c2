"""One cause makes one alert: alone, and beside every other cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.unit.monitoring.promtool import FIRING, STEP, evaluate, series  # noqa: E402 # made importable

pytestmark = pytest.mark.unit

HOSTS = ("a", "b", "c")
STEPS = 15
FOREVER = f"+0x{STEPS}"
END = "60m"

Sample = tuple[str, tuple[tuple[str, str], ...]]


def sample(name: str, /, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


HEALTHY: Mapping[Sample, str] = {
    sample("up"): f"1{FOREVER}",
    sample("hostmesh_start_time_seconds"): f"1000{FOREVER}",
    sample("hostmesh_ready"): f"1{FOREVER}",
    sample("hostmesh_state", state="left"): f"0{FOREVER}",
    sample("hostmesh_etcd_connected"): f"1{FOREVER}",
    sample("hostmesh_lease_left_seconds"): f"80000{FOREVER}",
    sample("hostmesh_routes", state="desired"): f"2{FOREVER}",
    sample("hostmesh_routes", state="installed"): f"2{FOREVER}",
    sample("hostmesh_peers", state="alive"): f"2{FOREVER}",
    sample("hostmesh_peers", state="silent"): f"0{FOREVER}",
    sample("hostmesh_drift_repairs_total", kind="rules"): f"0{FOREVER}",
    sample(
        "hostmesh_etcd_certificate_expiration_timestamp_seconds", name="x", role="client"
    ): f"100000000{FOREVER}",
}  # fmt: skip


def condition(name: str, severity: str) -> dict[Sample, str]:
    key = sample("hostmesh_conditions", condition=name, severity=severity)
    return {key: f"1{FOREVER}"}


def error(name: str) -> dict[Sample, str]:
    return condition(name, "error")


def warning(name: str) -> dict[Sample, str]:
    return condition(name, "warning")


def gauge(name: str, value: str, /, **labels: str) -> dict[Sample, str]:
    return {sample(name, **labels): f"{value}{FOREVER}"}


NOT_READY = gauge("hostmesh_ready", "0")
NO_ETCD = {
    **gauge("hostmesh_etcd_connected", "0"), **warning("etcd-unreachable"),
    **gauge("hostmesh_peers", "0", state="alive"),
}  # fmt: skip
CHECK_FAILS = gauge("hostmesh_check_peers", "1", state="failed")
LAPSED = gauge("hostmesh_peers", "1", state="silent")
ROUTE_LACKS = gauge("hostmesh_routes", "1", state="installed")
GONE: Mapping[Sample, str] = {
    **dict.fromkeys(HEALTHY, "1x1 stale"), sample("up"): f"1x1 0x{STEPS}"
}  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """A fault, as the metrics show it.

    Attributes:
        one: What differs on the first host.
        others: What differs on the other hosts.
        alert: The alert that fires; "" for none.
        labels: Of the alert, but for the job.
    """

    one: Mapping[Sample, str]
    others: Mapping[Sample, str] = field(default_factory=dict)
    alert: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def everywhere(values: Mapping[Sample, str], alert: str, **labels: str) -> Cause:
    return Cause(values, values, alert, labels)


def alone(values: Mapping[Sample, str], alert: str = "HostmeshError") -> Cause:
    return Cause(values, {}, alert, {"instance": "a"})


LEFT = "a host has left"
CAUSES: Mapping[str, Cause] = {
    "an agent dies": Cause(GONE, LAPSED, "HostmeshAgentDown"),
    "a host dies that is not scraped": everywhere(
        {**LAPSED, **warning("peer-dead")}, "HostmeshPeersSilent"
    ),
    "etcd is away": everywhere(NO_ETCD, "HostmeshEtcdUnreachable"),
    "one host has no etcd": Cause(NO_ETCD, LAPSED, "HostmeshEtcdUnreachable"),
    "etcd is away for most of a day": everywhere(
        {**NO_ETCD, **gauge("hostmesh_lease_left_seconds", "9000")}, "HostmeshLeaseEnds"
    ),
    "etcd is away for longer than a lease": everywhere(
        {
            **NO_ETCD,
            **NOT_READY,
            **gauge("hostmesh_lease_left_seconds", "0"),
            **error("lease-not-held"),
        },
        "HostmeshErrorOnHosts",
        condition="lease-not-held",
    ),
    "etcd refuses a host": Cause(
        {**gauge("hostmesh_etcd_connected", "0"), **error("etcd-auth-failed")},
        LAPSED,
        "HostmeshError",
        {"instance": "a"},
    ),
    "etcd is an old backup": everywhere(error("etcd-alarm"), "HostmeshEtcdAlarm"),
    "the config is damaged": everywhere(
        error("mesh-config-unusable"), "HostmeshErrorOnHosts", condition="mesh-config-unusable"
    ),
    "the kernel refuses a route": alone({**error("route-refused"), **ROUTE_LACKS, **NOT_READY}),
    "another program has a route": Cause(
        {**warning("route-conflict"), **ROUTE_LACKS, **NOT_READY},
        CHECK_FAILS,
        "HostmeshRoutesMissing",
    ),
    "a network between hosts drops packets": everywhere(CHECK_FAILS, "HostmeshPathsFail"),
    "a rule of the operator drops the mesh": Cause(
        {**error("operator-blocks-mesh"), **CHECK_FAILS},
        CHECK_FAILS,
        "HostmeshError",
        {"instance": "a"},
    ),
    "another program undoes rules": alone(
        {
            **warning("firewall-contested"),
            sample("hostmesh_drift_repairs_total", kind="rules"): f"0+8x{STEPS}",
        },
        "HostmeshDrift",
    ),
    "another program undoes routes of two kinds": alone(
        {
            **warning("route-fight"),
            sample("hostmesh_drift_repairs_total", kind="route-missing"): f"0+8x{STEPS}",
            sample("hostmesh_drift_repairs_total", kind="route-extra"): f"0+8x{STEPS}",
        },
        "HostmeshDrift",
    ),
    "Docker must restart": Cause(
        {**warning("docker-restart-pending"), **NOT_READY}, {}, "HostmeshNotReady"
    ),
    "Docker is absent everywhere": everywhere(NOT_READY, "HostmeshNotReady"),
    "Docker hangs and its rules are gone": alone(
        {**error("docker-not-answering"), **error("docker-rules-missing"), **NOT_READY}
    ),
    "name servers are down": alone(error("dns-server-down")),
    "one name server is down": Cause(
        {**warning("dns-server-down"), **gauge("hostmesh_check_own_failed", "1")},
        {},
        "HostmeshWarning",
        {"condition": "dns-server-down"},
    ),
    "a tunnel's device is taken": alone({**error("link-refused"), **NOT_READY}),
    "firewalld drops the mesh": Cause(
        {**warning("firewalld-blocks-mesh"), **CHECK_FAILS},
        CHECK_FAILS,
        "HostmeshWarning",
        {"condition": "firewalld-blocks-mesh"},
    ),
    "a certificate ends soon": Cause(
        {
            **warning("etcd-certificate-expires"),
            **gauge(
                "hostmesh_etcd_certificate_expiration_timestamp_seconds",
                "500000",
                name="x",
                role="client",
            ),
        },
        {},
        "HostmeshCertificateEnds",
    ),
    "a certificate has ended": Cause(
        {
            **NO_ETCD,
            **error("etcd-certificate-expires"),
            **gauge(
                "hostmesh_etcd_certificate_expiration_timestamp_seconds",
                "100",
                name="x",
                role="client",
            ),
        },
        LAPSED,
        "HostmeshError",
        {"instance": "a"},
    ),
    "an agent ends again and again": alone(
        {sample("hostmesh_start_time_seconds"): f"0+240x{STEPS}"}, "HostmeshRestarts"
    ),
    LEFT: Cause({**NOT_READY, **gauge("hostmesh_state", "1", state="left")}),
    "nothing": Cause({}),
}


def inputs(*causes: tuple[str, Cause]) -> list[dict[str, str]]:
    """Return series of all hosts; each cause comes with its first host."""
    found = []
    for host in HOSTS:
        values = dict(HEALTHY)
        for first, cause in causes:
            values |= cause.one if host == first else cause.others
        if any(host == first and cause.one is GONE for first, cause in causes):
            values = {each: GONE.get(each, "1x1 stale") for each in values}
        found += [
            series(name, {"job": "mesh", "instance": host, **dict(labels)}, text)
            for (name, labels), text in values.items()
        ]
    return found


def singles() -> Iterator[dict[str, Any]]:
    for name, cause in CAUSES.items():
        labels = {"alertname": cause.alert, **cause.labels}
        text = ", ".join(f'{key}="{value}"' for key, value in labels.items())
        yield {
            "name": name,
            "interval": STEP,
            "input_series": inputs(("a", cause)),
            "promql_expr_test": [
                {
                    "expr": f"count by (alertname, instance, condition) ({FIRING})",
                    "eval_time": END,
                    "exp_samples": [{"labels": f"{{{text}}}", "value": 1}] if cause.alert else [],
                }
            ],
        }


def pairs() -> Iterator[dict[str, Any]]:
    """Yield each pair of causes on one host and on two hosts: at most two alerts, of the two."""
    for (one, first), (other, second) in permutations(CAUSES.items(), 2):
        if one > other:
            continue
        expected = {each for each in (first.alert, second.alert) if each}
        names = "|".join(sorted(expected)) or "none"
        # On a host that has left nothing else is a fault.
        for host in ("b",) if LEFT in (one, other) else ("a", "b"):
            yield {
                "name": f"{one}; {other} on {host}",
                "interval": STEP,
                "input_series": inputs(("a", first), (host, second)),
                "promql_expr_test": [
                    {
                        "expr": f'ALERTS{{alertstate="firing", alertname!~"{names}"}}',
                        "eval_time": END,
                        "exp_samples": [],
                    },
                    {
                        "expr": f"count({FIRING}) > 2",
                        "eval_time": END,
                        "exp_samples": [],
                    },
                    {
                        "expr": f"(count({FIRING}) or vector(0)) < bool {1 if expected else 0}",
                        "eval_time": END,
                        "exp_samples": [{"labels": "{}", "value": 0}],
                    },
                ],
            }


def test_one_cause_makes_one_alert(tmp_path: Path) -> None:
    evaluate(tmp_path, singles())


@pytest.mark.full
@pytest.mark.timeout(600)
def test_two_causes_make_no_third_alert_and_hide_not_both(tmp_path: Path) -> None:
    evaluate(tmp_path, pairs())


def test_an_alert_says_which_conditions_and_links_to_the_first(tmp_path: Path) -> None:
    values = {**error("docker-not-answering"), **error("docker-rules-missing")}
    shown = {
        "summary": "docker-not-answering docker-rules-missing on a",
        "description": "On that host: agentctl status has the cause and a hint",
        "runbook_url": "/usr/share/doc/hostmesh/conditions.md#docker-not-answering",
    }
    labels = {"job": "mesh", "instance": "a", "severity": "critical"}
    evaluate(
        tmp_path,
        [
            {
                "interval": STEP,
                "input_series": inputs(("a", alone(values))),
                "alert_rule_test": [
                    {
                        "eval_time": "32m",
                        "alertname": "HostmeshError",
                        "exp_alerts": [{"exp_labels": labels, "exp_annotations": shown}],
                    }
                ],
            }
        ],
    )
