"""docs/conditions.md names every condition that the code can raise, and none that it cannot."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[4]
NAME = re.compile(r"[a-z]+(-[a-z0-9]+)+")


def names_in_code() -> Iterator[str]:
    """Literals in ``name=`` of Condition(…), also from tables beside it; and those of kinds."""
    for path in (ROOT / "agent").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RetryingJob":
                yield from _literals(node.args[0], tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Kind":
                said = {each.arg: each.value for each in node.keywords}
                if "is_own" in said:
                    yield from _of_kind(said["name"], said["is_own"], tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Condition":
                for keyword in node.keywords:
                    if keyword.arg == "name":
                        yield from _literals(keyword.value, tree)


def _of_kind(name: ast.expr, is_own: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Where every object is the agent's own, none of another program can be in the way."""
    whats: tuple[str, ...] = ("fight", "refused")
    if ast.unparse(is_own) != "lambda _: True":
        whats = (*whats, "conflict")
    for kind in _literals(name, tree):
        yield from (f"{kind}-{what}" for what in whats)


def _literals(value: ast.expr, tree: ast.Module) -> Iterator[str]:
    if isinstance(value, ast.Constant):
        yield str(value.value)
    elif isinstance(value, ast.IfExp):
        yield from _literals(value.body, tree)
        yield from _literals(value.orelse, tree)
    elif isinstance(value, ast.Name):
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and any(
                node is value for node in ast.walk(function)
            ):
                for node in ast.walk(function):
                    if (
                        isinstance(node, ast.Constant)
                        and isinstance(node.value, str)
                        and NAME.fullmatch(node.value)
                        and node.value != "mesh-config"
                    ):
                        yield node.value


def test_the_page_and_the_code_agree() -> None:
    page = (ROOT / "docs" / "conditions.md").read_text()
    # Each is an anchor, too: alerts link to it.
    documented = set(re.findall(r'^\| <a id="([a-z0-9-]+)"></a>`\1` \|', page, re.MULTILINE))
    raised = set(names_in_code())
    assert raised - documented == set(), "raised and not documented"
    assert documented - raised == set(), "documented and not raised"
