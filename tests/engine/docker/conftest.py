"""Which engine tests are for `make test`: those on 28.5, the rest is for `make test-full`."""

import pytest

LONG = {
    "test_containers_of_every_restart_policy_hold_the_restart_and_those_at_risk_are_named",
    "test_promise_6_a_kill_of_the_agent_at_each_write_step_is_recovered_from",
    "test_promise_7_where_the_previous_file_does_not_start_either_the_operators_does",
    "test_promise_6_killed_after_docker_made_it_nothing_is_made_twice",
    "test_it_survives_a_restart_of_dockerd_with_and_without_live_restore",
    "test_promise_3_a_dockerd_that_is_frozen_or_restarts_with_live_restore",
    "test_containers_that_a_restart_of_dockerd_ends_are_gone",
}
DRIVEN = {"test_docker_engine.py", "test_endpoints.py", "test_networks.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the other engines and the long tests to `make test-full`."""
    for item in items:
        name, _, parameters = item.name.partition("[")
        if item.path.name not in DRIVEN:
            continue
        if name in LONG or not parameters.startswith("forky"):
            item.add_marker(pytest.mark.full)
