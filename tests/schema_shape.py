"""Whether something is what a JSON Schema says, in as much of the language as ours use."""

import re
from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
UNDERSTOOD = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "default", "examples"),
    *("type", "enum", "anyOf", "properties", "required", "additionalProperties", "items"),
    *("minimum", "maximum", "pattern"),
}


def accepts(whole: dict[str, Any], told: Any, schema: dict[str, Any] | None = None) -> bool:
    schema = whole if schema is None else schema
    assert schema.keys() <= UNDERSTOOD, schema.keys() - UNDERSTOOD
    if "$ref" in schema:
        return accepts(whole, told, whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return any(accepts(whole, told, one) for one in schema["anyOf"])
    if "type" in schema and not _is(told, schema["type"]):
        return False
    if "enum" in schema and told not in schema["enum"]:
        return False
    if isinstance(told, str):
        return re.search(schema.get("pattern", ""), told) is not None
    if _is(told, "integer"):
        return schema.get("minimum", told) <= told <= schema.get("maximum", told)
    if isinstance(told, list):
        return all(accepts(whole, one, schema.get("items", {})) for one in told)
    return not isinstance(told, dict) or _has_members(whole, told, schema)


def _is(told: Any, kind: str) -> bool:
    return isinstance(told, KINDS[kind]) and (kind == "boolean" or not isinstance(told, bool))


def _has_members(whole: dict[str, Any], told: dict[str, Any], schema: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    if not set(schema.get("required", ())) <= told.keys():
        return False
    if schema.get("additionalProperties", True) is False and not told.keys() <= known.keys():
        return False
    return all(accepts(whole, value, known.get(name, {})) for name, value in told.items())
