"""hostmesh-agent: parse flags, read settings, run the loop until it is stopped."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from agent import __version__
from agent.errors import HostmeshError, NotRoot, SettingsError, UsageError
from agent.progress import Progress
from agent.settings import DEFAULT_PATH, SECTIONS, Settings, load_settings, overrides_from_flags
from agent.settings.place import named_file
from agent.settings.text import forgive, printable

__all__ = ["main", "parser"]

_INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run hostmesh-agent; return the exit status (docs/exit-status.md)."""
    forgive(sys.stdout, sys.stderr)
    arguments = parser().parse_args(argv)
    try:
        return _do(arguments)
    except SettingsError as error:
        for problem in error.problems:
            print(f"hostmesh-agent: {problem}", file=sys.stderr)
        _hint(error)
        return error.exit_code
    except HostmeshError as error:
        print(f"hostmesh-agent: {error.message}", file=sys.stderr)
        _hint(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - the top of a thread
        import structlog  # noqa: PLC0415 # --check and --help need no log

        # systemd starts the agent again, and until then routes and rules stay (promise 3).
        structlog.get_logger("agent").exception("agent-failed")
        return _INTERNAL_ERROR


def _do(arguments: argparse.Namespace) -> int:
    overrides = overrides_from_flags(arguments.set)
    if arguments.etcd:
        overrides["etcd.endpoints"] = arguments.etcd
    if arguments.log_level:
        overrides["log.level"] = arguments.log_level
    if arguments.settings is not DEFAULT_PATH and arguments.command != "join":  # join writes it
        _require(arguments.settings)
    load = partial(load_settings, arguments.settings, os.environ, overrides)
    if arguments.host_id:
        from agent.registry.own.identity import own_host_id  # noqa: PLC0415 # as below

        # Certificates of [etcd] may not be there yet: they are made for this id.
        print(own_host_id(load(only=("agent", "host"))))
        return 0
    if arguments.command == "join":
        return _join(load(only=SECTIONS.keys() - {"etcd"}), arguments)
    settings = load()
    if arguments.check:
        for note in settings.notes:
            print(f"hostmesh-agent: note: {note}", file=sys.stderr)
        print(f"hostmesh-agent: {settings.path}: settings are good")
        return 0
    return _run(settings, load, arguments)


def _require(path: Path) -> None:
    try:
        named_file(str(path))
    except argparse.ArgumentTypeError as error:
        raise UsageError(
            f"--settings: {error}", hint=f"without --settings it is {DEFAULT_PATH}"
        ) from None


def _run(settings: Settings, load: Callable[[], Settings], arguments: argparse.Namespace) -> int:
    from agent import log  # noqa: PLC0415 # --check and --help need no other package

    # SIGABRT is what systemd's watchdog sends: every thread's stack goes to the log.
    faulthandler.enable()
    configure_log = partial(
        log.configure,
        stream=sys.stderr,
        is_tty=sys.stderr.isatty(),
        journald="JOURNAL_STREAM" in os.environ,
    )
    configure_log(settings.log)
    if os.geteuid() != 0:
        raise NotRoot(
            "hostmesh-agent changes routes, rules and Docker's configuration and needs root",
            hint="start it with systemctl start hostmesh-agent, or with sudo",
        )
    if arguments.once:
        from agent.standalone.once import run_once  # noqa: PLC0415 # the same

        with closing(Progress(sys.stderr)) as progress, progress.waiting_for("etcd and the kernel"):
            status, lines = run_once(settings, dry_run=arguments.dry_run)
        for line in lines:
            print(printable(line))
        return status
    from agent.daemon.app import run_forever  # noqa: PLC0415 # the same
    from agent.daemon.core.reload import Source  # noqa: PLC0415 # the same

    return run_forever(settings, Source(load, configure_log))


def _join(settings: Settings, arguments: argparse.Namespace) -> int:
    from agent.standalone.token_join import join_with_token  # noqa: PLC0415 # imports every package

    changed = False
    for line in join_with_token(
        arguments.file, settings, replace=arguments.replace, dry_run=arguments.dry_run
    ):
        changed = True
        print(printable(line))
    if not changed:
        print("nothing to do: this host has all that the token says")
    elif not arguments.dry_run:
        print(f"now: systemctl restart hostmesh-agent, and delete {printable(str(arguments.file))}")
    return 0


def _hint(error: HostmeshError) -> None:
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the command line of hostmesh-agent; its man page is made of it, too."""
    found = argparse.ArgumentParser(
        prog="hostmesh-agent",
        description="Lease a subnet from etcd, give it to Docker, and keep routes and firewall"
        " as all hosts' leases say.",
        epilog="Settings are read from the file, then from HOSTMESH_<SECTION>_<KEY> in the"
        " environment, then from flags. Every setting: docs/settings.md.",
    )
    found.add_argument(
        "--settings",
        type=Path,
        default=DEFAULT_PATH,
        metavar="FILE",
        help=f"settings file (default {DEFAULT_PATH})",
    )
    found.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; may be given again",
    )
    found.add_argument("--etcd", metavar="URLS", help="same as --set etcd.endpoints=URLS")
    found.add_argument("--log-level", metavar="LEVEL", help="same as --set log.level=LEVEL")
    found.add_argument("--check", action="store_true", help="validate the settings and exit")
    found.add_argument(
        "--host-id",
        action="store_true",
        help="print this host's id, by which etcd knows it, and exit",
    )
    found.add_argument(
        "--once",
        action="store_true",
        help="reconcile this host's kernel once from etcd and exit; claims nothing",
    )
    found.add_argument(
        "--dry-run", action="store_true", help="with --once: print what would be done, do nothing"
    )
    _add_commands(found)
    found.add_argument("--version", action="version", version=f"hostmesh {__version__}")
    return found


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="[COMMAND]", title="commands")
    join = commands.add_parser(
        "join",
        help="make this host the one that a token was made for (agentctl token create)",
        description="Install a token: etcd's endpoints, this host's account there, and its id."
        " Run again, it completes what an earlier run began.",
    )
    join.add_argument("file", type=Path, metavar="FILE", help="the token, which only root may read")
    join.add_argument(
        "--replace",
        action="store_true",
        help="give up another id, account or etcd of this host; first: agentctl leave",
    )
    join.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="check everything, say what would be written, write nothing",
    )
