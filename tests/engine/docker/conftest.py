"""Which engine tests are for `make test`: all on 26.1, those that matter most on the others."""

import pytest

EVERYWHERE = {
    "test_an_idle_engine_gets_the_lease_and_every_new_network_lies_in_it",
    "test_promise_7_an_engine_that_does_not_come_up_is_rolled_back_once",
}
LONG = {
    "test_containers_of_every_restart_policy_hold_the_restart_and_who_may_be_lost_is_named",
    "test_promise_6_a_kill_of_the_agent_at_each_write_step_is_recovered_from",
    "test_promise_7_where_the_former_file_does_not_start_either_the_operators_does",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the rest on the other engines to `make test-full`."""
    for item in items:
        name, _, parameters = item.name.partition("[")
        if item.path.name != "test_docker_engine.py" or name in EVERYWHERE:
            continue
        if name in LONG or parameters.startswith(("bookworm", "forky")):
            item.add_marker(pytest.mark.full)
