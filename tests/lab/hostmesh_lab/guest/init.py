"""PID 1 of a machine of the lab: reaps, starts and supervises a few services, answers on a socket.

It plays the part that systemd has on a real host, as far as the lab needs it: `Restart=always`
with back-off, a restart that returns when the service is up or has failed, an orderly shutdown.
Runs with the machine's own Python, as `python3 -I init.py SPEC`.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOCKET = "/run/lab/init.sock"
_spawning = threading.Lock()
_children: dict[int, Callable[[int], None]] = {}


def log(text: str) -> None:
    """One line in the machine's /var/log/init.log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def reap_forever() -> None:
    """Collect every child, adopted ones included, and report it to the service that started it."""
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.02)
            continue
        with _spawning:
            ended = _children.pop(pid, None)
        if ended is not None:
            ended(os.waitstatus_to_exitcode(status))


def spawn(argv: list[str], env: dict[str, str], log_path: str, ended: Callable[[int], None]) -> int:
    """Start a program with its output appended to a file; `ended` hears its exit code."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log_path, flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with _spawning:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **env},
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGTERM],
        )
        _children[pid] = ended
    return pid


def run_once(argv: list[str], log_path: str, timeout_s: float) -> int:
    """Run a program to its end."""
    done = threading.Event()
    codes: list[int] = []

    def ended(code: int) -> None:
        codes.append(code)
        done.set()

    pid = spawn(argv, {}, log_path, ended)
    if not done.wait(timeout_s):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return -signal.SIGKILL
    return codes[0]


class Failed(Exception):
    """A service did not do what was asked; the text says why, with its last log lines."""


class Service:
    """One supervised program."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.name: str = spec["name"]
        self.spec = spec
        self.pid: int | None = None
        self.wanted = False
        self.given_up = False
        self.starts = 0
        self.exits = 0
        self.last_exit: int | None = None
        self.turn = threading.Lock()
        self.changed = threading.Condition()
        threading.Thread(target=self._supervise, daemon=True).start()

    def _supervise(self) -> None:
        recent: list[float] = []
        while True:
            with self.changed:
                self.changed.wait_for(
                    lambda: self.wanted and self.pid is None and not self.given_up
                )
                asked = self.last_exit is None
                if not asked:
                    delay = self._delay(recent)
                    if delay is None:
                        self.given_up = True
                        log(f"{self.name}: gave up")
                        continue
                    self.changed.wait_for(lambda: not self.wanted or self.last_exit is None, delay)
                if not self.wanted:
                    continue
                if self.last_exit is None:
                    recent.clear()
                recent.append(time.monotonic())
                self._spawn()

    def _delay(self, recent: list[float]) -> float | None:
        """Return how long to wait before an automatic restart; None once there were too many."""
        policy = self.spec["restart"]
        if policy is None:
            return None
        now = time.monotonic()
        recent[:] = [at for at in recent if now - at < 60]
        if policy["burst"] and len(recent) >= policy["burst"]:
            return None
        delay: float = min(policy["delay_s"] * 2 ** max(0, len(recent) - 1), policy["max_delay_s"])
        return delay

    def _spawn(self) -> None:
        try:
            self.pid = spawn(self.spec["argv"], self.spec["env"], self.spec["log"], self._ended)
        except OSError as error:
            self.exits += 1
            self.last_exit = 127
            log(f"{self.name}: cannot start: {error}")
        else:
            self.starts += 1
            log(f"{self.name}: started, pid {self.pid}")
        self.changed.notify_all()

    def _ended(self, code: int) -> None:
        with self.changed:
            log(f"{self.name}: ended with {code}" + ("" if self.wanted else " as asked"))
            self.pid = None
            self.exits += 1
            self.last_exit = code
            self.changed.notify_all()

    def start(self) -> None:
        """Start it unless it runs, and return when it is up."""
        with self.turn:
            with self.changed:
                exits = self.exits
                if self.pid is None:
                    self.last_exit, self.given_up, self.wanted = None, False, True
                    self.changed.notify_all()
            self._wait_up(exits)

    def _wait_up(self, exits: int) -> None:
        deadline = time.monotonic() + self.spec["start_timeout_s"]
        began = time.monotonic()
        while time.monotonic() < deadline:
            with self.changed:
                if self.exits > exits:
                    raise Failed(f"{self.name} ended with {self.last_exit}: {self._last_lines()}")
                pid = self.pid
            if pid is not None and ready(self.spec["ready"], began):
                return
            with self.changed:
                self.changed.wait_for(lambda: self.exits > exits, 0.03)
        raise Failed(
            f"{self.name} is not up after {self.spec['start_timeout_s']} s: {self._last_lines()}"
        )

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and keep it ended; killed if it takes too long."""
        with self.turn, self.changed:
            self.wanted, self.given_up = False, False
            self.changed.notify_all()
            if self.pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
                os.kill(self.pid, signal.SIGCONT)
            if not self.changed.wait_for(lambda: self.pid is None, self.spec["stop_timeout_s"]):
                log(f"{self.name}: does not end, killing it")
                os.kill(self.pid, signal.SIGKILL)
                self.changed.wait_for(lambda: self.pid is None, 10)

    def signal(self, number: int) -> None:
        """Send it a signal; what follows from that is the supervisor's affair."""
        with self.changed:
            if self.pid is None:
                raise Failed(f"{self.name} does not run")
            os.kill(self.pid, number)

    def _last_lines(self) -> str:
        try:
            lines = Path(self.spec["log"]).read_text(errors="replace").splitlines()[-6:]
        except OSError:
            lines = []
        return " | ".join(line.strip() for line in lines) or "no log"

    def status(self) -> dict[str, Any]:
        with self.changed:
            state = "running" if self.pid else "failed" if self.given_up else "stopped"
            if self.wanted and not self.pid and not self.given_up:
                state = "restarting"
            return {
                "state": state,
                "pid": self.pid,
                "starts": self.starts,
                "last_exit": self.last_exit,
            }


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ready(probe: dict[str, Any], began: float) -> bool:
    """Whether a service answers: its HTTP socket, its port, or simply by living for a moment."""
    if probe["kind"] == "settled":
        return bool(time.monotonic() - began >= probe["seconds"])
    family = socket.AF_UNIX if probe["kind"] == "ping" else family_of(probe["host"])
    address: Any = probe["path"] if probe["kind"] == "ping" else (probe["host"], probe["port"])
    with socket.socket(family) as probing:
        probing.settimeout(1.0)
        try:
            probing.connect(address)
            if probe["kind"] == "port":
                return True
            probing.sendall(b"GET /_ping HTTP/1.0\r\nHost: lab\r\n\r\n")
            return b" 200 " in probing.recv(64)
        except OSError:
            return False


class Machine:
    """All services, and what is done to them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.services = {item["name"]: Service(item) for item in spec["services"]}
        self.booted = threading.Event()
        self.trouble: list[str] = []

    def boot(self) -> None:
        """Bring the machine up: the kernel's settings, first commands, services in order."""
        for name, value in self.spec["sysctls"].items():
            path = Path("/proc/sys") / name.replace(".", "/")
            if path.exists():
                path.write_text(value)
        for argv in self.spec["commands"]:
            code = run_once(argv, "/var/log/init.log", 30)
            if code:
                self.trouble.append(f"{' '.join(argv)}: exit status {code}")
        for service in self.services.values():
            if service.spec["autostart"]:
                self._bring_up(service)
        self.booted.set()
        log("booted" + (": " + "; ".join(self.trouble) if self.trouble else ""))

    def _bring_up(self, service: Service) -> None:
        try:
            service.start()
            for argv in service.spec["afterwards"]:
                code = run_once(argv, "/var/log/init.log", 60)
                if code:
                    self.trouble.append(f"{' '.join(argv)}: exit status {code}")
        except Failed as failure:
            self.trouble.append(str(failure))

    def shut_down(self) -> None:
        """Stop the services, last first, and end the machine."""
        for service in reversed(self.services.values()):
            service.stop()
        log("power off")
        os._exit(0)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        verb = request["verb"]
        if verb == "wait-boot":
            if not self.booted.wait(request["timeout_s"]):
                return {"ok": False, "message": "still booting"}
            return {"ok": not self.trouble, "message": "; ".join(self.trouble)}
        if verb == "shutdown":
            threading.Thread(target=self.shut_down, daemon=True).start()
            return {"ok": True, "message": ""}
        if verb == "status":
            services = {name: service.status() for name, service in self.services.items()}
            return {"ok": True, "message": "", "booted": self.booted.is_set(), "services": services}
        service = self.services.get(request["service"])
        if service is None:
            known = ", ".join(self.services) or "none"
            return {
                "ok": False,
                "message": f"no service {request['service']!r} here (there is: {known})",
            }
        return self._serve(verb, service, request)

    def _serve(self, verb: str, service: Service, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if verb in ("stop", "restart"):
                service.stop()
            if verb == "kill":
                service.stop(signal.SIGKILL)
            if verb in ("start", "restart"):
                service.start()
            if verb == "signal":
                service.signal(int(request["number"]))
        except (Failed, OSError) as failure:
            return {"ok": False, "message": str(failure)}
        return {"ok": True, "message": "", **service.status()}


def serve(machine: Machine, listener: socket.socket) -> None:
    """Answer requests, one JSON line each, every connection in a thread of its own."""

    def converse(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            line = stream.readline()
            if line:
                reply = machine.answer(json.loads(line))
                with contextlib.suppress(OSError):
                    stream.write(json.dumps(reply).encode() + b"\n")
                    stream.flush()

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=converse, args=(connection,), daemon=True).start()


def main() -> None:
    """Run the machine until it is asked to end."""
    machine = Machine(json.loads(Path(sys.argv[1]).read_text()))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=machine.shut_down).start())
    threading.Thread(target=reap_forever, daemon=True).start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(32)
    threading.Thread(target=machine.boot, daemon=True).start()
    serve(machine, listener)


if __name__ == "__main__":
    main()
