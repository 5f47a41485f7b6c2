"""The doctor's look at the host itself: rights, kernel, iptables, uplink."""

from __future__ import annotations

import os
import platform

from agent.daemon.membership.etcd_endpoint import uplink_now, with_needed
from agent.kernel.diagnose.trial import trial
from agent.kernel.facts import read_host_facts
from agent.kernel.firewall.variant.iptables import Iptables
from agent.kernel.hostchecks import host_conditions
from agent.kernel.sysctl import Sysctls
from agent.model import HostFacts, Uplink
from agent.settings import Settings
from agent.standalone.doctor.findings import Findings, State

__all__ = ["look_at_host", "look_for_uplink"]


def look_at_host(settings: Settings, findings: Findings) -> None:
    """Rights, the kernel's abilities, iptables, forwarding, and programs that undo our work."""
    if os.geteuid() != 0:
        findings.add(
            "root",
            State.UNKNOWN,
            "needs root: the kernel's tables, the answers of peers, the underlay and daemon.json"
            " are not tested",
            "sudo agentctl doctor",
        )
    else:
        findings.add("root", State.OK, "root")
        _try_kernel(settings, findings)
    findings.attempt("iptables", lambda: _iptables(findings))
    findings.attempt("forwarding", lambda: _forwarding(findings), State.UNKNOWN)
    findings.conditions("network services", host_conditions())


def _try_kernel(settings: Settings, findings: Findings) -> None:
    def look() -> None:
        found = trial(settings.routes.protocol, settings.routes.table, settings.firewall.variant)
        for name, error in found.items():
            if error is None:
                findings.add(f"kernel: {name}", State.OK, f"Linux {platform.release()} takes them")
            else:
                findings.add(f"kernel: {name}", State.FAIL, error.message, error.hint)

    findings.attempt("kernel", look)


def _iptables(findings: Findings) -> None:
    variant = Iptables().default_variant()
    findings.add("iptables", State.OK, f"iptables writes {variant}")


def _forwarding(findings: Findings) -> None:
    if Sysctls().ip_forward():
        findings.add("forwarding", State.OK, "net.ipv4.ip_forward is on")
        return
    findings.add("forwarding", State.OK, "net.ipv4.ip_forward is off and would be switched on")
    findings.would.append("set FORWARD's policy to DROP, then net.ipv4.ip_forward to 1")


def look_for_uplink(
    settings: Settings, findings: Findings, endpoints: tuple[str, ...]
) -> tuple[HostFacts, Uplink] | None:
    """Return the uplink, and report whether the kernel drops answers on it; None without one.

    Args:
        endpoints: etcd's: the route there decides, unless a setting does.
    """
    return findings.attempt("uplink", lambda: _uplink(settings, findings, endpoints))


def _uplink(
    settings: Settings, findings: Findings, endpoints: tuple[str, ...]
) -> tuple[HostFacts, Uplink]:
    facts = with_needed(read_host_facts(settings.routes.protocol), endpoints)
    uplink = uplink_now(facts, settings, endpoints)
    findings.add(
        "uplink",
        State.OK,
        f"{uplink.name} with {uplink.node_address}, link {uplink.on_link}, MTU {uplink.mtu}",
    )
    strict = Sysctls().reverse_path_condition(uplink)
    findings.conditions("reverse path", (strict,) if strict else ())
    return facts, uplink
