"""Clocks that jump and hosts that sleep change nothing: TTLs are etcd's, waits are monotonic."""

from __future__ import annotations

import contextlib
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.model import Lease
from agent.registry.registry import Registry
from tests.etcd.support.etcdlab import Etcd, host, request
from tests.etcd.support.hostprocess import Member
from tests.waiting import eventually

pytestmark = pytest.mark.etcd

_DAY_S = 86_400
_BEAT_S = 3  # short, so that many are due in a test; the settings file allows 5 and more
_LEASE_S = 4

_PRELOAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile int64_t *ahead(void) {
    static volatile int64_t *shared;
    if (!shared) {
        int fd = open(getenv("WALL_CLOCK_AHEAD"), O_RDONLY);
        shared = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    }
    return shared;
}

int clock_gettime(clockid_t id, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, found);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) found->tv_sec += *ahead();
    return code;
}

int gettimeofday(struct timeval *found, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(found, zone);
    found->tv_sec += *ahead();
    return code;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """The wall clock of a process, set while it runs by a library that it is started with."""

    def __init__(self, folder: Path) -> None:
        self._ahead = folder / "ahead"
        self.set(0)
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_PRELOAD)
        command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self.env = {"LD_PRELOAD": str(library), "WALL_CLOCK_AHEAD": str(self._ahead)}

    def set(self, ahead_s: int) -> None:
        """From now on that far ahead of the truth; a negative number: behind."""
        if not self._ahead.exists():
            self._ahead.write_bytes(bytes(8))
        with self._ahead.open("r+b") as file:
            file.write(struct.pack("=q", ahead_s))


def _member(etcd: Etcd, prefix: str, **more: object) -> Member:
    return Member(etcd, prefix=prefix, ttl_s=_LEASE_S, beat_s=_BEAT_S, **more)  # type: ignore[arg-type]


def _renewals(mesh: Registry, seconds: float) -> list[Lease | None]:
    """The host's lease each 0.2 s for a while; never without a heartbeat."""
    seen = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        view = mesh.snapshot()
        assert view.heartbeats, "the heartbeat lapsed"
        seen.append(view.lease_of(host(1)))
        time.sleep(0.2)
    return seen


@pytest.mark.parametrize(
    "jumps_s",
    [
        pytest.param((2 * _DAY_S, -3 * _DAY_S), id="days"),
        pytest.param((-3650 * _DAY_S, 3650 * _DAY_S), id="years", marks=pytest.mark.full),
    ],
)
def test_promise_2_wall_clock_jumps_change_nothing(
    shared_etcd: Etcd, prefix: str, mesh: Registry, tmp_path: Path, jumps_s: tuple[int, ...]
) -> None:
    clock = WallClock(tmp_path)
    with _member(shared_etcd, prefix, env=clock.env) as member:
        held = eventually(member.lease)
        eventually(lambda: mesh.snapshot().heartbeats)
        for ahead_s in jumps_s:
            clock.set(ahead_s)
            seen = _renewals(mesh, _LEASE_S + 1)
            assert {str(each.subnet) for each in seen if each} == {held["lease"]}
            assert None not in seen
            # It was renewed meanwhile, and the jump did arrive: times are for display.
            last = seen[-1]
            assert last is not None
            assert last.etcd_lease_id == held["etcd_lease"]
            assert abs((last.renewed_s or 0) - time.time() - ahead_s) < _LEASE_S
        assert {each["lease"] for each in member.said("lease")} == {held["lease"]}
        assert [each for each in member.said("problem") if each["problem"]] == []


@pytest.mark.full
@pytest.mark.parametrize("uptime_s", [0, 10 * 365 * _DAY_S], ids=["just booted", "ten years up"])
def test_promise_2_whatever_the_uptime_the_lease_is_renewed_in_time(
    shared_etcd: Etcd, prefix: str, mesh: Registry, uptime_s: int
) -> None:
    """A time namespace: the offsets of CLOCK_MONOTONIC and CLOCK_BOOTTIME are the kernel's own."""
    under = ["unshare", "--time", "--fork", "--kill-child"]
    for name, clock in (("boottime", time.CLOCK_BOOTTIME), ("monotonic", time.CLOCK_MONOTONIC)):
        under += [f"--{name}", str(uptime_s - int(time.clock_gettime(clock)))]
    with _member(shared_etcd, prefix, under=under) as member:
        held = eventually(member.lease)
        eventually(lambda: mesh.snapshot().heartbeats)
        seen = _renewals(mesh, 2 * _LEASE_S)
        assert {str(each.subnet) for each in seen if each} == {held["lease"]}
        assert len({each.mod_revision for each in seen if each}) > 10  # a 24th of the TTL each


@contextlib.contextmanager
def _asleep(member: Member, mesh: Registry) -> Iterator[None]:
    """Suspended until its heartbeat and its lease have run out."""
    member.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: not mesh.snapshot().leases and not mesh.snapshot().heartbeats)
        yield
    finally:
        member.process.send_signal(signal.SIGCONT)


@pytest.mark.full
def test_promise_2_a_host_that_slept_past_its_ttl_has_its_subnet_again_at_once(
    shared_etcd: Etcd, prefix: str, mesh: Registry
) -> None:
    with _member(shared_etcd, prefix) as member:
        held = eventually(member.lease)
        with _asleep(member, mesh):
            pass
        again = eventually(lambda: mesh.snapshot().lease_of(host(1)), timeout_s=3)
        assert str(again.subnet) == held["lease"]
        eventually(lambda: mesh.snapshot().heartbeats, timeout_s=3)
        assert all(each["conditions"] == [] for each in member.said("lease"))


def test_promise_1_a_host_that_slept_past_its_ttl_never_overwrites_the_new_owner(
    shared_etcd: Etcd, prefix: str, mesh: Registry
) -> None:
    with _member(shared_etcd, prefix) as member:
        held = eventually(member.lease)
        with _asleep(member, mesh):
            wanted = replace(request(9), wanted=IPv4Network(held["lease"]))
            taken = mesh.claim(wanted)
            assert str(taken.subnet) == held["lease"]
        eventually(lambda: member.lease()["conditions"] == ["lease-taken"], timeout_s=15)
        assert member.lease()["lease"] is None  # it announces nothing that it does not own
        assert mesh.snapshot().leases == (taken,)
