"""Parse the command line of hostmesh-deploy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from agent.deploy.folder import Host
from agent.errors import UsageError
from agent.model import BACKENDS
from agent.model.family import read_address, read_network

__all__ = ["as_members", "parse", "parse_cidr", "parse_hosts", "parser"]

DEFAULT_FOLDER = Path("hostmesh-mesh")
_SPEC = re.compile(
    r"(?:(?P<name>[^=@]+)=)?(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<address>[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# hosts.sh has folders of the first two; Ansible has groups and a host of the others.
_TAKEN = ("operator", "admin", "all", "ungrouped", "localhost", "targets", "etcd_members")
_EPILOG = """\
examples:
  hostmesh-deploy up --hosts root@web1,root@web2,root@web3 --with-etcd web1,web2,web3
  hostmesh-deploy up --hosts root@web1,root@web2 --etcd http://10.0.0.5:2379 --dry-run
  hostmesh-deploy add root@web4
  hostmesh-deploy upgrade --package dist/hostmesh_0.2.0_trixie_amd64.deb
  hostmesh-deploy remove web4
  hostmesh-deploy status
Everything about it: docs/install.md. Exit statuses: docs/exit-status.md."""


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` with a hint."""
        raise UsageError(message, hint=f"{self.prog} --help")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; ``verb`` is None when there is none.

    Raises:
        UsageError: It is wrong.
    """
    made = parser()
    args = made.parse_args(argv)
    args.help_text = made.format_help()
    return args


def parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    how: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    top = _Parser(
        prog="hostmesh-deploy",
        description="Make a mesh of hosts that ssh reaches, and keep it.",
        epilog=_EPILOG,
        **how,
    )
    top.set_defaults(verb=None)
    verbs = top.add_subparsers(metavar="VERB", title="verbs", parser_class=_Parser)

    def add(name: str, text: str, *, changes: bool = True) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **how)
        verb.set_defaults(verb=name, dry_run=False, yes=True)
        verb.add_argument(
            "--folder", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER",
            help=f"what this mesh needs to be kept: hosts, keys, logs ({DEFAULT_FOLDER})",
        )  # fmt: skip
        verb.add_argument("--ssh-key", default="", metavar="FILE", help="private key for ssh")
        verb.add_argument(
            "--accept-host-keys", action="store_true", help="trust host keys that ssh does not know"
        )
        if changes:
            verb.add_argument("--yes", action="store_true", help="do not ask")
            verb.add_argument(
                "--dry-run", action="store_true", help="check and list, change nothing"
            )
        return verb

    up = add("up", "make the mesh, or complete and repair it")
    _add_up(up)
    more = add("add", "add hosts to the mesh")
    more.add_argument("hosts", nargs="+", metavar="HOST", help="[NAME=][USER@]ADDRESS[:PORT]")
    _add_packages(more)
    less = add("remove", "take a host out of the mesh")
    less.add_argument("host", metavar="HOST", help="its name")
    less.add_argument("--gone", action="store_true", help="it is not there any more: do not ask it")
    less.add_argument(
        "--restart-docker", action="store_true", help="restart its Docker while containers run"
    )
    _add_packages(add("upgrade", "install another version, host by host, while all are healthy"))
    status = add("status", "show every host and etcd", changes=False)
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return top


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument(
        "--hosts", default="", metavar="HOST,HOST", help="hosts: [NAME=][USER@]ADDRESS[:PORT]"
    )
    up.add_argument(
        "--with-etcd", default="", metavar="NAME,NAME",
        help="make these hosts members of an etcd with TLS and accounts: NAME[=ADDRESS]",
    )  # fmt: skip
    up.add_argument("--etcd", nargs="+", default=[], metavar="URL", help="or use this etcd")
    up.add_argument("--etcd-ca", default="", metavar="FILE", help="its CA")
    up.add_argument("--etcd-user", default="", metavar="NAME", help="its account for all hosts")
    up.add_argument("--etcd-password-file", default="", metavar="FILE", help="that one's password")
    up.add_argument("--cidr", default="", help="range of the whole mesh (a free one is proposed)")
    up.add_argument("--backend", choices=BACKENDS, default="", help="how packets travel (host-gw)")
    up.add_argument(
        "--settings", default="", metavar="FILE", help="more of agent.toml, for each host"
    )
    up.add_argument(
        "--restart-docker", action="store_true", help="restart Docker even where containers run"
    )
    _add_packages(up)


def _add_packages(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--package", action="append", default=[], metavar="FILE",
        help="a .deb, one for each release of Debian (looked for in . and ./dist)",
    )  # fmt: skip
    verb.add_argument(
        "--apt", default="", metavar="LINE",
        help="install from apt: a line for sources.list, or `configured`",
    )  # fmt: skip
    verb.add_argument("--apt-key", default="", metavar="FILE", help="the key of that repository")


def parse_hosts(texts: Sequence[str]) -> tuple[Host, ...]:
    """Return the hosts that are named, each [NAME=][USER@]ADDRESS[:PORT].

    Raises:
        UsageError: One cannot be meant, or a name is used twice.
    """
    hosts: list[Host] = []
    for text in texts:
        match = _SPEC.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is no host", hint="[NAME=][USER@]ADDRESS[:PORT]")
        name = match["name"] or match["address"]
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise UsageError(f"{name!r} cannot name a host", hint=f"web1={match['address']}")
        if name in (host.name for host in hosts):
            raise UsageError(f"host {name} is named twice", hint="give each host once")
        port = int(match["port"]) if match["port"] else None
        hosts.append(Host(name, match["address"], match["user"] or "", port))
    return tuple(hosts)


def as_members(hosts: Sequence[Host], text: str) -> tuple[Host, ...]:
    """Return the hosts, some of them members of etcd, each NAME or NAME=ADDRESS.

    A member without an address has "-": the one on its way out is meant.

    Raises:
        UsageError: A member is none of the hosts, or an address is none.
    """
    wanted: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, _, address = part.rpartition("@")[2].partition("=")
        if address:
            try:
                read_address(address)
            except ValueError as error:
                raise UsageError(
                    f"{address} is no address: {error}", hint="--with-etcd NAME=ADDRESS"
                ) from None
        wanted[name] = address or "-"
    unknown = [name for name in wanted if name not in {host.name for host in hosts}]
    if unknown:
        names = ", ".join(host.name for host in hosts)
        raise UsageError(f"{unknown[0]} of --with-etcd is none of --hosts", hint=f"one of: {names}")
    return tuple(replace(host, member_address=wanted.get(host.name, "")) for host in hosts)


def parse_cidr(text: str) -> str:
    """Return a range in its usual spelling.

    Raises:
        UsageError: It is none.
    """
    try:
        return str(read_network(text))
    except ValueError as error:
        raise UsageError(
            f"--cidr {text} is no range: {error}", hint="--cidr 10.64.0.0/10"
        ) from None
