"""A real systemd-networkd in a host's namespace, with its own /etc/systemd, /run and bus."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.netns.netlab import Host

_PROGRAMS = ("/lib/systemd/systemd-networkd", "dbus-daemon", "networkctl")
_SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/systemd
mount -t sysfs -o ro sysfs /sys
mkdir -p /run/dbus /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp \
    /etc/systemd/network /etc/systemd/networkd.conf.d
chown -R systemd-network:systemd-network /run/systemd/netif
printf '%s' "$1" >/etc/systemd/network/10-eth0.network
printf '%s' "$2" >/etc/systemd/networkd.conf.d/50-test.conf
dbus-daemon --system --nofork --nopidfile >/dev/null 2>&1 &
bus=$!
/lib/systemd/systemd-networkd >/dev/null 2>&1 &
networkd=$!
trap 'kill $networkd $bus; wait' EXIT
until networkctl status eth0 2>/dev/null | grep -q 'State: routable'; do
    kill -0 $networkd
    sleep 0.05
done
echo up
while read -r command; do $command && echo done; done
"""
NETWORK = """
[Match]
Name=eth0
[Network]
Address=192.0.2.1/24
Gateway=192.0.2.254
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


def missing() -> str:
    """Which program this machine lacks for it, "" when none."""
    return next((each for each in _PROGRAMS if shutil.which(each) is None), "")


class Networkd:
    """It keeps eth0 at 192.0.2.1/24 with a default gateway."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def root(self) -> Path:
        """Its file system, as the programs of this host see it."""
        return Path(f"/proc/{self._process.pid}/root")

    def reconfigure(self) -> None:
        """``networkctl reconfigure eth0``, as an operator does who changed its file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("networkctl reconfigure eth0\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def networkd(host: Host, conf: str = "") -> Iterator[Networkd]:
    """Run it in ``host``; ``conf`` is a drop-in of its networkd.conf."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _SCRIPT, "sh", NETWORK, conf],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with host.call(start) as process:  # its input's end ends it
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield Networkd(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
