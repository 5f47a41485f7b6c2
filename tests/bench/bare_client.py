"""A client of etcd in Python with one watch and nothing else, which the agent is compared with."""

from __future__ import annotations

__all__ = ["PROGRAM", "WATCHES"]

PROGRAM = """
import sys, threading, time
from queue import SimpleQueue
from agent.etcd.etcd3_compat import grpc, rpc
from agent.registry.follower import PROGRESS_EVERY_S
endpoint, start, end = sys.argv[1:]
requests = SimpleQueue()
create = rpc.WatchCreateRequest(key=start.encode(), range_end=end.encode())
requests.put(rpc.WatchRequest(create_request=create))
def ask():
    while True:
        time.sleep(PROGRESS_EVERY_S)
        requests.put(rpc.WatchRequest.FromString(b"\\x1a\\x00"))
threading.Thread(target=ask, daemon=True).start()
channel = grpc.insecure_channel(endpoint)
for answer in rpc.WatchStub(channel).Watch(iter(requests.get, None)):
    if answer.created:
        print("watches", flush=True)
    for each in answer.events:
        print(each.kv.key.decode(), flush=True)
"""
"""Python that takes etcd's HOST:PORT and a range, and prints each key that changes there. It asks
for progress as often as the agent does."""

WATCHES = "watches"
"""It prints this when etcd has confirmed the watch."""
