"""How often an endpoint is asked whether it is open to all."""

from __future__ import annotations

import math

from agent.etcd.client import EtcdClient
from agent.etcd.endpoint_check import EndpointCheck
from agent.model import Condition
from agent.settings import EtcdSettings

_ENDPOINT = "https://192.0.2.1:2379"


class Endpoint:
    """A client of one endpoint; ``answers`` are used up."""

    def __init__(self, *answers: bool) -> None:
        self.settings = EtcdSettings(endpoints=(_ENDPOINT,))
        self.endpoints = (_ENDPOINT,)
        self.clusters = EtcdClient(self.settings).clusters
        self.answers = list(answers)

    def asks_for_no_account(self, _endpoint: str) -> bool:
        return self.answers.pop(0)


def check_of(endpoint: Endpoint, **pauses_s: float) -> tuple[EndpointCheck, list[str]]:
    found: list[str] = []

    def heard(conditions: tuple[Condition, ...]) -> None:
        found[:] = [each.name for each in conditions]

    check = EndpointCheck(endpoint, heard, **pauses_s)  # type: ignore[arg-type]
    check._hourly_due_s = math.inf  # no server is there
    return check, found


def test_an_open_endpoint_is_not_asked_in_every_round() -> None:
    endpoint = Endpoint(True)
    check, found = check_of(endpoint, open_again_s=3600)
    for _ in range(3):
        check.run()
    assert found == ["etcd-open"]
    assert not endpoint.answers


def test_an_endpoint_that_is_closed_now_is_no_condition_any_more() -> None:
    endpoint = Endpoint(True, False)
    check, found = check_of(endpoint, open_again_s=0)
    check.run()
    check.run()
    assert found == []
    check.run()  # closed ones are asked once an hour
    assert not endpoint.answers
