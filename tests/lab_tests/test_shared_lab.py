"""The order in which modules share labs."""

from types import SimpleNamespace

import pytest
from hostmesh_lab.lab import LabOptions
from hostmesh_lab.machines.kinds import HostOptions

from tests.engine.sharedlab import in_order, wanted_after

pytestmark = pytest.mark.unit


def module(**constants: object) -> SimpleNamespace:
    return SimpleNamespace(**constants)


def test_modules_with_equal_options_run_side_by_side_and_the_one_that_changes_its_lab_last() -> (
    None
):
    def three() -> LabOptions:
        return LabOptions(name="mesh", hosts=3, host=HostOptions(reject_forward=True))

    first = module(LAB=three(), LAB_LAST=True)
    other = module(LAB=LabOptions(name="other"))
    own, another = module(), module()
    late = module(LAB=three())
    order = in_order([first, other, own, another, late])
    assert order == [late, first, other, own, another]
    assert wanted_after(order, late) == three()
    assert wanted_after(order, first) == other.LAB
    assert wanted_after(order, other) is None
    assert wanted_after(order, another) is None
