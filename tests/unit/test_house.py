"""The house stays readable: folders of at most 15 modules, each with a docstring that says why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

AGENT = Path(__file__).parents[2] / "agent"
MOST_MODULES = 15


def packages() -> list[Path]:
    return sorted(each.parent for each in AGENT.rglob("__init__.py"))


@pytest.mark.parametrize("folder", packages(), ids=lambda each: str(each.relative_to(AGENT.parent)))
def test_a_folder_has_few_modules_and_says_what_is_in_it(folder: Path) -> None:
    modules = [each for each in folder.glob("*.py") if each.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, "make a package in it for some of them"
    module = ast.parse((folder / "__init__.py").read_text())
    assert ast.get_docstring(module) or folder == AGENT
