"""Every verb of agentctl in every situation: a documented exit status, no traceback, in time.

A table: a verb without a row fails. Verbs that change the host come last, and are real.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import jsonschema
import pytest

from agent.ctl.verbtable import VERBS, Verb
from tests.bench.host.agentctl import put_leases
from tests.netns.mesh.stage import ROOT, Node, Stage
from tests.unit.ctl.schemas import check
from tests.waiting import eventually

pytestmark = pytest.mark.netns

OTHER_USER = 65534
BOUND_S = 45.0  # a hang would last for ever; a busy machine takes its time
PEERS = 5000


class Row(NamedTuple):
    """A verb's arguments, and its exit status in each situation.

    Attributes:
        words: Its arguments; {folder} is one of the test's own, {now} differs each time.
        up: The agent runs, etcd answers, we are root.
        many: The same with 5,000 peers that are down; None: as ``up``.
        user: The same for a user who is in no group.
        down: The agent was killed.
        user_down: The same for that user.
        no_etcd: The agent runs, etcd does not.
        neither: Neither does; what the agent kept is there.
        full: No agent, and nothing can be written: neither the answer nor the state.
    """

    words: tuple[str, ...] = ()
    up: int | set[int] = 0
    user: int | set[int] = 11
    down: int | set[int] = 0
    user_down: int | set[int] = 0
    no_etcd: int | set[int] = 0
    neither: int | set[int] = 0
    full: int | set[int] = 1
    many: int | set[int] | None = None

    def allowed(self, column: str) -> set[int]:
        """Return the exit statuses of a column."""
        wanted = getattr(self, column)
        return _set(self.up if wanted is None else wanted)


TABLE: dict[str, Row] = {
    "status": Row(),
    "hosts": Row(),
    "leases": Row(),
    "containers": Row(no_etcd=14, neither=14),
    "names": Row(user_down=26),
    "resolve": Row(words=("api.web",), up=3, down=3, user_down=26, no_etcd=3, neither=3, full=3),
    "routes": Row(),
    "doctor": Row(user=0, no_etcd={0, 1}, neither={0, 1}),
    "diff": Row(up={0, 1}, down=3, user_down=3, no_etcd={0, 1}, neither=3, full=3),
    "map": Row(),
    "ui": Row(
        words=("--timeout", "300ms"), down=23, user_down=23, neither=23, full={1, 23}
    ),
    "ping": Row(words=("node2",), user_down={0, 1}, no_etcd={0, 1}, neither={0, 1}),
    "check": Row(user_down=11, many=1),
    "trace": Row(
        words=("192.0.2.1", "192.0.2.2"), up={0, 1}, user={0, 1}, down={0, 1},
        user_down={0, 1}, no_etcd={0, 1}, neither={0, 1}, full={1, 23},
    ),
    "bugreport": Row(words=("{folder}/{now}.tar.gz",), user_down=11, full=26),
    "events": Row(user_down=26),
    "config init": Row(user=0),
    "config show": Row(user=0, no_etcd=14, neither=14),
    "config set": Row(words=("--access", "open"), user=0, no_etcd=14, neither=14),
    "reserve": Row(
        words=("node2", "10.127.9.0/24", "--dry-run"), user=0, no_etcd=14, neither=14
    ),
    "remove": Row(
        words=("node9",), up=24, user=24, down=24, user_down=24, no_etcd=14, neither=14, full=24
    ),
    "network create": Row(words=("shop", "--dry-run"), user=0, no_etcd=14, neither=14),
    "network ls": Row(),
    "network inspect": Row(
        words=("none",), up=2, down=2, user_down=2, no_etcd=2, neither=2, full=2
    ),
    "network rm": Row(words=("shop",), user=0, no_etcd=14, neither=14),
    "token create": Row(
        words=("{folder}/{now}.token", "--host", "node9", "--without-account"),
        user=26, user_down=26, full=26,
    ),
    "token ls": Row(words=("--folder", "{folder}"), user=0),
    "token revoke": Row(
        words=("node9", "--folder", "{folder}"), up=2, user=2, down=2, user_down=2, no_etcd=2,
        neither=2, full=2,
    ),
    "etcd accept": Row(down=23, user_down=23, neither=23, full=23),
    "docker restart": Row(
        words=("--now", "--yes"), up={0, 1, 19}, down=23, user_down=23, no_etcd={0, 1, 19},
        neither=23, full=23,
    ),
    "reload": Row(down=23, user_down=23, neither=23, full=23),
    "firewall show": Row(user_down=11),
    "wait": Row(
        words=("--timeout", "300ms"), up=1, down=3, user_down=3, no_etcd=1, neither=3, full=3
    ),
    "help": Row(user=0),
    "version": Row(user=0),
    "completion": Row(words=("bash",), user=0),
    "complete-hosts": Row(user=0, full={0, 1}),
    "cleanup": Row(up=24, user_down=11, no_etcd=24, full={1, 26}),
    "leave": Row(user_down=11, no_etcd=1, neither=1, full={1, 26}),
    "join": Row(user_down=11, full={0, 1}),
}  # fmt: skip
CHANGING = ("cleanup", "leave", "join")  # in this order: what was left is joined again


def test_every_verb_has_a_row() -> None:
    missing = {" ".join(verb.words) for verb in VERBS} - set(TABLE)
    assert not missing, "say in TABLE what it answers in each situation"


def test_every_status_of_the_table_is_documented() -> None:
    text = (ROOT / "docs" / "exit-status.md").read_text()
    known = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    for row in TABLE.values():
        for column in Row._fields[1:]:
            assert row.allowed(column) <= known


def _set(wanted: int | set[int]) -> set[int]:
    return {wanted} if isinstance(wanted, int) else wanted


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(2).running() as made:
        node = made.nodes[0]
        eventually(node.subnet, 30)
        for words in (("config", "set", "--level", "3"), ("network", "create", "web")):
            assert node.ctl(*words).returncode == 0
        yield made


@contextmanager
def as_it_is(_stage: Stage) -> Iterator[None]:
    yield


@contextmanager
def killed(stage: Stage) -> Iterator[None]:
    node = stage.nodes[0]
    node.stop(signal.SIGKILL)
    yield
    node.start()


@contextmanager
def without_etcd(stage: Stage) -> Iterator[None]:
    stage.stop_etcd()
    yield
    stage.start_etcd()


@contextmanager
def neither(stage: Stage) -> Iterator[None]:
    with killed(stage), without_etcd(stage):
        yield


@contextmanager
def many_peers(stage: Stage) -> Iterator[None]:
    node = stage.nodes[0]
    put_leases(stage, PEERS)
    eventually(lambda: len(node.document("leases")["leases"]) > PEERS, 60)
    yield
    stage.etcdctl("del", "--prefix", "/hostmesh/subnets/10.1")
    eventually(lambda: len(node.document("leases")["leases"]) < PEERS, 60)


Way = Callable[[Stage], AbstractContextManager[None]]

SCHEMAS: dict[str, tuple[str, ...]] = {
    "status": ("status",),
    "hosts": ("leases",),
    "leases": ("leases",),
    "containers": ("containers",),
    "names": ("names",),
    "resolve": ("resolve", "api.web"),
    "routes": ("routes",),
    "diff": ("diff",),
    "map": ("map",),
    "ping": ("ping", "node2"),
    "check": ("check",),
    "trace": ("trace", "192.0.2.1", "192.0.2.2"),
    "events": ("events",),
    "doctor": ("doctor",),
    "bugreport": ("bugreport", "{folder}/{now}.tar.gz"),
    "config init": ("config",),
    "config show": ("config",),
    "config set": ("config", "--access", "open", "--dry-run"),
    "reserve": ("reservations",),
    "reserve node2": ("change", "10.127.9.0/24", "--dry-run"),
    "remove": ("change", "node2", "--force", "--dry-run"),
    "network create": ("change", "shop", "--timeout", "300ms"),
    "network ls": ("networks",),
    "network inspect": ("networks", "web"),
    "network rm": ("change", "shop", "--dry-run"),
    "token create": ("token", "{folder}/{now}.token", "--host", "node9", "--without-account"),
    "token ls": ("tokens", "--folder", "{folder}"),
    "etcd accept": ("done",),
    "docker restart": ("done", "--now", "--yes"),
    "reload": ("done",),
    "firewall show": ("firewall",),
    "wait": ("status", "--timeout", "300ms"),
    "version": ("version",),
    "join": ("done",),
}
"""A verb, the schema of its ``-o json``, and what else is typed."""
SILENT = {"wait", "resolve"}  # this host has no Docker and is never ready, and no name server
NOT_JSON = {"help", "completion", "complete-hosts", "cleanup", "leave", "token revoke", "ui"}
"""Text, scripts and names; and what test_up_and_down, test_mishaps and test_tokens do for real."""


def test_every_verb_has_a_schema() -> None:
    known = {" ".join(verb.words) for verb in VERBS}
    assert known - NOT_JSON == {name for name in SCHEMAS if name in known}


@pytest.mark.parametrize(
    "way",
    [
        as_it_is,
        killed,
        pytest.param(without_etcd, marks=pytest.mark.full),
        pytest.param(neither, marks=pytest.mark.full),
    ],
)
def test_each_answer_in_json_is_what_its_schema_says(stage: Stage, way: Way) -> None:
    """By each source: agent, etcd with the kernel, or the copy. An error leaves stdout empty.

    Before the mesh loses 5,000 leases at once, below: that is an alarm, and holds claims back.
    """
    node = stage.nodes[0]
    reports = node.folder / "reports"
    reports.mkdir(exist_ok=True)

    def ask(name: str) -> tuple[str, str]:
        words = [w.format(folder=reports, now=time.monotonic_ns()) for w in SCHEMAS[name][1:]]
        done = node.ctl(*name.split(), *words, "-o", "json")
        try:
            if done.stdout:
                check(SCHEMAS[name][0], json.loads(done.stdout))
        except (ValueError, jsonschema.ValidationError) as error:
            return "wrong", str(error)[:300]
        return ("said" if done.stdout else "nothing"), done.stderr

    eventually(node.subnet, 30)
    with way(stage), ThreadPoolExecutor(2) as pool:
        found = dict(zip(SCHEMAS, pool.map(ask, SCHEMAS), strict=True))
    assert not {name: why for name, (how, why) in found.items() if how == "wrong"}
    said = {name for name, (how, _) in found.items() if how == "said"}
    always = {
        "status",
        "hosts",
        "leases",
        "network ls",
        "routes",
        "map",
        "ping",
        "events",
        "doctor",
        "bugreport",
    }
    assert said >= always | {"trace", "firewall show", "version", "join"}
    if way is as_it_is:
        assert said == set(SCHEMAS) - SILENT, found


SHELL = {"bugreport", "completion", "token create", "token ls", "token revoke", "ui"}
"""Their examples write files, scripts or keys, or show a page: other tests run them."""
NOT_HERE = {1, 2, 3, 16, 24}
"""This stage has no Docker, container, network shop or name server, and another CIDR."""


def test_every_example_of_the_help_runs(stage: Stage) -> None:
    """With --dry-run where the verb takes it; those that change this host are run below."""
    node = stage.nodes[0]
    eventually(node.subnet, 30)

    def ask(example: str, verb: Verb) -> str:
        words = shlex.split(example.replace("host2", "node2"))[1:]
        dry = any(each.name == "--dry-run" for each in verb.arguments) and "--dry-run" not in words
        done = node.ctl(*words, *(["--dry-run"] if dry else []), "--timeout", "2s")
        row = TABLE[verb.name]
        fine = done.returncode in _set(row.up) | NOT_HERE and "Traceback" not in done.stderr
        wrong = ("unknown option", "unexpected argument", "unknown verb", " needs ")
        return "" if fine and not any(each in done.stderr for each in wrong) else done.stderr

    looking = [each for each in VERBS if each.name not in {*CHANGING, *SHELL}]
    examples = [(example, verb) for verb in looking for example in verb.examples]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(examples, pool.map(lambda each: ask(*each), examples), strict=True))
    assert len(found) > len(looking)
    assert not {example: why for (example, _), why in found.items() if why}


# A mount namespace of its own: the state folder and the reports' are full, and so is the output.
FULL = """
for folder in state reports; do
    mount -t tmpfs -o size=4k none "$0/$folder" || exit 99
    cat /dev/zero >"$0/$folder/filler" 2>/dev/null
done
exec "$@" >/dev/full
"""


@pytest.mark.parametrize(
    ("column", "way", "user"),
    [
        pytest.param("up", as_it_is, 0, id="all-up"),
        pytest.param("user", as_it_is, OTHER_USER, id="not-root"),
        pytest.param("down", killed, 0, id="agent-killed", marks=pytest.mark.full),
        pytest.param(
            "user_down", killed, OTHER_USER, id="not-root-agent-killed", marks=pytest.mark.full
        ),
        pytest.param("no_etcd", without_etcd, 0, id="etcd-down", marks=pytest.mark.full),
        pytest.param("neither", neither, 0, id="agent-and-etcd-down", marks=pytest.mark.full),
        pytest.param("full", killed, 0, id="full-disk", marks=pytest.mark.full),
        pytest.param("many", many_peers, 0, id="5000-peers", marks=pytest.mark.full),
    ],
)
def test_each_verb_answers_in_time_as_documented(
    stage: Stage, column: str, way: Way, user: int
) -> None:
    node = stage.nodes[0]
    eventually(node.subnet, 30)
    with way(stage):
        found = run_all(node, user, full=column == "full")
    wrong = {
        name: f"status {status}, not {wanted}: {text[-300:]}"
        for name, (status, text) in found.items()
        if status not in (wanted := TABLE[name].allowed(column)) or "Traceback" in text
    }
    assert not wrong


def run_all(node: Node, user: int, *, full: bool) -> dict[str, tuple[int, str]]:
    """Every verb's exit status and what it said on stderr."""
    reports = node.folder / "reports"
    reports.mkdir(exist_ok=True)

    def ask(name: str) -> tuple[int, str]:
        words = [word.format(folder=reports, now=time.monotonic_ns()) for word in TABLE[name].words]
        began_s = time.monotonic()
        if full:
            command = node.ctl_command(*name.split(), *words)
            done = node.inside(["sh", "-c", FULL, str(node.folder), *command], cwd=ROOT)
        else:
            done = node.ctl(*name.split(), *words, user=user)
        if (took_s := time.monotonic() - began_s) > BOUND_S:
            return -1, f"it took {took_s:.0f} s: {done.stderr}"
        return done.returncode, done.stderr

    names = [" ".join(verb.words) for verb in VERBS]
    looking = [name for name in names if name not in CHANGING]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(looking, pool.map(ask, looking), strict=True))
    return found | {name: ask(name) for name in CHANGING}
