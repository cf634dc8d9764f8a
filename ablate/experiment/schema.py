"""The JSON schema of a specification, for editors."""

from __future__ import annotations

from typing import Any

from ablate.experiment.chains import WrittenPolicy
from ablate.experiment.sections import SCALARS, SECTIONS, cell_keys
from ablate.experiment.spec import experiment_model


def experiment_schema() -> dict[str, Any]:
    """Return the schema: sections with all their parameters, grid blocks with every axis there is."""
    schema = experiment_model().model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    for name, model in SECTIONS.items():
        section = model.model_json_schema()
        definitions.update(section.pop("$defs", {}))
        if name != "data":
            section.pop("required", None)
            schema["properties"][name] = {"anyOf": [section, {"type": "null"}]} if name == "sft" else section
    schema["properties"]["reward_model"] = {"anyOf": [schema["properties"]["reward_model"], {"type": "string"}]}
    definitions["WrittenPolicy"] = WrittenPolicy.model_json_schema(by_alias=True)
    policy = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/WrittenPolicy"}]}
    schema["properties"]["policy"] |= {"anyOf": [*policy["anyOf"], {"type": "null"}]}
    schema["properties"]["extends"] = {
        "description": "File or files this one is merged over.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    axes: dict[str, Any] = {key: {} for key in sorted(cell_keys())} | {name: {} for name in (*SCALARS, *SECTIONS)}
    axes["policy"] = {"anyOf": [*policy["anyOf"], {"type": "array", "items": policy}]}
    block = {
        "type": "object",
        "properties": {**axes, "zip": {"type": "object", "properties": axes, "additionalProperties": False}},
        "additionalProperties": False,
    }
    schema["properties"]["grid"] = {
        "type": "array",
        "items": block,
        "description": schema["properties"]["grid"]["description"],
    }
    schema["title"] = "ablate experiment"
    return schema
