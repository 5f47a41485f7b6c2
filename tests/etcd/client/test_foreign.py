"""An endpoint of another cluster in the list: left out, reported, never taken for the mesh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.errors import EtcdUnavailable
from agent.etcd.endpoint_check import EndpointCheck
from agent.registry.directory import Directory
from tests.etcd.support.etcdlab import Etcd, Heard, config, host, registry, renew, request
from tests.waiting import eventually

pytestmark = pytest.mark.etcd


@pytest.fixture
def other() -> Iterator[Etcd]:
    """A second cluster, with a mesh of its own under the same prefix."""
    with Etcd(arguments=["--initial-cluster-token", "other"]) as etcd:
        with registry(etcd) as mesh:
            mesh.create_config(config("10.96.0.0/12"))
            for number in range(20, 23):
                mesh.claim(request(number))
        yield etcd


def _written(etcd: Etcd) -> str:
    return etcd.ctl("get", "--prefix", "--keys-only", "/hostmesh/")


def test_promise_4_fail_over_to_another_cluster_is_no_fail_over(etcd: Etcd, other: Etcd) -> None:
    """The right one dies: the mesh is out of reach, and nothing is read from or written to the
    other; when it is back, work goes on there."""
    before = _written(other)
    with registry(etcd, other) as mesh:
        mesh.create_config(config())
        lease = mesh.claim(request(1))
        views, problems = Heard(), Heard()
        directory = Directory(mesh, views, problems)
        directory.start()
        eventually(lambda: views.last)
        etcd.kill()
        eventually(lambda: problems.last and problems.last[0] is not None, timeout_s=20)
        with pytest.raises(EtcdUnavailable):
            mesh.claim(request(2))
        with pytest.raises(EtcdUnavailable):
            renew(mesh, lease, memory_ttl_s=3600)
        etcd.start()
        etcd.wait_healthy()
        again = eventually(lambda: _claimed(mesh), timeout_s=20)
        eventually(lambda: views.last.lease_of(host(2)) == again, timeout_s=20)
        directory.stop()
        assert len({view.cluster_id for view in views.items}) == 1
    assert _written(other) == before


def _claimed(mesh: object) -> object:
    try:
        return mesh.claim(request(2))  # type: ignore[attr-defined]
    except EtcdUnavailable:
        return None


def test_promise_4_the_copys_cluster_decides_which_endpoint_is_right(
    etcd: Etcd, other: Etcd
) -> None:
    """The foreign endpoint is first in the list; the host remembers which cluster was its own."""
    with registry(etcd) as mesh:
        mesh.create_config(config())
        pinned = mesh.snapshot().cluster_id
    before = _written(other)
    with registry(other, etcd) as mesh:
        mesh.client.clusters.pin(pinned)
        assert mesh.snapshot().cluster_id == pinned
        mesh.claim(request(1))
    assert _written(other) == before


def test_an_endpoint_of_another_cluster_is_told_though_it_was_never_used(
    etcd: Etcd, other: Etcd
) -> None:
    heard = Heard()
    with registry(etcd, other) as mesh:
        mesh.create_config(config())
        survey = EndpointCheck(mesh.client, heard, every_s=0.2)
        survey.start()
        (condition,) = eventually(lambda: heard.last)
        assert (condition.name, condition.subject) == ("etcd-endpoint-foreign", other.endpoint)
        assert f"{mesh.snapshot().cluster_id:x}" in condition.cause
        survey.stop()


def test_a_foreign_endpoint_that_is_no_endpoint_any_more_is_no_condition(
    etcd: Etcd, other: Etcd
) -> None:
    """DNS named two and names one now, which is never left out."""
    heard = Heard()
    with registry(etcd, other) as mesh:
        mesh.create_config(config())
        survey = EndpointCheck(mesh.client, heard, every_s=0.2)
        survey.start()
        eventually(lambda: heard.last)
        mesh.client.use((etcd.endpoint,))
        eventually(lambda: heard.last == ())
        mesh.client.use((etcd.endpoint, other.endpoint))
        eventually(lambda: heard.last)
        survey.stop()


def test_promise_4_a_cluster_that_was_replaced_is_still_seen_for_the_alarm(
    etcd: Etcd, other: Etcd
) -> None:
    """Both endpoints say another cluster than the copy: then that is what there is to judge."""
    with registry(etcd, other) as mesh:
        mesh.client.clusters.pin(1)
        other.kill()
        assert eventually(lambda: _snapshot(mesh), timeout_s=20)


def _snapshot(mesh: object) -> object:
    try:
        return mesh.snapshot()  # type: ignore[attr-defined]
    except EtcdUnavailable:
        return None
