"""Definition files: JSON that people write. What cannot be used is told with its path, value and remedy."""

import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect as types

T = TypeVar("T")

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_BYTE = re.compile(r"\(byte (?P<byte>[0-9]+)\)")
_PART = re.compile(r"\.?([^.\[\]]+)|\[([0-9]+)\]")
SHOWN_MAX = 60


class DefinitionError(ValueError):
    """The definition file cannot be read. Says where, and what was expected."""


def parse(text: bytes, kind: type[T], what: str) -> T:
    """What a file says, as a struct; `what` it is, for the sentence: "the tariff"."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise DefinitionError(f"{what} cannot be used: {_told(text, kind, str(error))}") from error
    except msgspec.DecodeError as error:
        raise DefinitionError(f"{what} cannot be used: it is no JSON: {_placed(text, str(error))}") from error
    except RecursionError:
        raise DefinitionError(f"{what} cannot be used: it is nested too deeply") from None


def wrong(path: str, value: object, remedy: str) -> DefinitionError:
    """What people are told of one field, everywhere alike."""
    shown = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    shown = f"{shown[:SHOWN_MAX]}..." if len(shown) > SHOWN_MAX else shown
    return DefinitionError(f"{path}: {shown}: {remedy}")


def _told(text: bytes, kind: type, message: str) -> str:
    parts = _AT.match(message)
    assert parts is not None
    what, path = parts["what"], (parts["path"] or "").lstrip(".")
    unknown, missing = _UNKNOWN.search(what), _MISSING.search(what)
    if unknown is not None:
        keys = ", ".join(_keys(kind, path))
        return f"{_below(path, unknown['name'])}: there is no such key: use {keys}"
    if missing is not None:
        return f"{_below(path, missing['name'])}: it is missing: add it"
    expected = _EXPECTED.search(what)
    if expected is not None and expected["wanted"] == "str" and expected["got"] in ("int", "float"):
        what = "write it as text, in quotes"
    elif expected is None:
        what = _allowed(kind, path) or what
    return str(wrong(path or "the file", _value(text, path), what))


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(text: bytes, path: str) -> Any:
    try:
        found: Any = msgspec.json.decode(text)
    except RecursionError:
        return "..."
    for name, place in _PART.findall(path):
        if name == "..." or (name and (not isinstance(found, dict) or name not in found)):
            return found
        found = found[name] if name else found[int(place)]
    return found


def _type_at(kind: type, path: str) -> types.Type | None:
    found: types.Type = types.type_info(kind)
    for name, place in _PART.findall(path):
        if isinstance(found, types.UnionType):
            found = next((one for one in found.types if not isinstance(one, types.NoneType)), found)
        if isinstance(found, types.Metadata):
            found = found.type
        if place and isinstance(found, types.VarTupleType):
            found = found.item_type
        elif isinstance(found, types.StructType):
            fields = {field.encode_name: field.type for field in found.fields}
            if name not in fields:
                return None
            found = fields[name]
        else:
            return None
    return found


def _keys(kind: type, path: str) -> list[str]:
    found = _type_at(kind, path)
    found = found.type if isinstance(found, types.Metadata) else found
    return [field.encode_name for field in found.fields] if isinstance(found, types.StructType) else []


def _allowed(kind: type, path: str) -> str:
    """What may stand there, as its type says."""
    found, examples = _type_at(kind, path), []
    if isinstance(found, types.Metadata):
        examples = (found.extra_json_schema or {}).get("examples", [])
        found = found.type
    if isinstance(found, types.LiteralType):
        return f"use one of {', '.join(str(value) for value in found.values if value)}"
    return f'write it such as "{examples[0]}"' if examples else ""


def _placed(text: bytes, message: str) -> str:
    """With the line, which an editor shows, in place of the byte."""
    found = _BYTE.search(message)
    if found is None:
        return message
    before = text[: int(found["byte"])]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return _BYTE.sub(f"(line {line}, column {column})", message)
