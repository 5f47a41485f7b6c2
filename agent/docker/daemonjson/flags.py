"""dockerd's flags: read from a command line, and written for a check of daemon.json. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Flags", "for_validation", "parse_flags"]

_SHORT: Final = {
    "b": "bridge",
    "D": "debug",
    "G": "group",
    "H": "host",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
}
_PLURALS: Final = {
    "authorization-plugin": "authorization-plugins",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}
"""Flags that may be given more than once have a key of another name."""

_VALUES = """
    add-runtime authorization-plugin bip bridge cgroup-parent config-file containerd data-root
    default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode
    default-network-opt default-runtime default-shm-size default-ulimit dns dns-opt dns-search
    exec-opt exec-root firewall-backend fixed-cidr fixed-cidr-v6 group host host-gateway-ip
    insecure-registry ip label log-driver log-level log-opt max-concurrent-downloads
    max-concurrent-uploads max-download-attempts metrics-addr mtu network-control-plane-mtu
    node-generic-resource oom-score-adjust pidfile registry-mirror seccomp-profile
    shutdown-timeout storage-driver storage-opt tlscacert tlscert tlskey userland-proxy-path
    userns-remap
"""
"""Flags that take the next argument as their value (cmd/dockerd/config.go of 20.10 to 29)."""

_SWITCHES = """
    allow-direct-routing debug experimental icc init ip-forward ip-forward-no-drop ip-masq
    ip6tables iptables ipv6 live-restore no-new-privileges raw-logs selinux-enabled tls tlsverify
    userland-proxy
"""
"""Flags whose value can only be given with "="; alone they mean true."""

_TAKE_VALUE: Final = frozenset(_VALUES.split())
_ARE_SWITCHES: Final = frozenset(_SWITCHES.split())
_NOT_FOR_VALIDATION: Final = frozenset({"config-file", "pidfile"})


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of a dockerd, under daemon.json's names.

    Attributes:
        values: Of the flags that are known here, as given, in order.
        names: Of all that were given.
    """

    values: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()

    def get(self, name: str) -> tuple[str, ...]:
        """Return all values that were given for ``name``."""
        return tuple(value for key, value in self.values if key == name)


def parse_flags(argv: Sequence[str]) -> Flags:
    """Return the flags in a dockerd command line, ``argv[0]`` included.

    Understands ``--bip=X``, ``--bip X``, ``-b X``, ``-bX`` and ``-H X``, as dockerd does.
    """
    found: list[tuple[str, str]] = []
    names: list[str] = []
    rest = list(argv[1:])
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            continue
        name, value = _named(argument)
        key = _PLURALS.get(name, name)
        names.append(key)
        if name in _ARE_SWITCHES:
            found.append((key, "true" if value is None else value))
        elif name in _TAKE_VALUE and (value is not None or rest):
            found.append((key, rest.pop(0) if value is None else value))
    return Flags(tuple(found), tuple(dict.fromkeys(filter(None, names))))


def _named(argument: str) -> tuple[str, str | None]:
    """Return a flag's long name and the value in the same argument, None without one."""
    if argument.startswith("--"):
        name, equals, value = argument[2:].partition("=")
        return name, value if equals else None
    name, value = _SHORT.get(argument[1:2], ""), argument[2:].removeprefix("=")
    return name, None if name in _ARE_SWITCHES else value or None  # -Dl is two switches


def for_validation(flags: Flags) -> tuple[str, ...]:
    """Return ``flags`` as arguments for ``dockerd --validate``.

    Each is one argument of a known name: a flag that takes the next argument as its value could
    take ``--validate`` itself, and a second dockerd would start.
    """
    singulars = {plural: name for name, plural in _PLURALS.items()}
    return tuple(
        f"--{singulars.get(key, key)}={value}"
        for key, value in flags.values
        if key not in _NOT_FOR_VALIDATION
    )
