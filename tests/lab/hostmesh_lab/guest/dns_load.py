"""Ask for a name a hundred times a second, as a resolver with several servers does.

It asks until its standard input ends.

Runs with the machine's own Python, as `python3 -I dns_load.py NAME SERVER…`. Prints a line per 50
queries, and last a JSON object: how often it asked, how often no server had an address within its
time-out, the first and the last of those, the longest time of an answer, and the last address of
each answer.
"""

import json
import socket
import struct
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

RATE = 100
TIMEOUT_S = 5.0
"""glibc's for each server (resolv.conf(5))."""
THREADS = 1100
"""So many wait at most, where no server answers."""


def ask(number: int, question: bytes, servers: list[str]) -> tuple[float, str, str]:
    """Return how long it took, the last address ("" for none), and why there is none."""
    began = time.monotonic()
    why = "no reply"
    query = struct.pack("!6H", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + question
    for server in servers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(TIMEOUT_S)
            try:
                sock.connect((server, 53))
                sock.send(query)
                reply = sock.recv(4096)
            except OSError:
                continue
        if reply[3] & 15 == 0 and reply[6:8] != b"\0\0":
            return time.monotonic() - began, socket.inet_ntoa(reply[-4:]), ""
        why = f"rcode {reply[3] & 15}"
    return time.monotonic() - began, "", why


def main() -> None:
    """Ask until standard input ends, then print the result."""
    name, *servers = sys.argv[1:]
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    question = labels + struct.pack("!BHH", 0, 1, 1)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    jobs: list[Future[tuple[float, str, str]]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.monotonic()
        while not ended.wait(max(0.0, began + len(jobs) / RATE - time.monotonic())):
            jobs.append(pool.submit(ask, len(jobs), question, servers))
            if len(jobs) % 50 == 0:
                print("asking", flush=True)
    took = [job.result() for job in jobs]
    answered = [each for each in took if each[1]]
    lost = [f"{why} at {n / RATE:.1f} s" for n, (_, _, why) in enumerate(took) if why]
    found = {
        "asked": len(took),
        "lost": len(lost),
        "ends": [*lost[:1], *lost[-1:]],
        "longest_s": round(max((each[0] for each in answered), default=0.0), 3),
        "addresses": sorted({each[1] for each in answered}),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
