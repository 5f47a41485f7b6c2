"""Every verb of agentctl: its name, help, arguments, and the function that runs it.

A verb's module is imported when it runs. A new verb is a row of VERBS and a module in
agent.ctl.verbs; a new option is an :class:`Argument` of its row.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from agent.settings.text import shown

if TYPE_CHECKING:
    from agent.ctl.context import Context

__all__ = ["BACKEND_OPTIONS", "CONFIG_OPTIONS", "GROUPS", "VERBS", "Argument", "Verb", "seconds"]

_RESTART_S = 180.0  # Docker may restart, fail, and be restarted with the previous settings
_LOOK_S = 60.0
_MAX_TIMEOUT_S = 86_400.0


def seconds(text: str) -> float:
    """Return the seconds of ``60``, ``60s`` or ``2m``. Raises ArgumentTypeError."""
    number, unit_s = text, 1.0
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(suffix):
            number, unit_s = text.removesuffix(suffix), factor
            break
    try:
        value = float(number) * unit_s
    except ValueError:
        value = math.nan
    if not 0 < value <= _MAX_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"must be a time such as 30s, not {shown(text)}")
    return value


class Argument(NamedTuple):
    """One argument of a verb. No dataclass: importing those takes longer than parsing.

    Attributes:
        name: "--follow" for an option; "PEER" for a positional argument, "[FILE]" for one that
            may be left out.
        help: One line.
        form: "" is a flag, "a|b" a choice; else what an option takes, such as "TIME". "HOST…" may
            be repeated, and its value is a list or None.
    """

    name: str
    help: str
    form: str = ""

    @property
    def field(self) -> str:
        """Name of the value in the parsed command line."""
        return self.name.strip("-[]").replace("-", "_").lower()


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: Such as "leases" or "config init".
        summary: One line of help.
        code: Module in agent.ctl.verbs, and ":" and the function in it unless that is ``run``.
        arguments: The verb's own.
        timeout_s: How long to wait without --timeout.
        hidden: For programs (completion), not for --help.
        reads_settings: Reports every mistake in agent.toml, even while the agent answers.
    """

    name: str
    summary: str
    code: str
    arguments: tuple[Argument, ...] = ()
    timeout_s: float = 15.0
    hidden: bool = False
    reads_settings: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The name's parts."""
        return tuple(self.name.split(" "))

    def load(self) -> Callable[[Context], int]:
        """Import the function that runs the verb and returns the exit status."""
        module, _, function = self.code.partition(":")
        found: Callable[[Context], int] = getattr(
            importlib.import_module(f"agent.ctl.verbs.{module}"), function or "run"
        )
        return found


_WATCH = Argument(
    "--watch", "refresh until Ctrl-C or --timeout; off a terminal, print one line per change"
)
_DRY_RUN = Argument("--dry-run", "check and report, write nothing")
_HOST = "the host's name, address, subnet or id"
_CONTAINER = "a container (NAME, NAME.NETWORK, NAME@HOST, or the start of its id), or an address"
_ACCESS = Argument(
    "--access", "which user-defined networks the mesh reaches", "open|published|closed"
)
_NAMES = Argument(
    "--names", "names of containers and hosts: on (hostmesh.internal), off, or a domain", "DOMAIN"
)

CONFIG_OPTIONS = (
    Argument("--cidr", "range of the whole mesh", "CIDR"),
    Argument("--subnet-len", "prefix length of each new subnet", "N"),
    Argument("--subnet-min", "the first subnet for new leases", "ADDRESS"),
    Argument("--subnet-max", "the last subnet for new leases", "ADDRESS"),
    _ACCESS,
    Argument("--level", "newest record format to publish, once every host can read it", "N"),
    Argument("--owners", "whether a lease needs the owner record of its host", "required|optional"),
    Argument("--flannel", "whether leases of flannel hosts count", "allow|refuse"),
    Argument("--etcd-containers", "whether containers may reach etcd", "allow|closed"),
    Argument("--networks", "whether a label without a record counts", "any|declared"),
    _NAMES,
    Argument("--move", "keep the old CIDR in use until its hosts have moved"),
    Argument("--finish", "end a move or, with --backend, its change: give the previous one up"),
)
"""Options of ``config set``, each a field of :class:`agent.mesh.config_change.ConfigWish` of that
name; agent.ctl.verbs.config.change converts the value by its form."""

BACKEND_OPTIONS = (
    Argument("--backend-options", "options of that backend, such as VNI=7,Port=4789", "OPTIONS"),
    Argument("--prepare", "with --backend, only this step: every host accepts it, too"),
    Argument("--switch", "with --backend, only this step: every host sends by it"),
    Argument("--force", "with --backend: go on; hosts that cannot follow are cut off"),
)
"""Options that need --backend."""

VERBS = (
    Verb(
        "status",
        "show this host on one screen, with every condition",
        "status",
        (_WATCH,),
        reads_settings=True,
    ),
    Verb("leases", "list every host's subnet, and whether the host is alive", "leases", (_WATCH,)),
    Verb(
        "containers",
        "list the running containers of every host",
        "containers",
        (
            Argument("[PATTERN]", "of names of containers or services, with * and ?"),
            Argument("--host", "only this host's, by its name or id", "HOST"),
        ),
    ),
    Verb(
        "names",
        "list names of containers and hosts, and which are shadowed",
        "names",
        (Argument("[PATTERN]", "a name with * and ?, with or without the domain; or a host"),),
    ),
    Verb(
        "resolve",
        "ask this host's name servers for a name, and say why they answer so",
        "resolve",
        (
            Argument("NAME", "such as api.web; a short name gets the mesh's domain"),
            Argument("--from", "ask as this container of this host", "CONTAINER"),
        ),
    ),
    Verb("routes", "list mesh routes on this host: expected and installed", "routes"),
    Verb(
        "doctor",
        "check whether this host can join, and list what joining would do; changes nothing",
        "diagnose.doctor",
        (
            Argument(
                "--probe",
                "also ask a peer from a container's address; a host that is no member claims a"
                " subnet for that and releases it",
            ),
        ),
        _LOOK_S,
    ),
    Verb("diff", "list what the agent would change: 0 nothing, 1 something, 3 unknown", "diff"),
    Verb("map", "draw this host, its links and its peers", "diagnose.map"),
    Verb(
        "ping",
        "check the path to another host or a container there",
        "diagnose.ping",
        (Argument("PEER", f"{_HOST}, or a container: NAME, NAME.NETWORK or NAME@HOST"),),
    ),
    Verb(
        "trace",
        "show how a packet gets from SRC to DST",
        "diagnose.trace",
        (
            Argument("SRC", _CONTAINER),
            Argument("DST", "the same"),
            Argument("--tcp", "of a connection to this port, in place of a ping", "PORT"),
            Argument(
                "--capture",
                "send a ping from SRC and show it on every link; if SRC is not on this host, wait"
                " for packets (root)",
            ),
        ),
    ),
    Verb(
        "bugreport",
        "collect everything for a bug report, without secrets",
        "diagnose.bugreport",
        (
            Argument(
                "[FILE]",
                "archive to write, or - for standard output (hostmesh-bugreport-TIME.tar.gz)",
            ),
        ),
        _LOOK_S,
    ),
    Verb(
        "events",
        "list what happened on this host",
        "diagnose.events",
        (
            Argument("--follow", "print new ones until Ctrl-C or --timeout"),
            Argument("--since", "only those of the last TIME, such as 1h", "TIME"),
        ),
    ),
    Verb(
        "config init",
        "create the mesh",
        "config.mesh:init",
        (
            Argument("--cidr", "range of the whole mesh; without it a range is proposed", "CIDR"),
            Argument("--subnet-len", "prefix length of each subnet (16)", "N"),
            Argument("--backend", "how packets travel: host-gw, vxlan, wireguard", "NAME"),
            _ACCESS,
            _NAMES._replace(help=f"{_NAMES.help} (on)"),
            Argument("--yes", "create the proposed mesh without asking"),
        ),
    ),
    Verb("config show", "show the mesh's config as it is in etcd", "config.mesh:show"),
    Verb(
        "config set",
        "change the mesh while it runs",
        "config.change",
        (
            *CONFIG_OPTIONS,
            Argument("--backend", "how packets travel: change it in three steps, waiting", "NAME"),
            *BACKEND_OPTIONS,
            _DRY_RUN,
        ),
        _RESTART_S,
    ),
    Verb(
        "reserve",
        "keep a subnet for a host; without arguments list the reservations",
        "reserve",
        (
            Argument("[HOST]", _HOST),
            Argument("[SUBNET]", "the subnet to keep for it"),
            Argument("--delete", "delete this reservation", "SUBNET"),
            _DRY_RUN,
        ),
    ),
    Verb(
        "remove",
        "delete another host's subnet and history",
        "reserve:remove",
        (Argument("HOST", _HOST), Argument("--force", "even if it is alive"), _DRY_RUN),
    ),
    Verb(
        "network create",
        "create a network that spans hosts, and wait until they have it",
        "network.change:create",
        (
            Argument("NAME", "lower-case letters, digits and hyphens"),
            Argument(
                "--access",
                "how much of it other networks reach; else as the config says",
                "open|published|closed",
            ),
            Argument(
                "--host",
                "a host, or a pattern of names with * and ?, that has it (all); may be repeated",
                "HOST…",
            ),
            Argument("--size", "prefix length of each host's part (/24)", "LENGTH"),
            _DRY_RUN,
        ),
    ),
    Verb("network ls", "list the networks that span hosts", "network.show:ls"),
    Verb(
        "network inspect",
        "show a network, and each host's part of it",
        "network.show:inspect",
        (Argument("NAME", "the network"),),
    ),
    Verb(
        "network rm",
        "remove a network from every host where no container is attached",
        "network.change:rm",
        (Argument("NAME", "the network"), _DRY_RUN),
    ),
    Verb("join", "join again after a leave", "actions:join"),
    Verb(
        "leave",
        "release this host's subnet and stay out until join",
        "actions:leave",
        (Argument("--force", "even if Docker must restart while containers run"),),
        _RESTART_S,
    ),
    Verb(
        "cleanup",
        "remove Hostmesh's routes, rules and Docker settings here; keep the subnet",
        "actions:cleanup",
    ),
    Verb("etcd accept", "accept etcd's data after an alarm", "actions:accept"),
    Verb(
        "docker restart",
        "restart Docker if it needs a restart",
        "actions:restart",
        (
            Argument("--now", "restart even while containers run; without it nothing is done"),
            Argument("--yes", "do not ask, even if containers will stop"),
            Argument("--replace", "replace a bip or pools that you set; leave restores them"),
        ),
        _RESTART_S,
    ),
    Verb("reload", "make the agent read its settings again", "actions:reload"),
    Verb(
        "firewall show",
        "show Hostmesh's firewall rules as installed",
        "firewall:show",
        (Argument("--dry-run", "show the input of iptables-restore; nothing when all is right"),),
    ),
    Verb(
        "wait",
        "wait until this host is ready",
        "wait",
        (
            Argument("--ready", "until containers are on the mesh (the default)"),
            Argument(
                "--docker-config",
                "until a Docker that starts now gets the subnet, or cannot get it",
            ),
        ),
        _RESTART_S,
    ),
    Verb("version", "show the versions of agentctl and of the agent", "version"),
    Verb(
        "completion",
        "print a completion script for a shell",
        "completion",
        (Argument("SHELL", "the shell", "bash|zsh|fish"),),
    ),
    Verb("complete-hosts", "print the names of hosts", "completion:hosts", hidden=True),
)

GROUPS = {
    "config": "show or change the mesh's config",
    "docker": "restart Docker on this host",
    "etcd": "accept etcd's data after an alarm",
    "firewall": "show the firewall on this host",
    "network": "create, show or remove networks that span hosts",
}
