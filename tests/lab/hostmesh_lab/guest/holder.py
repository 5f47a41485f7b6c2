"""PID 1 of a whole lab: holds its process and network namespace, and reaps what its machines leave.

It does nothing; but when it ends, for whatever reason, the kernel ends every process of the lab.
"""

import os
import signal

if __name__ == "__main__":
    # Ignored children are reaped by the kernel, adopted ones too.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(os.readlink("/proc/self"), flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        signal.pause()
