"""Kinds of invoice lines: what the lines of all nodes have in common, said once, and a number for it.

The number is a function of the kind alone. So a line is found by two integers, whoever counts it and
however the log is cut; compared text after text it cost PostgreSQL more than half again.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

import msgspec

from ..domain.refusals import InvariantBroken
from .tables import Connection, Table, int8_array

Kind = tuple[str, str, str, str, int, int]
"""Period, usage type, direction, zone, tariff version, and which of its rates."""

KINDS = Table(
    "invoice_kinds",
    {"kind": "bigint"},
    {"period": "text", "usage_type": "text", "direction": "text", "zone": "text"}
    | {"tariff": "integer", "rate": "integer"},
)
KNOWN_MAX = 100_000
"""Numbers remembered: a large tariff has tens of thousands of rates, each its own in every period."""

_encode = msgspec.json.Encoder().encode


@lru_cache(KNOWN_MAX)
def number_of(kind: Kind) -> int:
    """For ever the same: rows are found by it."""
    return int.from_bytes(sha256(_encode(kind)).digest()[:8], "big", signed=True)


def store(db: Connection, kinds: Mapping[int, Kind], known: set[int]) -> None:
    """Those that are not held yet. `known` ones are, and what is held now is known from then on."""
    wanted = kinds.keys() - known
    if not wanted:
        return
    new = {number: kinds[number] for number in wanted - _held(db, kinds, wanted)}
    KINDS.insert(db, [(number, *kind) for number, kind in sorted(new.items())])
    if len(known) > KNOWN_MAX:
        known.clear()
    known |= wanted


def _held(db: Connection, kinds: Mapping[int, Kind], wanted: Iterable[int]) -> set[int]:
    found = db.execute(_HELD, (int8_array(sorted(wanted)),), prepare=False).fetchall()
    for number, *kind in found:
        if tuple(kind) != kinds[number]:
            raise InvariantBroken("a number is of one kind of lines", number=number, held=kind)
    return {number for number, *_ in found}


_HELD = f"SELECT {', '.join(KINDS.columns)} FROM invoice_kinds WHERE kind = ANY(%s::bigint[])"
