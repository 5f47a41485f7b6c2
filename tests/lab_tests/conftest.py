"""Labs for the lab's own tests."""

from collections.abc import Iterator

import pytest
from hostmesh_lab import machine_state
from hostmesh_lab.lab import Lab, LabOptions
from hostmesh_lab.machines.kinds import HostOptions

NO_AGENT = HostOptions(agent=False, reject_forward=True)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts without agents whose Docker has addresses as an agent would give them."""
    name = "labtest"
    before = machine_state.look(lab=name)
    differ = {
        f"host{n}": HostOptions(
            agent=False, reject_forward=True, daemon_json={"bip": f"10.{63 + n}.0.1/17"}
        )
        for n in (1, 2)
    }
    with Lab.up(LabOptions(name=name, hosts=2, host=NO_AGENT, hosts_differ=differ)) as made:
        failed = request.session.testsfailed
        yield made
        if request.session.testsfailed > failed:
            logs = tmp_path_factory.mktemp("lab-logs")
            made.copy_logs(logs)
            print(f"the lab's logs: {logs}")
    assert machine_state.lasting_differences(before, lab=name) == []
