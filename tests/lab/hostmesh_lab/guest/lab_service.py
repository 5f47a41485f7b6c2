"""`lab-service {start|stop|restart|status} SERVICE`: what systemctl is on a real host."""

import json
import socket
import sys

_VERBS = ("start", "stop", "restart", "status")


def main() -> int:
    """Ask PID 1, print its answer, exit as systemctl would."""
    if len(sys.argv) != 3 or sys.argv[1] not in _VERBS:
        print(f"usage: lab-service {{{'|'.join(_VERBS)}}} SERVICE", file=sys.stderr)
        return 2
    verb, name = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/run/lab/init.sock")
        connection.sendall(json.dumps({"verb": verb, "service": name}).encode() + b"\n")
        with connection.makefile("rb") as stream:
            reply = json.loads(
                stream.readline() or b'{"ok": false, "message": "no answer from PID 1"}'
            )
    if verb == "status" and reply["ok"]:
        reply = reply["services"].get(name, {"state": "unknown"})
        print(reply["state"])
        return 0 if reply["state"] == "running" else 3
    if not reply["ok"]:
        print(f"lab-service: {reply['message']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"lab-service: cannot reach PID 1: {error}")
