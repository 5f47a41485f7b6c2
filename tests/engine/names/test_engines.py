"""Names on the other engines that a Debian host can have, with the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from hostmesh_lab.errors import LabError
from hostmesh_lab.filesystems import images
from hostmesh_lab.lab import Lab, LabOptions

from tests.engine.names import test_names as names

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["bookworm", "forky"])
def mesh(
    request: pytest.FixtureRequest,
    make_lab: Callable[[LabOptions], AbstractContextManager[Lab]],
) -> Iterator[Lab]:
    """Three hosts of a suite, with names."""
    suite: str = request.param
    try:
        images.ensure(suite, print)
    except LabError as error:
        pytest.skip(f"NOT TESTED: no root filesystem of {suite} could be made here: {error}")
    with make_lab(replace(names.LAB, name="names-engines", suite=suite)) as lab:
        yield lab


named = names.named
test_every_c_library = names.test_every_c_library_finds_a_container_of_another_host
test_hidden = names.test_a_container_gets_no_name_of_a_network_that_it_may_not_reach
test_health = names.test_an_unhealthy_container_is_answered_only_where_no_other_is_healthy
