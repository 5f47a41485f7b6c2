"""Folders stay small: at most 15 modules in each; packages say what is in them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
MOST_MODULES = 15


def folders() -> list[Path]:
    found = {
        each.parent for top in ("agent", "tests", "deploy") for each in (ROOT / top).rglob("*.py")
    }
    return sorted(found)


@pytest.mark.parametrize("folder", folders(), ids=lambda each: str(each.relative_to(ROOT)))
def test_a_folder_has_few_modules_and_says_what_is_in_it(folder: Path) -> None:
    modules = [each for each in folder.glob("*.py") if each.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, "make a package in it for some of them"
    package = folder / "__init__.py"
    if package.exists() and folder != ROOT / "agent":
        assert ast.get_docstring(ast.parse(package.read_text())), "say what is in it"
