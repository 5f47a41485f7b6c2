"""etcd3 with its generated messages rebuilt for the protobuf that is installed.

etcd3 0.12.0 ships code generated for protobuf < 3.21, which a current protobuf refuses to
run ("Descriptors cannot be created directly"). The serialized file descriptors inside that
code are fine: this module reads them out of etcd3's own files, without executing them,
registers them and puts ready modules in place before etcd3 is imported. Nothing is
generated at build time and nothing of etcd3 is copied. About 30 ms, once.

Import ``etcd3``, ``rpc`` and ``grpc`` from here and nowhere else in this package.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
from grpc import _common

from agent.errors import DependencyMissing

__all__ = ["etcd3", "grpc", "rpc", "transactions"]

_PACKAGE = "etcd3.etcdrpc"
_MODULES = ("kv_pb2", "auth_pb2", "rpc_pb2")  # in order of their imports of each other
_SERIALIZED = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")


def _serialized_file(folder: Path, module: str) -> bytes:
    """Return the serialized FileDescriptorProto in one of etcd3's generated modules."""
    source = (folder / f"{module}.py").read_text(encoding="utf-8")
    found = _SERIALIZED.search(source)
    if found is None:
        raise DependencyMissing(
            f"etcd3's {module}.py does not look like that of etcd3 0.12.0",
            hint="install the locked dependencies: pip install -r requirements.lock",
        )
    text = ast.literal_eval(found.group(1))
    return str(text).encode("latin1")


def _provide_messages() -> None:
    """Put working ``etcd3.etcdrpc.*_pb2`` modules into ``sys.modules``."""
    spec = importlib.util.find_spec("etcd3")
    if spec is None or spec.origin is None:
        raise DependencyMissing(
            "the Python package etcd3 is not installed",
            hint="install the locked dependencies: pip install -r requirements.lock",
        )
    folder = Path(spec.origin).parent / "etcdrpc"
    pool = descriptor_pool.Default()
    for name in _MODULES:
        qualified = f"{_PACKAGE}.{name}"
        if qualified in sys.modules:
            continue
        descriptor = pool.AddSerializedFile(_serialized_file(folder, name))
        module = types.ModuleType(qualified)
        builder.BuildMessageAndEnumDescriptors(descriptor, module.__dict__)
        builder.BuildTopDescriptorsAndMessages(descriptor, qualified, module.__dict__)
        sys.modules[qualified] = module


_provide_messages()

_common.MAXIMUM_WAIT_TIMEOUT = 60.0
"""How often a thread that reads a stream wakes although nothing came. Ten times a second is for
signals, which reach the main thread only, and costs 0.07 % of a core."""

import etcd3  # noqa: E402  # only importable after _provide_messages
from etcd3 import etcdrpc, transactions  # noqa: E402  # the same

rpc: Any = etcdrpc
"""Messages and stubs (KVStub, LeaseStub, WatchStub, AuthStub, …); untyped upstream."""
