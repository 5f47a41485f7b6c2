"""The banner over what is not current, and a heartbeat in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agent.ctl.output import duration

__all__ = ["age", "banner", "heartbeat_words"]

_DAY_S = 86_400


def banner(document: Mapping[str, Any]) -> list[str]:
    """Return the line over what was true when etcd last answered; none while it answers."""
    if document.get("stale") is not True:
        return []
    ago, at = document.get("as_of_s_ago"), _at(document)
    if at is None:
        return ["! etcd unreachable: last known state, of unknown age"]
    if document.get("cached"):
        copy = "this host's own copy of the last known state"
        return [f"! etcd unreachable: {copy}, saved {age(ago)} ago, at {at}"]
    return [f"! etcd unreachable for {age(ago)}: last known state, as of {at}"]


def _at(document: Mapping[str, Any]) -> str | None:
    as_of, ago = document.get("as_of"), document.get("as_of_s_ago")
    if not isinstance(as_of, int | float) or not isinstance(ago, int | float):
        return None
    form = "%H:%M:%S" if ago < _DAY_S else "%Y-%m-%d %H:%M:%S"
    return datetime.fromtimestamp(as_of).astimezone().strftime(form)


def age(seconds: object) -> str:
    """Return seconds as "53 s" or "3 h 12 m", for a sentence."""
    return re.sub(r"(\d+)(\D)", r"\1 \2 ", duration(seconds)).strip()


def heartbeat_words(lease: Mapping[str, Any]) -> str:
    """Return what is known of a host's heartbeat, from a lease or a peer of a document."""
    if lease.get("heartbeat") == "unknown":
        seen = lease.get("last_seen_s")
        return "unknown" if seen is None else f"unknown (was up {age(seen)} ago)"
    alive = lease.get("alive")
    if alive is None:
        return "-"  # a flannel host has none
    if alive:
        return "alive"
    silent_s = lease.get("silent_s")
    return "none" if silent_s is None else f"none for {duration(silent_s)}"
