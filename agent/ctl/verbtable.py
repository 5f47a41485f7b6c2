"""Every verb of agentctl: what is typed, its help, its arguments, and where its code is.

A verb's module is imported when it runs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agent.settings.text import shown

__all__ = ["CONFIG_OPTIONS", "GROUPS", "VERBS", "Verb", "seconds"]

_RESTART_TIMEOUT_S = 180.0  # dockerd may restart, fail, and be brought back as it was
_MAX_TIMEOUT_S = 86_400.0


def seconds(text: str) -> float:
    """``60``, ``60s`` or ``2m``."""
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


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Most verbs take none of their own."""


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--follow", action="store_true", help="print new ones until Ctrl-C or --timeout"
    )
    parser.add_argument(
        "--since", type=seconds, metavar="TIME", help="only those of the last TIME, such as 1h"
    )


def _ping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="a host: name, subnet, address or id")


def _trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SRC", help="a container of this host (name or id), or an address"
    )
    parser.add_argument("destination", metavar="DST", help="the same; of another host an address")
    parser.add_argument(
        "--capture",
        action="store_true",
        help="send a ping from SRC, or wait for packets if it is not here, and show them on"
        " every link of the way (root)",
    )


def _bugreport(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="archive to write, or - for standard output (hostmesh-bugreport-TIME.tar.gz)",
    )


def _watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        action="store_true",
        help="follow it until Ctrl-C or --timeout; off a terminal, one line for each change",
    )


def _config_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cidr", metavar="CIDR", help="range of the whole mesh; without it one is proposed"
    )
    parser.add_argument("--subnet-len", metavar="N", help="prefix length of each subnet (16)")
    parser.add_argument("--backend", metavar="NAME", help="how packets travel: host-gw, vxlan")
    _, text = CONFIG_OPTIONS["--access"]
    parser.add_argument("--access", choices=("open", "published", "closed"), help=text)
    parser.add_argument("--yes", action="store_true", help="create what is proposed, unasked")


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="check, say what, write nothing")


def _firewall(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="what would be fed to iptables-restore now, nothing when nothing differs",
    )


CONFIG_OPTIONS = {
    "--cidr": ("CIDR", "range of the whole mesh"),
    "--subnet-len": ("N", "prefix length of each new subnet"),
    "--subnet-min": ("ADDRESS", "the first subnet for new leases"),
    "--subnet-max": ("ADDRESS", "the last subnet for new leases"),
    "--backend": ("NAME", "how packets travel between hosts"),
    "--access": ("open|published|closed", "which user-defined networks the mesh reaches"),
    "--level": ("N", "newest record format to publish, once every host can read it"),
    "--move": ("", "keep the old CIDR in use until its hosts have moved"),
    "--finish": ("", "end a move: stop using the CIDRs moved away from"),
}
"""Options of ``config set``, each a field of :class:`~agent.mesh.config_change.ConfigWish` of that
name, with the form of its value and its help. "" is a flag, "a|b" a choice;
agent.ctl.verbs.configset converts the others."""


def _config_set(parser: argparse.ArgumentParser) -> None:
    for flag, (form, text) in CONFIG_OPTIONS.items():
        if not form:
            parser.add_argument(flag, action="store_true", help=text)
        elif "|" in form:
            parser.add_argument(flag, choices=form.split("|"), help=text)
        else:
            parser.add_argument(flag, metavar=form, help=text)
    _dry_run(parser)


def _reserve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="?", metavar="HOST", help="its name, address, subnet or id")
    parser.add_argument("subnet", nargs="?", metavar="SUBNET", help="what to keep for it")
    parser.add_argument("--delete", metavar="SUBNET", help="end this reservation")
    _dry_run(parser)


def _remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="its name, address, subnet or id")
    parser.add_argument("--force", action="store_true", help="even if it is alive")
    _dry_run(parser)


def _leave(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="leave even if Docker must restart under containers"
    )


def _docker_restart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--now",
        action="store_true",
        help="restart dockerd although containers run; without it nothing is done",
    )
    parser.add_argument(
        "--yes", action="store_true", help="restart unasked, whatever containers stop"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace a bip or pools that you had set yourself; leave brings them back",
    )


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also ask a peer from a container's address; a host that is no member claims a"
        " subnet for that and gives it back",
    )


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="whose script to print")


def _wait(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument(
        "--ready", action="store_true", help="until containers are on the mesh (the default)"
    )
    goal.add_argument(
        "--docker-config",
        action="store_true",
        help="until a Docker that starts now gets the lease, or cannot get it as things are",
    )


class Verb(NamedTuple):
    """One verb. No dataclass: importing those takes longer than parsing.

    Attributes:
        words: What is typed: ("leases",) or ("config", "init").
        summary: One line of help.
        module: Module in agent.ctl.verbs that has ``run(context) -> exit status``.
        function: The function in it.
        arguments: Adds the verb's own arguments.
        timeout_s: How long to wait without --timeout.
        hidden: For programs (completion), not for --help.
        reads_settings: Tells every mistake in agent.toml, even while the agent answers.
    """

    words: tuple[str, ...]
    summary: str
    module: str
    function: str = "run"
    arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments
    timeout_s: float = 15.0
    hidden: bool = False
    reads_settings: bool = False


VERBS: tuple[Verb, ...] = (
    Verb(
        ("status",),
        "this host on one screen, with every condition",
        "status",
        arguments=_watch,
        reads_settings=True,
    ),
    Verb(("leases",), "who owns which subnet, and whether they are alive", "leases", "run", _watch),
    Verb(("routes",), "the mesh's routes on this host, wanted or there", "routes"),
    Verb(
        ("doctor",),
        "whether this host can join, and what joining would do; changes nothing",
        "diagnose.doctor",
        "run",
        _doctor,
        60.0,
    ),
    Verb(("diff",), "what differs from what should be: 0 nothing, 1 something, 3 unknown", "diff"),
    Verb(("map",), "this host, its links and its peers, drawn", "diagnose.map"),
    Verb(("ping",), "every step of the way to a peer", "diagnose.ping", "run", _ping),
    Verb(("trace",), "rules, routes and links on a packet's way", "diagnose.trace", "run", _trace),
    Verb(
        ("bugreport",),
        "everything for a bug report, without secrets",
        "diagnose.bugreport",
        "run",
        _bugreport,
        60.0,
    ),
    Verb(("events",), "what happened on this host", "diagnose.events", "run", _events),
    Verb(("config", "init"), "create the mesh", "config", "init", _config_init),
    Verb(("config", "show"), "the mesh's config as it is in etcd", "config", "show"),
    Verb(("config", "set"), "change the mesh while it runs", "configset", arguments=_config_set),
    Verb(
        ("reserve",),
        "keep a subnet for a host; without arguments list what is kept",
        "reserve",
        arguments=_reserve,
    ),
    Verb(("remove",), "retire another host: its lease and memory", "reserve", "remove", _remove),
    Verb(("join",), "join again after a leave", "membership", "join"),
    Verb(
        ("leave",),
        "give the lease back and stay out until join",
        "membership",
        "leave",
        _leave,
        _RESTART_TIMEOUT_S,
    ),
    Verb(("cleanup",), "take ours off this host and keep the lease", "membership", "cleanup"),
    Verb(("etcd", "accept"), "believe etcd again after an alarm", "etcd", "accept"),
    Verb(
        ("docker", "restart"),
        "restart dockerd if it needs it",
        "docker",
        "restart",
        _docker_restart,
        _RESTART_TIMEOUT_S,
    ),
    Verb(("reload",), "have the agent read its settings again", "reload"),
    Verb(("firewall", "show"), "our firewall rules as they stand", "firewall", "show", _firewall),
    Verb(("wait",), "wait until this host is ready", "wait", "run", _wait, _RESTART_TIMEOUT_S),
    Verb(("version",), "versions of agentctl and of the agent here", "version"),
    Verb(("completion",), "a completion script for a shell", "completion", "run", _completion),
    Verb(("complete-hosts",), "names of live hosts", "completion", "hosts", hidden=True),
)

GROUPS = {
    "config": "the mesh's config",
    "docker": "this host's Docker",
    "etcd": "etcd and what is believed of it",
    "firewall": "this host's firewall",
}
