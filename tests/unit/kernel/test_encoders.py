"""pyroute2's messages, whose modules are imported when the first of their kind is written."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

_AT_ONCE = """
import sys, threading
from agent.kernel.netlink.encoders import encode
sys.setswitchinterval(1e-6)
names, failed = ("rtmsg", "ifinfmsg", "ifaddrmsg"), []
gate = threading.Barrier(12)
def first(name):
    gate.wait()
    try:
        encode(name, {}, ())
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=first, args=(names[i % 3],)) for i in range(12)]
for each in threads: each.start()
for each in threads: each.join()
sys.exit(repr(failed) if failed else 0)
"""


def test_threads_may_write_their_first_messages_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
