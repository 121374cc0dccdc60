"""The documents that are printed from the code: `make docs` renews them, a test compares them.

`python -m allotment.backend.documents` writes them all below the folder it is run in.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import inspect as types

from ..domain.events import SCHEMA, TOPICS
from ..graphql.schema import schema_sdl
from ..tenants.own_rates_file import own_rates_schema_document
from ..tenants.tariff_file import tariff_schema_document
from .settings import settings_document
from .web.charging_openapi import charging_openapi


def events_document() -> str:
    """`docs/events.md`: every topic, with its fields in the order in which they are stored."""
    return "\n".join([*_HEAD, *(line for topic in sorted(TOPICS) for line in _topic(topic))])


def charging_document() -> str:
    """`docs/charging.openapi.json`: what the charging door takes and answers."""
    return json.dumps(charging_openapi(), indent=2) + "\n"


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/events.md": events_document,
    "docs/settings.md": settings_document,
    "docs/tariff.schema.json": tariff_schema_document,
    "docs/own-rates.schema.json": own_rates_schema_document,
    "graphql/schema.graphql": schema_sdl,
    "docs/charging.openapi.json": charging_document,
}

_HEAD = [
    "# Events",
    "",
    f"Every event an enterprise's log may hold, schema version {SCHEMA}. The stored state is msgpack of",
    "`[schema, actor, digest, [fields in this order]]`; times are microseconds since the epoch, UTC;",
    "sealed fields open only with their subject's key. Names never change their meaning.",
    "",
    "This page is printed from `domain/`; `make docs` renews it.",
    "",
]


def _topic(topic: str) -> Iterator[str]:
    event = TOPICS[topic]
    yield f"## {topic}"
    yield ""
    yield inspect.cleandoc(event.__dict__["__doc__"])
    yield ""
    yield "| field | type |"
    yield "|---|---|"
    described = types.type_info(event)
    assert isinstance(described, types.StructType)
    for field in described.fields:
        yield f"| `{field.name}` | {_name(field.type)} |"
    yield ""


def _name(described: types.Type) -> str:
    match described:
        case types.VarTupleType(item):
            return f"list of {_name(item)}"
        case types.TupleType(items):
            return f"({', '.join(_name(item) for item in items)})"
        case types.UnionType(kinds):
            return " or ".join(_name(kind) for kind in kinds)
        case types.StructType(struct):
            return f"`{struct.__name__}` ({', '.join(field.name for field in described.fields)})"
        case types.LiteralType(values):
            return " or ".join(f'"{value}"' for value in values)
        case _:
            return _PLAIN[type(described)]


_PLAIN: dict[type, str] = {
    types.StrType: "text",
    types.IntType: "integer",
    types.BoolType: "true or false",
    types.BytesType: "bytes",
    types.NoneType: "nothing",
}


def main() -> None:
    for path, document in DOCUMENTS.items():
        Path(path).write_text(document())


if __name__ == "__main__":
    main()
