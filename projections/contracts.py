"""Contracts: every version that was signed, with its terms, until when each holds, and what is counted.

Grants and terms are kept as the log has them: they are shown whole, and nobody searches in them.
"""

from typing import Any

import msgspec
from msgspec import Struct

from ..domain.agreed import ContractSigned
from ..domain.contract import ContractEnded, ContractRenewed, Grant
from ..domain.terms import Terms
from ..domain.usage_type import UsageTypeDefined
from .chunk import Chunk
from .tables import Connection, Table

VERSIONS = Table(
    "contract_versions",
    {"contract": "text", "version": "integer"},
    {"starts_on": "text", "overage": "boolean", "grants": "text", "terms": "text"}
    | {"note": "text", "seq": "bigint"},
)
ENDS = Table(
    "contract_ends",
    {"contract": "text"},
    {"ends_on": "text", "ended": "boolean", "note": "text", "seq": "bigint"},
)
TYPES = Table("usage_types", {"name": "text"}, {"unit": "text", "note": "text", "seq": "bigint"})
TABLES = (VERSIONS, ENDS, TYPES)
VERSION = 1

_encode = msgspec.json.Encoder().encode
_decode_grants = msgspec.json.Decoder(tuple[Grant, ...]).decode
_decode_terms = msgspec.json.Decoder(Terms).decode


class Version(Struct, frozen=True):
    version: int
    starts_on: str
    overage: bool
    grants: tuple[Grant, ...]
    terms: Terms
    note: str
    seq: int


class Contract(Struct, frozen=True):
    id: str
    ends_on: str
    """The last day that is covered; "" means until further notice."""
    ended: bool
    """Somebody has ended it: it does not renew itself."""
    versions: tuple[Version, ...]
    """In the order they were signed."""
    seq: int
    """Of the event that signed it first."""


class DefinedType(Struct, frozen=True):
    """A usage type that the carrier has defined."""

    name: str
    unit: str
    note: str
    seq: int


def apply(chunk: Chunk, db: Connection) -> None:
    versions: list[tuple[Any, ...]] = []
    ends: dict[Any, tuple[Any, ...]] = {}
    types: list[tuple[Any, ...]] = []
    for told in chunk.others:
        match told.event:
            case ContractSigned() as signed:
                versions.append(
                    (
                        *(signed.contract, signed.version, signed.starts_on, signed.overage),
                        *(_encode(signed.grants).decode(), _encode(signed.agreed).decode()),
                        *(signed.note, told.seq),
                    )
                )
                ends[(signed.contract,)] = (signed.agreed.ends_on, False, "", told.seq)
            case ContractEnded(contract, ends_on, note):
                ends[(contract,)] = (ends_on, True, note, told.seq)
            case ContractRenewed(contract, ends_on, note):
                ends[(contract,)] = (ends_on, False, note, told.seq)
            case UsageTypeDefined(name, unit, note):
                types.append((name, unit, note, told.seq))
    VERSIONS.insert(db, versions)
    ENDS.put(db, ends)
    TYPES.insert(db, types)


# --- queries ---------------------------------------------------------------------------------


def contracts(db: Connection, ident: str | None = None) -> list[Contract]:
    """All, in the order they were first signed; or the one of this name."""
    columns = ", ".join(f"v.{name}" for name in VERSIONS.columns)
    found = db.execute(
        f"SELECT {columns}, e.ends_on, e.ended FROM contract_versions v "
        "JOIN contract_ends e ON e.contract = v.contract WHERE %(id)s::text IS NULL OR v.contract = %(id)s "
        "ORDER BY v.seq",
        {"id": ident},
    ).fetchall()
    by_name: dict[str, list[tuple[Any, ...]]] = {}
    for row in found:
        by_name.setdefault(row[0], []).append(row)
    return [_contract(name, rows) for name, rows in by_name.items()]


def usage_types(db: Connection) -> list[DefinedType]:
    """Those that the carrier has defined, in that order."""
    found = db.execute(f"SELECT {', '.join(TYPES.columns)} FROM usage_types ORDER BY seq")
    return [DefinedType(*row) for row in found]


def _contract(name: str, rows: list[tuple[Any, ...]]) -> Contract:
    ends_on, ended = rows[0][-2:]
    return Contract(name, ends_on, ended, tuple(_version(row) for row in rows), rows[0][7])


def _version(row: tuple[Any, ...]) -> Version:
    _, version, starts_on, overage, grants, terms, note, seq, *_ = row
    return Version(version, starts_on, overage, _decode_grants(grants), _decode_terms(terms), note, seq)
