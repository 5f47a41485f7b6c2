"""Give each module of tests of the name server a stage of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.names.stage import Stage, in_web


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("names"))
    try:
        for upstream in stage.upstreams:
            upstream.start()
        stage.set_upstreams("127.0.0.2")
        stage.write_host(in_web("10.65.1.2", "api"), in_web("10.65.1.3", "api", "db"))
        stage.write_local()
        stage.serve()
        yield stage
    finally:
        stage.close()


@pytest.fixture
def stage(_made: Stage) -> Iterator[Stage]:
    """The module's stage, with its names and upstreams as they were at first."""
    yield _made
    for upstream in _made.upstreams:
        upstream.fail()
        upstream.go_on()
    _made.set_upstreams("127.0.0.2")
    _made.write_host(in_web("10.65.1.2", "api"), in_web("10.65.1.3", "api", "db"))
    _made.write_local()
