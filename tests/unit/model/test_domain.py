"""The domain of names, and how an operator names it."""

from __future__ import annotations

import pytest

from agent.model.domain import DEFAULT_DOMAIN, parse_names

pytestmark = pytest.mark.unit


def test_names_are_on_off_or_under_a_domain() -> None:
    assert parse_names("on") == DEFAULT_DOMAIN
    assert parse_names("off") == ""
    assert parse_names("Mesh.Example.ORG.") == "mesh.example.org"


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a.b", "a_b", "a b", "x" * 64, "a." * 61])
def test_a_domain_has_labels_that_dns_takes(text: str) -> None:
    with pytest.raises(ValueError, match="a domain has labels"):
        parse_names(text)
