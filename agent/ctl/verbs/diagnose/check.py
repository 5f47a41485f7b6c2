"""``agentctl check``: check every peer at once, or show the last check of each host."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from agent.ctl import direct
from agent.ctl.client import NO_ANSWER
from agent.ctl.context import Context
from agent.ctl.output import Column, Palette, Table, clean, flow, sentence
from agent.ctl.stale import age, banner
from agent.errors import CannotTell

__all__ = ["all_table", "run", "table"]

_TESTS = ("host", "path", "mtu", "names", "networks")
_SHOWN = {"ok": "ok", "failed": "FAILED", "untested": "-"}
_STATES = {"ok": "ok", "failed": "FAILED", "down": "DOWN", "untested": "not tested"}
_STYLES = {"failed": "bad", "down": "bad", "untested": "warn", "ok": "good"}
_WORST_FIRST = tuple(_STYLES)
_MOST_GOOD = 40
_MOST_PROBLEMS = 20
_MOST_REASONS = 6
_COLUMNS = (
    Column(title="HOST", shrink_to=8),
    Column(title="SUBNET", drop=1),
    Column(title="STATE"),
    Column(title="RTT", right=True),
    *(Column(title=each.upper()) for each in _TESTS),
)
_ALL_COLUMNS = (
    Column(title="HOST", shrink_to=8),
    Column(title="CHECKED", right=True),
    Column(title="STATE"),
    *(Column(title=each, right=True, drop=1) for each in ("OK", "FAILED", "DOWN", "NOT TESTED")),
    Column(title="WORST", shrink_to=16),
)


def run(context: Context) -> int:
    """Check, or show what was checked; return 1 when something failed or a peer is down.

    Raises:
        NotRoot: Only root may send from containers.
        CannotTell: There is nothing to show.
    """
    if context.args.all:
        document = direct.ask(context, "/v1/checks")
        context.show_table(document, lambda: all_table(document))
        return 1 if any(each["state"] == "failed" for each in document["hosts"]) else 0
    if context.args.last:
        document = direct.ask(context, "/v1/check")
        if document["state"] == "none":
            raise CannotTell("this host has not been checked yet", hint="agentctl check")
    else:
        context.need_root("send packets from containers; agentctl check --last needs no root")
        document = _checked(context)
    wide = context.is_wide
    width = None if wide else context.width
    context.show_table(document, lambda: table(document, width, context.palette, wide=wide))
    return 1 if document["state"] == "failed" else 0


def _checked(context: Context) -> dict[str, Any]:
    direct.log_to_stderr()
    from agent.ctl.check.facts import read_facts  # noqa: PLC0415 - costs 0.3 s
    from agent.ctl.check.handover import hand_over  # noqa: PLC0415 - the same
    from agent.ctl.check.run import BOUND_S, check_peers  # noqa: PLC0415 - the same
    from agent.ctl.path.ends import LocalHost  # noqa: PLC0415 - the same
    from agent.mesh.check.document import check_document  # noqa: PLC0415 - the same

    place = LocalHost(context)
    with context.progress.waiting_for("the answers of all peers", BOUND_S):
        found = check_peers(place, partial(read_facts, _asker(context)))
    document = check_document(found, time.time())
    hand_over(context, found, document)
    return document


def _asker(context: Context) -> Callable[[str], Mapping[str, Any]]:
    """Return a function that asks the agent; once it does not answer, this host, as said once."""
    absent = False

    def ask(target: str) -> Mapping[str, Any]:
        nonlocal absent
        if absent:
            return direct.without_agent(context, target)
        try:
            return context.client.get(target)
        except NO_ANSWER:
            absent = True
            return direct.ask(context, target)

    return ask


def table(
    document: Mapping[str, Any], width: int | None, palette: Palette, *, wide: bool = False
) -> Table:
    """Return a check: the outcome, the peers from the worst on, and what to type."""
    peers = sorted(document["peers"], key=lambda peer: _WORST_FIRST.index(peer["state"]))
    good = [each for each in peers if each["state"] == "ok"]
    left_out = 0 if wide else max(0, len(good) - _MOST_GOOD)
    shown = peers[: len(peers) - left_out]
    more = f"and {left_out} more that are ok: agentctl check -o wide"
    return Table(
        _COLUMNS,
        [_row(each) for each in shown],
        styles=["" if each["state"] == "ok" else _STYLES[each["state"]] for each in shown],
        before=[_outcome(document)],
        after=[more] if left_out else (),
        details=[
            *_problems(document, shown, width, palette, wide=wide),
            *_not_tested(document, width, wide=wide),
        ],
    )


def _outcome(document: Mapping[str, Any]) -> str:
    counts = document["counts"]
    said = [f"{counts[each]} {text}" for each, text in _STATES.items() if counts[each]]
    peers = len(document["peers"])
    many = f"{peers} peer{'' if peers == 1 else 's'}"
    ago_s = document["checked_s_ago"]
    when = f", {age(ago_s)} ago" if ago_s is not None and ago_s >= 1 else ""
    return f"{many} checked in {document['took_s']:.1f} s{when}: {', '.join(said) or 'nothing'}"


def _row(peer: Mapping[str, Any]) -> list[str]:
    verdicts = {each["test"]: each["result"] for each in peer["tests"]}
    rtt_ms = peer["rtt_ms"]
    return [
        peer["host_name"],
        peer["subnet"],
        _STATES[peer["state"]],
        "-" if rtt_ms is None else f"{rtt_ms:.2f} ms",
        *(_SHOWN[verdicts.get(each, "untested")] for each in _TESTS),
    ]


def _problems(
    document: Mapping[str, Any],
    peers: Sequence[Mapping[str, Any]],
    width: int | None,
    palette: Palette,
    *,
    wide: bool,
) -> Iterator[str]:
    """Yield each failure with its hint, those of this host first."""
    failed = [("this host", each) for each in document["own"] if each["result"] == "failed"]
    for peer in peers:
        tests = [each for each in peer["tests"] if each["result"] == "failed"]
        failed += [(clean(peer["host_name"]), each) for each in tests]
    if not failed:
        return
    yield palette.paint("strong", f"PROBLEMS ({len(failed)})")
    for name, test in failed if wide else failed[:_MOST_PROBLEMS]:
        first = f"  {palette.paint('bad', name)} {clean(test['test'])}: "
        yield from flow(sentence(test["text"]), width, first=first, rest=4)
        if test["hint"]:
            yield from flow(sentence(test["hint"]), width, first="    ", rest=4)
    if not wide and len(failed) > _MOST_PROBLEMS:
        yield f"  and {len(failed) - _MOST_PROBLEMS} more: agentctl check --last -o wide"


def _not_tested(document: Mapping[str, Any], width: int | None, *, wide: bool) -> Iterator[str]:
    """Yield what was not tested and why, each reason once, of peers that answer."""
    if document["untested"]:
        yield from flow(f"no container sent: {sentence(document['untested'])}", width, rest=4)
    reasons: Counter[tuple[str, str]] = Counter()
    for peer in document["peers"]:
        for each in peer["tests"] if peer["state"] != "down" else ():
            if each["result"] == "untested" and each["test"] in _TESTS:
                reasons[each["test"], each["text"]] += 1
    shown = reasons.most_common() if wide else reasons.most_common(_MOST_REASONS)
    for (test, text), count in shown:
        peers = f" ({count} peers)" if count > 1 else ""
        yield from flow(f"not tested: {clean(test)}: {sentence(text)}{peers}", width, rest=4)
    if len(reasons) > len(shown):
        yield f"and {len(reasons) - len(shown)} more reasons: agentctl check --last -o wide"


def all_table(document: Mapping[str, Any]) -> Table:
    """Return the last check of each host."""
    hosts = document["hosts"]
    failed = [clean(each["host_name"]) for each in hosts if each["state"] == "failed"]
    return Table(
        _ALL_COLUMNS,
        [_all_row(each) for each in hosts],
        styles=[{"failed": "bad", "none": "dim"}.get(each["state"], "") for each in hosts],
        warnings=banner(document),
        after=[f"for the reasons run on {failed[0]}: agentctl check --last"] if failed else (),
        empty="no host is in the mesh",
    )


def _all_row(host: Mapping[str, Any]) -> list[str]:
    if host["state"] == "none":
        return [host["host_name"], "-", "not known", "-", "-", "-", "-", str(host["reason"])]
    counts = host["counts"]
    worst = []
    for each in host["worst"]:
        if each["state"] in {"ok", "untested"}:
            continue
        why = ", ".join(each["failed"]) or each["state"]
        worst.append(f"{clean(each['host_name'] or each['subnet'])} ({why})")
    own = [f"itself ({', '.join(host['own_failed'])})"] if host["own_failed"] else []
    return [
        host["host_name"],
        f"{age(host['checked_s_ago'])} ago",
        _STATES[host["state"]],
        *(str(counts[each]) for each in ("ok", "failed", "down", "untested")),
        ", ".join([*own, *worst]),
    ]
