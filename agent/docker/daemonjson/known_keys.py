"""Keys of daemon.json that Docker before 23.0 knows. Pure.

An unknown key stops dockerd. From 23.0 ``dockerd --validate`` says so beforehand
(:mod:`agent.docker.service.validation`); older engines have nothing of the kind, so their keys
are here.
Taken from Docker 20.10.24, which names every key it does not know (a test asks it again).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["KNOWN_TO_20_10", "VALIDATES_SINCE", "unknown_keys"]

VALIDATES_SINCE: Final = (23, 0)

_NAMES: Final = """
add-runtime allow-nondistributable-artifacts api-cors-header authorization-plugins bip bridge
builder cgroup-parent cluster-advertise cluster-store cluster-store-opts config-file containerd
containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd
data-root debug default-address-pools default-cgroupns-mode default-gateway default-gateway-v6
default-ipc-mode default-runtime default-shm-size default-ulimits deprecated-key-path dns
dns-opts dns-search exec-opts exec-root experimental features fixed-cidr fixed-cidr-v6 graph
group help host-gateway-ip hosts icc init init-path insecure-registries ip ip-forward ip-masq
ip6tables iptables ipv6 labels live-restore log-driver log-level log-opts
max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr mtu
network-control-plane-mtu network-diagnostic-port no-new-privileges node-generic-resources
oom-score-adjust pidfile raw-logs registry-mirrors rootless runtimes seccomp-profile
selinux-enabled shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls
tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path userns-remap version
"""

KNOWN_TO_20_10: Final = frozenset(_NAMES.split())


def unknown_keys(names: Iterable[str], version: tuple[int, int] | None) -> tuple[str, ...]:
    """Return the top-level keys that stop an engine before 23.0; none where it is not known."""
    if version is None or version >= VALIDATES_SINCE:
        return ()
    return tuple(name for name in names if name not in KNOWN_TO_20_10)
