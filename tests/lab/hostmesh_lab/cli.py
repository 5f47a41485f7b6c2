"""The command line: `hostmesh-lab up`, `exec host1 -- COMMAND`, `down` and the rest."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from hostmesh_lab import cli_underlay, paths, state
from hostmesh_lab.demo import run as demo
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images, layers, libc_image
from hostmesh_lab.lab import CIDR, Lab, LabOptions
from hostmesh_lab.machines.kinds import HostOptions
from hostmesh_lab.processes import die_on_sigterm, require_root

_READY_S = 90.0


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, words = _split_command(words)
    arguments = _parser().parse_args(words)
    arguments.command = command
    if "name" in arguments and arguments.name is None:
        arguments.name = state.default_name()
    try:
        act: Callable[[argparse.Namespace], int] = arguments.act
        return act(arguments)
    except LabError as error:
        print(f"hostmesh-lab: {error.line()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hostmesh-lab: interrupted", file=sys.stderr)
        return 130


def _split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments at `--`: the part behind it is for another program."""
    if "--" not in words:
        return [], words
    at = words.index("--")
    return words[at + 1 :], words[:at]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hostmesh-lab",
        description="Several Docker hosts on this machine, in namespaces of their own.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, act: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(act=act)
        command.add_argument("--name", help="which lab (default: the one that is up)")
        return command

    up = add("up", _up, "Make a lab and leave it running.")
    up.set_defaults(name=state.DEFAULT_NAME)
    _add_up(up)
    status = add("status", _status, "List the lab's machines and their services.")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    run = add("exec", _exec, "Run a command on a machine: exec host1 -- docker ps")
    run.add_argument("machine")
    add("etcdctl", _etcdctl, "Run etcdctl against the lab's etcd: etcdctl -- get --prefix /")
    add("join", _join, "Add one more host and print its name.")
    for name, act, text in (
        ("kill", _kill, "Power cut: every process of a machine ends at once, its disk stays."),
        ("start", _start, "Boot a machine that was killed, with the same disk."),
    ):
        add(name, act, text).add_argument("machine")
    add("down", _down, "End the lab and remove everything of it.")
    image = add("image", _image, "Prepare root filesystems only.")
    image.add_argument("--suite", choices=(*images.SUITES, "all"), default=images.DEFAULT_SUITE)
    _add_packages(image)
    image.add_argument(
        "--purge", action="store_true", help="remove everything that is cached instead"
    )
    logs = add("logs", _logs, "Print a service's log: logs host1 docker")
    logs.add_argument("machine")
    logs.add_argument("service", nargs="?", default="agent")
    cli_underlay.add_commands(add)
    _add_demo(add("demo", _demo, "Show the main job on a lab of its own, verified step by step."))
    return parser


def _add_demo(demo: argparse.ArgumentParser) -> None:
    demo.set_defaults(name="demo")
    demo.add_argument("--keep", action="store_true", help="leave the lab running")
    demo.add_argument("--suite", choices=tuple(images.SUITES), default=images.DEFAULT_SUITE)
    cli_underlay.add_topology(demo)


def _add_packages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--packages",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="NAME,NAME",
        help="Debian packages above the root filesystem: firewalld,iperf3 (services stay off)",
    )


def _add_up(up: argparse.ArgumentParser) -> None:
    _add_packages(up)
    up.add_argument("--hosts", type=int, default=3)
    up.add_argument(
        "--libc", action="store_true", help="Docker has the images lab-glibc and lab-musl, too"
    )
    up.add_argument("--suite", choices=tuple(images.SUITES), default=images.DEFAULT_SUITE)
    up.add_argument("--etcd-members", type=int, choices=(1, 3), default=1)
    up.add_argument("--no-agent", action="store_true", help="do not start the agents")
    up.add_argument("--iptables", choices=("nft", "legacy"), default="nft")
    up.add_argument("--mtu", type=int, help="of each eth0 (default: its link's, 1500)")
    cli_underlay.add_topology(up)
    up.add_argument(
        "--reject-forward", action="store_true", help="end FORWARD in icmp-host-prohibited"
    )
    up.add_argument(
        "--cidr",
        default=CIDR,
        help=f"the mesh's range in the agents' settings ({CIDR}); '' for none",
    )


_began = time.monotonic()


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _began:5.1f} s] {text}", file=sys.stderr, flush=True)


def _up(arguments: argparse.Namespace) -> int:
    die_on_sigterm()
    topology = cli_underlay.chosen(arguments)
    host = HostOptions(
        agent=not arguments.no_agent,
        iptables=arguments.iptables,
        mtu=arguments.mtu,
        reject_forward=arguments.reject_forward,
        images=libc_image.NAMES if arguments.libc else (),
    )
    lab = Lab.up(
        LabOptions(
            name=arguments.name,
            hosts=arguments.hosts,
            suite=arguments.suite,
            host=host,
            etcd_members=arguments.etcd_members,
            cidr=arguments.cidr or None,
            owned=False,
            packages=arguments.packages,
            topology=topology,
            backend={"Type": arguments.backend},
        ),
        _say,
    )
    _say(f"lab {lab.name} is up: {', '.join(lab.hosts)}")
    obstacle = cli_underlay.why_not_ready(topology, arguments.backend)
    if host.agent and obstacle:
        _say(obstacle)
    elif host.agent and arguments.cidr:
        lab.wait_ready(_READY_S)
        _say("every agent is ready")
    option = "" if lab.name == state.DEFAULT_NAME else f" --name {lab.name}"
    program = paths.program()
    print(f"look around: {program} exec{option} host1 -- docker ps; end it: {program} down{option}")
    return 0


def _describe(lab: Lab) -> dict[str, Any]:
    machines = []
    everything = [*lab.hosts.values(), *lab.etcd.values(), *lab.routers.values()]
    for machine in [*everything, *lab.name_servers.values(), lab.stranger]:
        if machine is None:
            continue
        proc = machine.proc()
        machines.append(
            {
                "name": machine.name,
                "kind": machine.config.kind,
                "address": machine.address,
                "state": "on" if proc else "off",
                "pid": proc.pid if proc else None,
                "services": machine.services() if proc else {},
                "ports": [asdict(port) for port in machine.config.ports],
                "logs": str(machine.disk / "log"),
            }
        )
    return {
        "name": lab.name,
        "suite": lab.record.suite,
        "etcd": lab.endpoints(),
        **cli_underlay.described(lab),
        "machines": machines,
    }


def _status(arguments: argparse.Namespace) -> int:
    described = _describe(Lab.open(arguments.name))
    if arguments.output == "json":
        print(json.dumps(described, indent=2))
        return 0
    print(f"{'MACHINE':<10} {'ADDRESS':<16} {'STATE':<6} SERVICES")
    for item in described["machines"]:
        services = ", ".join(f"{name} {value['state']}" for name, value in item["services"].items())
        print(f"{item['name']:<10} {item['address']:<16} {item['state']:<6} {services}")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    if not arguments.command:
        raise LabError("nothing to run", "hostmesh-lab exec host1 -- COMMAND")
    machine = Lab.open(arguments.name).machine(arguments.machine)
    return _pass_through(machine.enter(arguments.command))


def _pass_through(argv: list[str]) -> int:
    """Become the program: terminal, signals and exit status are then its own."""
    sys.stdout.flush()
    program = shutil.which(argv[0])
    if program is None:
        raise LabError(f"{argv[0]} is not installed")
    if not sys.stdin.isatty():
        os.execv(program, argv)
    # nsenter's child belongs to this terminal's foreground; only Ctrl-C must not end us before it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = subprocess.call(argv, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return code if code >= 0 else 128 - code


def _etcdctl(arguments: argparse.Namespace) -> int:
    lab = Lab.open(arguments.name)
    member = next((item for item in lab.etcd.values() if item.proc()), None)
    if member is None:
        raise LabError("no machine of etcd is on", "hostmesh-lab start etcd1")
    argv = ["etcdctl", "--endpoints=" + ",".join(lab.endpoints()), *arguments.command]
    return _pass_through(member.enter(argv, {"ETCDCTL_API": "3"}))


def _join(arguments: argparse.Namespace) -> int:
    print(Lab.open(arguments.name).join().name)
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    Lab.open(arguments.name).machine(arguments.machine).kill()
    return 0


def _start(arguments: argparse.Namespace) -> int:
    Lab.open(arguments.name).machine(arguments.machine).boot()
    return 0


def _down(arguments: argparse.Namespace) -> int:
    require_root()
    name = paths.checked_name(arguments.name)
    cleared = state.clear_dead_labs(except_for=name)
    with state.locked(name):
        known = name in state.known_names()
        state.clear(name)
    for other in cleared:
        _say(f"cleared what was left of lab {other}")
    _say(f"lab {name} is gone" if known else f"there is no lab {name}")
    return 0


def _image(arguments: argparse.Namespace) -> int:
    require_root()
    if arguments.purge:
        if state.known_names():
            raise LabError(
                "labs use the images: " + ", ".join(state.known_names()), "hostmesh-lab down"
            )
        shutil.rmtree(paths.cache_root(), ignore_errors=True)
        return 0
    for suite in images.SUITES if arguments.suite == "all" else [arguments.suite]:
        stack, _ = layers.ensure(suite, [arguments.packages], _say, agent=False)
        print(stack[-1])
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    machine = Lab.open(arguments.name).machine(arguments.machine)
    text = machine.log(arguments.service)
    if not text:
        raise LabError(
            f"{machine.name} has no log of {arguments.service!r}",
            "its services are in hostmesh-lab status; init is the machine itself",
        )
    sys.stdout.write(text)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    topology = cli_underlay.chosen(arguments)
    return demo.run(
        arguments.name, arguments.suite, topology, arguments.backend, keep=arguments.keep
    )
