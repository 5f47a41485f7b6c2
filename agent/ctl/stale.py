"""Say how old data is and whether a host is up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.ctl.output import duration

__all__ = ["age", "banner", "contact_changes", "count_states", "state_of"]

_DAY_S = 86_400


def banner(document: Mapping[str, Any]) -> list[str]:
    """Return the line above a document that is older than etcd's last answer, or no line."""
    if document.get("stale") is not True:
        return []
    ago, at = document.get("as_of_s_ago"), _at(document)
    if at is None:
        return ["! etcd unreachable: last known state, of unknown age"]
    if document.get("cached"):
        copy = "this host's own copy of the last known state"
        return [f"! etcd unreachable: {copy}, saved {age(ago)} ago, at {at}"]
    return [f"! etcd unreachable for {age(ago)}: last known state, as of {at}"]


def contact_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line where etcd went or came back, in place of one for each host."""
    if now.get("stale") == before.get("stale"):
        return []
    away = "etcd unreachable: last known state, heartbeats unknown"
    return [away if now.get("stale") else "etcd answers again"]


def _at(document: Mapping[str, Any]) -> str | None:
    as_of, ago = document.get("as_of"), document.get("as_of_s_ago")
    if not isinstance(as_of, int | float) or not isinstance(ago, int | float):
        return None
    form = "%H:%M:%S" if ago < _DAY_S else "%Y-%m-%d %H:%M:%S"
    return datetime.fromtimestamp(as_of).astimezone().strftime(form)


def age(seconds: object) -> str:
    """Return seconds as "53 s" or "3 h 12 m", for a sentence."""
    return re.sub(r"(\d+)(\D)", r"\1 \2 ", duration(seconds)).strip()


def state_of(host: Mapping[str, Any]) -> str:
    """Return whether a host is up, from a lease or a peer of a document."""
    seen_s = host.get("last_seen_s")
    if seen_s is None:
        seen_s = host.get("silent_s")  # agents before 0.1.1
    if host.get("heartbeat") == "unknown":
        return "unknown" if seen_s is None else f"unknown (was up {age(seen_s)} ago)"
    if host.get("alive") is None:
        return "flannel host"
    if host["alive"]:
        return "up"
    if host.get("reachable") is False:
        return "DOWN" if seen_s is None else f"DOWN {age(seen_s)}"
    return "no heartbeat" + ("" if seen_s is None else f" for {age(seen_s)}")


def count_states(hosts: Sequence[Mapping[str, Any]], noun: str) -> str:
    """Return how many hosts there are and in which states: "3 hosts: 2 up, 1 down"."""
    down = sum(each.get("alive") is False and each.get("reachable") is False for each in hosts)
    silent = sum(each.get("alive") is False for each in hosts) - down
    flannel = sum("host_id" in each and each["host_id"] is None for each in hosts)
    waiting = sum("subnet" not in each for each in hosts)
    unknown = sum("subnet" in each and each.get("alive") is None for each in hosts) - flannel
    up = len(hosts) - down - silent - flannel - waiting - unknown
    counts = [f"{up} up"] if up or not (down or silent or flannel or waiting or unknown) else []
    for count, text in (
        (down, "down"),
        (silent, "without heartbeat"),
        (unknown, "unknown"),
        (flannel, "flannel"),
        (waiting, "waiting for a subnet"),
    ):
        counts += [f"{count} {text}"] if count else []
    many = f"{len(hosts)} {noun}" + ("" if len(hosts) == 1 else "s")
    return many + (f": {', '.join(counts)}" if hosts else "")
