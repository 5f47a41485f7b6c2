"""Compare the output of ``agentctl check`` with golden files; bound it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.ctl.output import Palette, lay_out
from agent.ctl.verbs.diagnose.check import all_table, table
from tests.unit.ctl.golden import check_golden

pytestmark = pytest.mark.unit

PLAIN = Palette(colours=False)


def outcome(name: str, result: str = "ok", text: str = "fine", hint: str | None = None) -> Any:  # noqa: ANN401 - JSON
    return {"test": name, "result": result, "text": text, "hint": hint}


def peer(number: int, state: str, *tests: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    names = [each["test"] for each in tests]
    rest = [outcome(each) for each in ("host", "path", "mtu", "names") if each not in names]
    networks = outcome("networks", "untested", "no network with a container here and there")
    return {
        "host_name": f"host{number}" if number != 5 else "evil\x1b[2J",
        "subnet": f"10.{64 + number}.0.0/16",
        "state": state,
        "rtt_ms": None if state == "down" else 0.25,
        "tests": [*rest, *tests, networks],
    }


DEAD = outcome(
    "path", "failed",
    "nothing comes back from host3 through the tunnel hm-vxlan, UDP port 8472; the host itself"
    " answers",
    "open that port between 192.0.2.3 and this host, both ways; agentctl ping host3 says in which"
    " direction packets are lost",
)  # fmt: skip
DOCUMENT = {
    "version": 1,
    "state": "failed",
    "checked_at": 1.0,
    "checked_s_ago": 75.0,
    "took_s": 1.26,
    "untested": None,
    "counts": {"failed": 1, "down": 2, "untested": 0, "ok": 1},
    "own": [
        outcome("names", "failed", "the name server at 169.254.20.53 does not answer", "start it")
    ],
    "peers": [
        peer(2, "ok"),
        peer(3, "failed", DEAD, outcome("mtu", "untested", "nothing there answers")),
        peer(4, "down", outcome("host", "failed", "192.0.2.4 does not answer a ping", "is it on?")),
        peer(5, "down", outcome("host", "failed", "\x1b[2J does not answer", "is it on?")),
    ],
}


def lines(document: dict[str, Any], width: int | None, *, wide: bool = False) -> list[str]:
    return lay_out(table(document, width, PLAIN, wide=wide), width)


@pytest.mark.parametrize("width", [80, 160])
def test_the_worst_comes_first_with_what_to_type(width: int) -> None:
    check_golden(f"check-{width}.txt", lines(DOCUMENT, width), width=width)


def test_many_good_peers_and_many_faults_are_bounded() -> None:
    many = {**DOCUMENT, "peers": [peer(number % 90 + 6, "ok") for number in range(1000)]}
    assert len(lines(many, 100)) < 60
    assert len(lines(many, None, wide=True)) > 1000
    faults = {**DOCUMENT, "peers": [peer(number % 90 + 6, "failed", DEAD) for number in range(999)]}
    shown = lines(faults, 100)
    assert sum("open that port" in line for line in shown) < 25
    assert any("more: agentctl check --last -o wide" in line for line in shown)


@pytest.mark.parametrize("width", [80, 160])
def test_the_last_check_of_every_host(width: int) -> None:
    none = {"ok": 0, "failed": 0, "down": 0, "untested": 0}
    host = {"host_id": "f" * 32, "subnet": "10.64.0.0/16", "own": False, "own_failed": []}
    worst = {"host_id": None, "host_name": "host3", "subnet": "10.67.0.0/16", "rtt_ms": None}
    document = {
        "version": 1,
        "stale": False,
        "hosts": [
            {**host, "host_name": "host1", "state": "failed", "reason": None, "checked_at": 1.0,
             "checked_s_ago": 75.0, "counts": {**none, "failed": 1, "ok": 2},
             "own_failed": ["names"],
             "worst": [{**worst, "state": "failed", "failed": ["path", "mtu"]},
                       {**worst, "state": "ok", "failed": []}]},
            {**host, "host_name": "host2", "state": "ok", "reason": None, "checked_at": 1.0,
             "checked_s_ago": 3.0, "counts": {**none, "ok": 3}, "worst": []},
            {**host, "host_name": "host3", "state": "none", "reason": "its agent does not run",
             "checked_at": None, "checked_s_ago": None, "counts": none, "worst": []},
        ],
    }  # fmt: skip
    check_golden(f"check-all-{width}.txt", lay_out(all_table(document), width), width=width)
