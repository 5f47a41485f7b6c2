"""Any sequence of changes to a daemon.json: the operator's own text comes back."""

import json
import os
import tempfile
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.docker.daemonjson.desired import BIP, MTU, NETWORK_MTU, POOLS, desired_docker, keys_for
from agent.docker.daemonjson.document import JsonValue
from agent.docker.daemonjson.store import DaemonJsonStore
from agent.docker.daemonjson.undo_journal import Failure, Phase, UndoJournal

pytestmark = pytest.mark.property

OURS = (BIP, POOLS, MTU, NETWORK_MTU)
LEASES = st.sampled_from([("10.64.0.0/16", 1500), ("10.65.0.0/16", 1450), ("10.66.0.0/24", 1400)])
TEXTS = (None, b"", b"{}\n", b'{ "debug" : true }', b'{"bip": "192.168.5.1/24", "mtu": 9000}\r\n')
BIPS = st.sampled_from([None, "172.30.0.1/16", "192.168.9.1/24"])


class Machine(RuleBasedStateMachine):
    """An agent that gives leases, restarts and leaves, and an operator with an editor."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(os, "fsync", lambda _: None)  # the tests of power cuts need it
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "docker/daemon.json"
        self._edited = False
        self._original: bytes | None = None
        self._theirs: dict[str, Any] = {}

    def teardown(self) -> None:
        self._patch.undo()
        self._folder.cleanup()

    @property
    def _store(self) -> DaemonJsonStore:
        """Of an agent that was just started: nothing is remembered but on the disk."""
        return DaemonJsonStore(self._file, Path(self._folder.name) / "state")

    @property
    def _journal(self) -> UndoJournal | None:
        return self._store.journal()

    @property
    def _pending(self) -> bool:
        journal = self._journal
        return journal is not None and journal.phase in {Phase.WRITTEN, Phase.RESTARTING}

    @initialize(text=st.sampled_from(TEXTS))
    def begin(self, text: bytes | None) -> None:
        self._original = text
        self._theirs = json.loads(text or b"{}")
        if text is not None:
            self._file.parent.mkdir()
            self._file.write_bytes(text)

    @rule(lease=LEASES)
    def give(self, lease: tuple[str, int]) -> None:
        store = self._store
        snapshot = store.read()
        values = keys_for(desired_docker(IPv4Network(lease[0]), lease[1]), "26.1")
        changes = snapshot.journal.changes if snapshot.journal else ()
        drop = tuple(
            each.path
            for each in changes
            if each.path not in values
            and snapshot.document.has(each.path)
            and each.is_ours(snapshot.document.value(each.path))
        )
        store.change(snapshot, values, drop=drop)
        found = store.read().document
        assert {path: found.value(path) for path in values} == values

    @precondition(lambda self: self._pending)
    @rule(phase=st.sampled_from([Phase.RESTARTING, Phase.APPLIED, Phase.WRITTEN]))
    def an_engine_is_seen(self, phase: Phase) -> None:
        self._store.mark(phase)

    @precondition(lambda self: self._pending)
    @rule(taken_out=st.booleans())
    def it_does_not_start(self, taken_out: bool) -> None:
        self._store.roll_back(Failure("name", "why"))
        if taken_out:
            self._store.take_out()
        self._store.mark(Phase.APPLIED)

    @rule(value=st.integers(0, 3))
    def the_operator_adds_a_key(self, value: int) -> None:
        self._edit("log-level", value)

    @rule(bip=BIPS)
    def the_operator_sets_their_own_bip(self, bip: str | None) -> None:
        self._edit("bip", bip)

    def _edit(self, key: str, value: JsonValue) -> None:
        document = self._store.read().document
        if value is None and not document.has((key,)):
            return
        self._file.parent.mkdir(exist_ok=True)
        if value is None:
            document = document.with_text((key,), None)
        else:
            document = document.with_values({(key,): value})
        self._file.write_text(document.text)
        self._edited = True
        self._theirs.pop(key, None)
        if value is not None:
            self._theirs[key] = value

    @rule()
    def leave(self) -> None:
        had = self._journal is not None
        self._store.restore()
        data = self._file.read_bytes() if self._file.exists() else None
        assert json.loads(data or b"{}") == self._theirs
        if had and not self._edited:
            assert data == self._original, "byte for byte"
        self._original, self._edited = data, False

    @invariant()
    def what_is_not_ours_is_theirs(self) -> None:
        snapshot, kept = self._store.read(), dict(self._theirs)
        found = {key: snapshot.document.value((key,)) for key in snapshot.document.names()}
        for change in snapshot.journal.changes if snapshot.journal else ():
            if not change.is_ours(snapshot.document.value(change.path)):
                continue
            found.pop(change.path[0])
            kept.pop(change.path[0], None)
        assert found == kept


TestMachine = pytest.mark.property(Machine.TestCase)
Machine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
