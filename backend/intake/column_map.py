"""Column maps: a format whose fields were given other places on the command line.

`line=Caller` reads a field from another column or path, `type:=voice` gives it always the same text.
What comes out is checked as if it had been declared so.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from .declaration import Format, Place
from .formats import FormatError
from .soundness import problems

FIELDS = ("id", "source", "line", "counterpart", "caller", "called", "direction", "type", "start", "quantity")
SETTINGS = ("unit", "round", "time_format", "zone", "region", "separator")
"""What is said of the file as a whole: always with ":="."""


def mapped(format: Format, told: Sequence[str]) -> Format:
    """The format with other places for some fields; raises FormatError."""
    for one in told:
        name, sign, text = one.partition("=")
        constant = name.endswith(":")
        name = name.removesuffix(":").strip()
        if not sign or not text or name not in (*FIELDS, *SETTINGS):
            known = ", ".join((*FIELDS, *SETTINGS))
            raise FormatError(f"--map {name}: write FIELD=COLUMN or FIELD:=TEXT, for one of {known}")
        if name in SETTINGS and not constant:
            raise FormatError(f"--map {name}: is not read from a column; write {name}:=TEXT")
        format = _with(format, name, Place(constant=text) if constant else Place(at=text), text)
    if told and (found := next(problems(format), None)) is not None:
        raise FormatError(f"format {format.name!r} with --map: {found[0]}: {found[1]}")
    return format


def _with(format: Format, name: str, place: Place, text: str) -> Format:
    replace: Any = msgspec.structs.replace
    fields, times, quantity = format.fields, format.times, format.quantity
    if name in ("caller", "called"):
        others = {"line": None, "counterpart": None} if fields.caller is None else {}
        changed = replace(format, fields=replace(fields, **{name: place}, **others))
    elif name in FIELDS and name not in ("start", "quantity"):
        field = "usage_type" if name == "type" else name
        changed = replace(format, fields=replace(fields, **{field: place}))
    elif name == "start":
        changed = replace(format, times=replace(times, at={**times.at, times.started_at[0]: place}))
    elif name in ("time_format", "zone"):
        changed = replace(format, times=replace(times, **{name.removeprefix("time_"): text}))
    elif name in ("quantity", "unit", "round"):
        key = "at" if name == "quantity" else name
        changed = replace(format, quantity=replace(quantity, **{key: place if key == "at" else text}))
    elif name == "region":
        changed = replace(format, numbers=replace(format.numbers, region=text))
    else:
        changed = replace(format, csv=replace(format.csv, separator=text))
    return _as_declared(changed)


def _as_declared(format: Format) -> Format:
    """The format, if a file could say the same."""
    try:
        return msgspec.convert(msgspec.to_builtins(format), Format)
    except msgspec.ValidationError as error:
        raise FormatError(f"--map: {error}") from error
