# ruff: noqa: ANN401 - JSON is anything
"""The schemas that the package ships, and a stricter reading of them for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parents[3] / "agent" / "ctl" / "schemas"


def strict(schema: Any) -> Any:
    """Return the schema so that it refuses fields that it does not name, as undocumented."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def check(name: str, document: Any) -> None:
    """Fail unless ``document`` is what the schema says and nothing more."""
    schema = strict(json.loads((FOLDER / f"{name}.json").read_text()))
    jsonschema.Draft202012Validator(schema).validate(document)
