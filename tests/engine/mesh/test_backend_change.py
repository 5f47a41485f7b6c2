"""From host-gw to vxlan with direct routing to wireguard, between containers, under pings."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.capture import Pinger
from hostmesh_lab.machines.host import Host
from hostmesh_lab.underlay import wireguard
from hostmesh_lab.underlay.topology import TWO_LANS
from hostmesh_lab.wait import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(600)]

LAB = LabOptions(name="change", hosts=3, topology=TWO_LANS, packages=wireguard.PACKAGES)
"""host1 and host3 are on one LAN, host2 is on the other."""
EVERY_S = 0.01
SETTLED = 50
CHANGES = (("vxlan", ("--backend-options", "DirectRouting=true")), ("wireguard", ()))


@dataclass
class Way:
    """A ping from a container to one of another host.

    Attributes:
        lost: How many were lost so far.
    """

    name: str
    same_link: bool
    pinger: Pinger
    lost: int = 0
    steps: list[int] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.pinger.replies)

    def end_step(self) -> None:
        """Note what was lost since the last call."""
        missed = len(self.pinger.missed())
        self.steps.append(missed - self.lost)
        self.lost = missed


def fields_of(host: Host, name: str) -> set[str | None]:
    return {each[name] for each in host.leases()}


def go_on(ways: list[Way]) -> None:
    """Wait for some more answers on each way that has any."""
    before = {way.name: way.answered for way in ways if way.answered}
    for way in ways:
        if way.name in before:
            wait_until(
                lambda way=way: way.answered >= before[way.name] + SETTLED,  # type: ignore[misc]
                30,
                f"{way.name} to be answered",
            )


def test_each_step_of_two_changes_loses_at_most_one_packet_on_the_same_link(mesh: Lab) -> None:
    one, far, near = (mesh.hosts[name] for name in ("host1", "host2", "host3"))
    addresses = {host.name: str(host.start_container("web")) for host in (one, far, near)}
    pairs = [(one, near, True), (near, one, True), (one, far, False), (far, one, False)]
    ways = [
        Way(
            f"{source.name} to {target.name}",
            same_link,
            Pinger(source, addresses[target.name], container="web", every_s=EVERY_S),
        )
        for source, target, same_link in pairs
    ]
    steps: list[str] = []
    try:
        wait_until(lambda: all(way.answered > SETTLED for way in ways[:2]), 30, "the first pings")
        assert not any(way.answered for way in ways[2:]), "host-gw leads to no other link"
        for backend, options in CHANGES:
            before = one.leases()[0]["backend"]
            for step, key, wanted in (
                ("prepare", "accepted_backend", backend),
                ("switch", "backend", backend),
                ("finish", "accepted_backend", None),
            ):
                words = options if step == "prepare" else ()
                one.agentctl("config", "set", "--backend", backend, *words, f"--{step}")
                wait_until(
                    lambda key=key, wanted=wanted: fields_of(one, key) == {wanted},  # type: ignore[misc]
                    60,
                    f"every host to follow {step} of {backend}",
                )
                go_on(ways)
                steps.append(f"{before} to {backend}, {step}")
                for way in ways:
                    way.end_step()
        assert all(way.answered for way in ways)
    finally:
        for way in ways:
            way.pinger.stop()
            print(f"{way.name}: {way.answered} answers")
        for at, name in enumerate(steps):
            print(name, {way.name: way.steps[at] for way in ways})
        for host in (one, far, near):
            host.remove_container("web")
    for way in ways:
        assert not way.same_link or max(way.steps) <= 1, way
