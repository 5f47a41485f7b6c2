"""``agentctl ping PEER``: check the path to another host, from its lease to a container there."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.ctl.context import Context
from agent.ctl.output import clean, duration, flow, step_lines
from agent.ctl.path.peers import Peer, find_peer
from agent.ctl.stale import age, banner, state_of
from agent.errors import HostmeshError, NotRoot
from agent.model.family import read_address

__all__ = ["lines", "run"]

_ECHOES = 3
_ANSWER_S = 2.0
_LEAST_SHARE = 2  # of three answers, before losing one is a failure
Step = tuple[str, str, str]
"""The step's name; "ok", "failed" or "unknown"; and the finding."""


def run(context: Context) -> int:
    """Check every step of the path; return 1 when one fails."""
    peer = find_peer(context, context.args.peer)
    names = ("step", "result", "text")
    with context.progress.waiting_for(f"answers of {peer.subnet}", context.timeout_s):
        steps = [dict(zip(names, step, strict=True)) for step in _steps(context, peer)]
    failed = [step for step in steps if step["result"] == "failed"]
    document = {
        "version": 1,
        "peer": peer.document(),
        **peer.freshness,
        "reachable": not failed,
        "steps": steps,
    }
    context.show(document, lambda: lines(document, context.palette.paint, context.width))
    return 1 if failed else 0


def lines(
    document: Mapping[str, Any],
    paint: Callable[[str, str], str] = lambda _style, text: text,
    width: int | None = None,
) -> list[str]:
    """Lay out the document."""
    peer = document["peer"]
    who = f"{clean(peer['host_name'])} at {clean(peer['node_address'])}, {clean(peer['subnet'])}"
    if container := peer.get("container"):
        who = f"{clean(container['name'])} at {clean(container['address'])} on {who}"
    return banner(document) + flow(who, width) + step_lines(document["steps"], width, paint)


def _steps(context: Context, peer: Peer) -> Iterator[Step]:
    yield _lease(peer)
    yield _route(context, peer)
    untested = ""
    for step in _wire(peer):
        if step[:2] == ("icmp", "failed"):
            untested = "the host itself does not answer"
        yield step
    if not untested:
        tunnel, passes = _tunnel(peer)
        yield from (tunnel,) if tunnel else ()
        untested = "" if passes else "nothing comes back through the tunnel"
    if untested:
        yield "containers", "unknown", f"not tested: {untested}"
    else:
        from agent.ctl.path.container_path import path_steps  # noqa: PLC0415 - costs 0.3 s

        stale = peer.freshness.get("stale") is True
        yield from path_steps(context, peer.lease, peer.own, stale=stale, target=peer.target)
    yield _agent(context, peer)


def _lease(peer: Peer) -> Step:
    lease = peer.lease
    left = duration(lease.get("ttl_left_s"))
    if lease.get("alive") is False:
        silent = lease.get("silent_s")
        since = f" for {duration(silent)}" if silent is not None else ""
        return "lease", "failed", f"{left} left, and no heartbeat{since}"
    held = f"held for {duration(lease.get('age_s'))}, {left} left"
    if lease.get("heartbeat") == "unknown":
        return "lease", "unknown", f"{held}; state {state_of(lease)}"
    if not lease.get("alive"):
        return "lease", "ok", f"{held}; a flannel host has no heartbeat"
    return "lease", "ok", f"{held}; heartbeat seen{_seen(lease)}"


def _seen(lease: Mapping[str, Any]) -> str:
    seen_s = lease.get("last_seen_s")
    return "" if seen_s is None else f" {age(seen_s)} ago"


def _route(context: Context, peer: Peer) -> Step:
    try:
        rows = context.client.get("/v1/routes").get("routes", [])
    except HostmeshError as error:
        return "route", "unknown", error.message
    row = next((each for each in rows if each.get("destination") == peer.subnet), None)
    if row is None:
        return "route", "failed", f"no route to {peer.subnet}: see agentctl status"
    good = row.get("state") == "installed" and row.get("kind") == "unicast"
    return "route", "ok" if good else "failed", f"{row.get('state')}: {row.get('text')}"


def _wire(peer: Peer) -> Iterator[Step]:
    from agent.kernel.diagnose.ping import Pinger  # noqa: PLC0415 - the same
    from agent.kernel.facts import read_host_facts  # noqa: PLC0415 - costs 0.2 s
    from agent.kernel.lookup import neighbour_on, path_to  # noqa: PLC0415 - the same

    address = read_address(peer.node_address)
    try:
        reach = Pinger(address)
    except NotRoot as error:
        yield "icmp", "unknown", f"{error.message}; {error.hint}"
        return
    try:
        echo = reach.echo(_ECHOES)
        try:
            found = neighbour_on(address)
            state = found.state if found else "no entry: it is not on this host's link"
            bad = state in {"failed", "incomplete"}
            yield "neighbour", "failed" if bad else "ok", state
            link = path_to(address).link
            mtu = next(each.mtu for each in read_host_facts().links if each.name == link)
        except (HostmeshError, StopIteration) as error:
            yield "neighbour", "unknown", str(error) or "no link leads there"
            mtu = 0
        yield _icmp(peer, echo.sent, echo.rtt_s, echo.problem)
        if echo.rtt_s and mtu:
            largest = reach.largest(mtu)
            if largest == mtu:
                yield "mtu", "ok", f"{mtu} bytes pass unfragmented"
            else:
                yield "mtu", "failed", f"only {largest or 'less than 576'} of {mtu} bytes pass"
    finally:
        reach.close()


def _tunnel(peer: Peer) -> tuple[Step | None, bool]:
    """Return the tunnel's step, None without one, and whether any packet passes."""
    from agent.kernel.diagnose.tunnel import try_tunnel  # noqa: PLC0415 - costs 0.2 s
    from agent.kernel.diagnose.tunnel_findings import (  # noqa: PLC0415 - the same
        published_difference,
        reason_of,
    )
    from agent.kernel.diagnose.tunnel_probe import TunnelEnd, probe  # noqa: PLC0415 - the same

    own = None if peer.own is None else TunnelEnd.of_document(peer.own)
    there = TunnelEnd.of_document(peer.lease)
    try:
        trial = try_tunnel(there.subnet, _ECHOES)
        if trial is None:
            differs = None if own is None else published_difference(own, there)
            if differs is None:
                return None, True
            return ("tunnel", "failed", f"{differs.text}; {differs.hint}"), False
        if trial.echo.rtt_s or own is None:
            step = ("tunnel", "ok" if trial.works else "failed", trial.found)
            return step, bool(trial.echo.rtt_s)
        if os.geteuid() != 0:
            return ("tunnel", "failed", f"{trial.found}; as root ping says why"), False
        reason = reason_of(trial.tunnel, own, there, probe(trial.tunnel, own, there))
    except HostmeshError as error:
        return ("tunnel", "unknown", error.message), True
    return ("tunnel", "failed", f"{trial.found}: {reason.text}; {reason.hint}"), False


def _icmp(peer: Peer, sent: int, rtt_s: tuple[float, ...], problem: str) -> Step:
    if not rtt_s and peer.behind_nat:
        return "icmp", "unknown", "its node address is behind NAT: only the tunnel leads there"
    if not rtt_s:
        return "icmp", "failed", problem or f"none of {sent} requests was answered"
    best_ms = min(rtt_s) * 1000
    text = f"{len(rtt_s)} of {sent} answered, {best_ms:.2f} ms"
    return "icmp", "ok" if len(rtt_s) >= _LEAST_SHARE else "failed", text


def _agent(context: Context, peer: Peer) -> Step:
    """Ask the other agent whether it is ready: over TCP where it serves metrics, else in etcd."""
    address = context.settings.metrics.address
    if address is not None:
        try:
            return _asked(peer.node_address, address[1])
        except (OSError, ValueError, http.client.HTTPException) as error:
            return "agent", "unknown", f"{peer.node_address}:{address[1]}: {error}"
    docker = peer.lease.get("docker")
    if docker is None:
        unknown = peer.lease.get("heartbeat") == "unknown"
        heartbeat = "heartbeat unknown while etcd is away" if unknown else "no heartbeat"
        return "agent", "unknown", f"{heartbeat}, and metrics.listen is not set here"
    text = f"Docker is {docker} (reported{_seen(peer.lease)})"
    return "agent", "ok" if docker == "ready" else "unknown", text


def _asked(host: str, port: int) -> Step:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/readyz")
        document = json.loads(connection.getresponse().read(65536))
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise ValueError("no answer of a hostmesh-agent")  # noqa: TRY004 - of what came, not of a caller
    ready = document.get("ready") is True
    return "agent", "ok" if ready else "failed", f"it says: {document.get('reason')}"
