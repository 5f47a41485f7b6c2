"""Run one call to agent/docker on a lab host; print its outcome as JSON."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from agent.docker.attach.conditions import engine_report
from agent.docker.attach.detach import DetachTerms
from agent.docker.manager import DockerManager
from agent.docker.networks.plan import Wanted
from agent.docker.service.dockerd_process import DockerdFinder
from agent.docker.service.restart_policy import Override
from agent.errors import HostmeshError
from agent.mesh.networks import DesiredNetwork
from agent.settings import DockerSettings

STATE = Path("/var/lib/hostmesh")
# Every write to the disk and every start of a program raises one of these.
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown"}
PLACES = ("/etc/docker", str(STATE))


def die_at(step: int) -> None:
    """Kill this process before its step-th write or start of a program."""
    seen = 0

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event in STEPS and str(args[0]).startswith(PLACES)
        if writes or event == "subprocess.Popen":
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def die_at_request(number: int, after_s: float) -> None:
    """Kill this process that long after it opens its connection of that number."""
    seen = 0

    def audit(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        del args
        if event == "socket.connect":
            seen += 1
            if seen == number:
                threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
                time.sleep(0.0 if after_s else 10.0)

    sys.addaudithook(audit)


def main() -> None:
    """Read {"call", "subnet", "mtu", "settings", …} from the command line and do it."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    values: dict[str, Any] = {
        "restart_command": ("/usr/local/sbin/lab-service", "restart", "docker"),
        "restart_timeout_s": 30.0,
        **{key: tuple(v) if isinstance(v, list) else v for key, v in order["settings"].items()},
    }
    manager = DockerManager(DockerSettings(**values), STATE)
    desired = manager.desired_for(IPv4Network(order["subnet"]), order["mtu"])
    if "die_at" in order:
        die_at(order["die_at"])
    if "die_at_request" in order:
        die_at_request(order["die_at_request"], order["after_s"])
    try:
        if order["call"] == "ensure":
            result: Any = manager.attacher.ensure(desired)
        elif order["call"] == "restart":
            override = Override.CONTAINERS if order["force"] else Override.POLICY
            result = manager.attacher.ensure(desired, override, replace=order.get("replace", False))
        elif order["call"] == "read":
            result = manager.engine.read()
        elif order["call"] == "process":
            result = DockerdFinder(DockerSettings(**values).socket).dockerd()
        elif order["call"] == "networks":
            networks = tuple(DesiredNetwork(**wanted(each)) for each in order["wanted"])
            report = engine_report(manager.engine.read())
            result = manager.networks.ensure(Wanted(networks, order["complete"]), desired, report)
        elif order["call"] == "outlook":
            result = manager.docker.outlook()
        else:
            result = manager.detacher.detach(
                DetachTerms(force=order["force"], asked=order.get("asked", True))
            )
    except HostmeshError as error:
        result = {"error": type(error).__name__, "message": error.message}
    sys.stdout.write(json.dumps(plain(result)) + "\n")


def wanted(order: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a wanted network."""
    subnet = order.get("subnet")
    return {"length": 24, **order, "subnet": IPv4Network(subnet) if subnet else None}


def plain(value: Any) -> Any:  # noqa: ANN401 - anything dataclasses hold
    """Turn dataclasses into what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


main()
