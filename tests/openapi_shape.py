"""Whether something has the shape that an OpenAPI document says it has, in as much of it as ours uses."""

from typing import Any

from schema_shape import KINDS


def check(document: dict[str, Any], schema: dict[str, Any], told: Any, where: str = "$") -> None:
    """Raises AssertionError with the place that does not fit."""
    if "$ref" in schema:
        return check(document, document["components"]["schemas"][schema["$ref"].split("/")[-1]], told, where)
    if "anyOf" in schema:
        assert any(fits(document, one, told) for one in schema["anyOf"]), (where, told)
        return None
    assert "const" not in schema or told == schema["const"], (where, told)
    assert "enum" not in schema or told in schema["enum"], (where, told)
    if "type" in schema:
        assert isinstance(told, KINDS[schema["type"]]), (where, told)
    assert told >= schema.get("minimum", told) if isinstance(told, int) else True, (where, told)
    if isinstance(told, dict):
        _check_members(document, schema, told, where)
    if isinstance(told, list):
        for place, item in enumerate(told):
            check(document, schema.get("items", {}), item, f"{where}[{place}]")
    return None


def fits(document: dict[str, Any], schema: dict[str, Any], told: Any) -> bool:
    try:
        check(document, schema, told)
    except AssertionError:
        return False
    return True


def _check_members(
    document: dict[str, Any], schema: dict[str, Any], told: dict[str, Any], where: str
) -> None:
    known = schema.get("properties", {})
    assert set(schema.get("required", ())) <= set(told), (where, told)
    for name, value in told.items():
        if name in known:
            check(document, known[name], value, f"{where}.{name}")
        else:
            assert schema.get("additionalProperties", True) is not False, f"{where}.{name} is not told of"


def check_answer(document: dict[str, Any], path: str, answer: Any) -> None:
    """An answer of an operation, by its status."""
    kind = path.rsplit("/", 1)[-1]
    suffix = "" if kind == "chargingdata" else f"/{{ChargingDataRef}}/{kind}"
    answers = document["paths"][f"/v1/charging/chargingdata{suffix}"]["post"]["responses"]
    told = answers.get(str(answer.status_code), answers["default"])
    for media_type, content in told.get("content", {}).items():
        assert answer.headers["content-type"] == media_type
        check(document, content["schema"], answer.json())
