"""The log: one form per reader, bounded, without secrets, and never in the way."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import socket
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.daemon.state.conditions import ConditionSource
from agent.daemon.telemetry.condition_registry import ConditionRegistry
from agent.log import RateLimiter, configure, redact
from agent.model import Condition
from agent.settings import EtcdSettings, LogSettings
from agent.systemd_journal import event_id

pytestmark = pytest.mark.unit

SECRET = "hunter2-planted"  # noqa: S105 - to be searched for


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def started(
    *, is_tty: bool = False, journald: bool = False, clock: Clock | None = None, **settings: str
) -> io.StringIO:
    stream = io.StringIO()
    configure(
        LogSettings(**settings),  # type: ignore[arg-type]
        stream=stream,
        is_tty=is_tty,
        journald=journald,
        journal_socket=Path("/nonexistent"),
        clock=clock or Clock(),
    )
    return stream


def test_json_lines_carry_event_level_and_utc_time_first() -> None:
    stream = started()
    structlog.get_logger().info("host joined", subnet="10.64.0.0/16", path=Path("/x"), none=None)
    event = json.loads(stream.getvalue())
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "level": "info", "event": "host joined",
        "subnet": "10.64.0.0/16", "path": "/x", "none": None,
    }  # fmt: skip


def test_the_journal_gets_its_priority() -> None:
    stream = started(journald=True)
    structlog.get_logger().error("x")
    assert stream.getvalue().startswith('<3>{"timestamp"')


def test_a_terminal_gets_words_and_a_pipe_gets_json() -> None:
    assert "\x1b[" in say(started(is_tty=True))
    assert say(started(is_tty=True, format="json")).startswith("{")
    plain = say(started(format="console"))
    assert "a=1" in plain
    assert "\x1b" not in plain


def say(stream: io.StringIO) -> str:
    structlog.get_logger().info("x", a=1)
    return stream.getvalue()


def test_promise_8_names_cannot_send_escapes_through_the_log() -> None:
    stream = started(format="console")
    structlog.get_logger().info(
        "peer", host_name="\x1b[2Jx\n2026 fake line", names=["\x07"], deep={"k": "\x9b"}
    )
    structlog.get_logger().info("event\x1b[2J\u202e")
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert text.replace("\n", "").isprintable()
    try:
        int("\x1b[2J\u202e\n\x9b")
    except ValueError:
        structlog.get_logger().exception("x", limit_key="\x07")
    assert stream.getvalue().replace("\n", "").isprintable()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_reaches_the_log(form: str, tmp_path: Path) -> None:
    stream = started(format=form, level="debug")
    log = structlog.get_logger()
    password_file = tmp_path / "password"
    password_file.write_text(SECRET)
    settings = EtcdSettings(username="u", password_file=password_file)
    log.info("a", password=SECRET, auth_token=SECRET, nested={"Authorization": [SECRET]})
    log.info("b", url=f"https://user:{SECRET}@h:1/", urls=[f"http://{SECRET}@h"])
    log.info("c", settings=settings, deep={"a": {"b": {"api_key": SECRET}}})
    try:
        int(f"http://u:{SECRET}@h")
    except ValueError:
        log.exception("d", error=ValueError(f"http://u:{SECRET}@h"))
    logging.getLogger("urllib3").warning("retry http://u:%s@h", SECRET)
    assert settings.password == SECRET
    assert SECRET not in stream.getvalue()
    assert str(password_file) in stream.getvalue(), "the name of the file is no secret"


def test_redaction_is_bounded_in_depth() -> None:
    nested: dict[str, Any] = {"password": SECRET}
    for _ in range(1000):
        nested = {"x": nested}
    assert SECRET not in str(redact(nested))
    assert SECRET not in str(redact({"a": [[[[[[[{"password": SECRET}]]]]]]]}))


def test_levels_filter() -> None:
    stream = started(level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_libraries_are_heard_from_warning_up_and_in_our_form() -> None:
    stream = started(level="debug")
    logging.getLogger("docker.api").debug("chatter")
    logging.getLogger("docker.api").info("chatter")
    logging.getLogger("any.other").info("chatter")
    logging.getLogger("docker.api").warning("wrong %s", "thing")
    logging.getLogger("x").error("bad %d format", "arguments")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("docker.api", "library"), ("x", "library"), ("py.warnings", "library"),
    ]  # fmt: skip
    assert lines[0]["message"] == "wrong thing"


def test_promise_10_repeats_of_one_event_are_held_back_and_counted() -> None:
    clock = Clock()
    stream = started(clock=clock)
    log = structlog.get_logger()
    for number in range(100):
        log.warning("route refused", destination=number)
    log.warning("another event")
    clock.now_s = 61.0
    log.warning("route refused", destination=100)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 20 + 1 + 1
    assert lines[-1]["held_back"] == 80


def test_promise_9_a_flood_of_one_condition_hides_no_other() -> None:
    stream = started()
    registry = ConditionRegistry(Clock())
    flood = [
        Condition(name="record-set-aside", subject=f"key{number}", cause="bad", hint="")
        for number in range(100)
    ]
    other = Condition(name="etcd-unreachable", cause="refused", hint="")
    registry.replace(ConditionSource.HOST, flood)
    registry.replace(ConditionSource.ETCD, [other])
    registry.replace(ConditionSource.HOST, ())
    registry.replace(ConditionSource.ETCD, ())
    for _ in range(100):  # one that flaps is still a flood
        registry.replace(ConditionSource.ETCD, [other])
        registry.replace(ConditionSource.ETCD, ())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    counts = Counter((line["event"], line["condition"]) for line in lines)
    assert counts == {
        (event, name): count
        for name, count in (("record-set-aside", 100), ("etcd-unreachable", 20))
        for event in ("condition-raised", "condition-cleared")
    }


def test_a_limit_key_admits_one_per_interval_and_debug_is_not_limited() -> None:
    stream = started(level="debug")
    for number in range(50):
        structlog.get_logger().info("peer silent", limit_key=f"host{number % 2}")
        structlog.get_logger().debug("detail")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events].count("peer silent") == 2
    assert [event["event"] for event in events].count("detail") == 50
    assert all("limit_key" not in event for event in events)


def test_the_limiter_forgets_the_least_recent_key() -> None:
    clock = Clock()
    limiter = RateLimiter(clock, burst=1, capacity=2)
    assert limiter.admit("a") == 0
    assert limiter.admit("b") == 0
    assert limiter.admit("a") is None
    assert limiter.admit("c") == 0
    assert limiter.admit("a") is None, "a was seen after b"
    assert limiter.admit("b") == 0, "b was forgotten"


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    stream = started()
    stream.close()
    structlog.get_logger().error("x")
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        configure(LogSettings(), stream=full, is_tty=False)
        structlog.get_logger().error("x")
        went_on = True
    assert went_on


def test_the_journal_gets_fields_and_one_id_for_a_condition(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(5)
        stream = io.StringIO()
        configure(LogSettings(), stream=stream, is_tty=False, journald=True, journal_socket=path)
        conditions = ConditionRegistry(lambda: 0.0)
        found = Condition(name="etcd-unreachable", subject="s", cause="x\ny", hint="h")
        conditions.replace(ConditionSource.ETCD, (found,))
        conditions.replace(ConditionSource.ETCD, ())
        structlog.get_logger().info("fine", password="hunter2", url="http://u:hunter2@x/")  # noqa: S106
        raised, cleared, fine = (listening.recv(65536) for _ in range(3))
    for raw, priority in ((raised, b"4"), (cleared, b"6")):
        fields = dict(line.split(b"=", 1) for line in raw.splitlines())
        assert fields[b"HOSTMESH_CONDITION"] == b"etcd-unreachable"
        assert fields[b"HOSTMESH_SUBJECT"] == b"s"
        assert fields[b"MESSAGE_ID"].decode() == event_id("etcd-unreachable")
        assert fields[b"PRIORITY"] == priority
        assert json.loads(fields[b"MESSAGE"])["event_id"] == event_id("etcd-unreachable")
    assert b"hunter2" not in fine
    assert stream.getvalue() == ""


def test_without_a_journal_lines_go_to_the_stream_with_their_level(tmp_path: Path) -> None:
    stream = io.StringIO()
    gone = tmp_path / "none"
    configure(LogSettings(), stream=stream, is_tty=False, journald=True, journal_socket=gone)
    structlog.get_logger().warning("alone")
    assert stream.getvalue().startswith('<4>{"timestamp"')


def test_the_ids_of_all_conditions_differ() -> None:
    page = (Path(__file__).parents[3] / "docs" / "conditions.md").read_text()
    names = re.findall(r'^\| <a id="[^"]+"></a>`([a-z0-9-]+)` \|', page, re.MULTILINE)
    assert len({event_id(name) for name in names}) == len(names) > 50
