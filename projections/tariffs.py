"""Tariffs: which versions there are, how each was made, and which were withdrawn.

What a version says stands in its event, and in the state; here is when it holds and who it came from.
"""

from msgspec import Struct

from ..domain.rating.amending import TariffAmended, TariffWithdrawn
from ..domain.rating.overriding import RatesOverridden
from ..domain.tariff import TariffPublished
from .chunk import Chunk
from .tables import Connection, Table

VERSIONS = Table(
    "tariff_versions",
    {"version": "integer"},
    {
        "made": "text",
        "tariff": "text",
        "valid_from": "bigint",
        "currency": "text",
        "base": "integer",
        "since": "bigint",
        "note": "text",
        "seq": "bigint",
        "recorded_at": "bigint",
    },
)
WITHDRAWN = Table("tariff_withdrawals", {"version": "integer"}, {"note": "text", "seq": "bigint"})
TABLES = (VERSIONS, WITHDRAWN)
VERSION = 1

PUBLISHED, AMENDED, OVERRIDDEN = "published", "amended", "overridden"


class TariffVersion(Struct, frozen=True):
    version: int
    made: str
    tariff: str
    valid_from: int
    currency: str
    base: int
    """The version that it was made of; 0: of none."""
    since: int
    """From when on the own rates hold that are laid over its base."""
    note: str
    seq: int
    recorded_at: int
    withdrawn: bool
    withdrawn_note: str


def apply(chunk: Chunk, db: Connection) -> None:
    for told in chunk.others:
        event = told.event
        match event:
            case TariffPublished():
                made, base, since, note = PUBLISHED, 0, event.valid_from, ""
            case TariffAmended():
                made, base, since, note = AMENDED, event.change.of, event.valid_from, event.note
            case RatesOverridden():
                made, base, since, note = OVERRIDDEN, event.of, event.since, event.note
            case TariffWithdrawn():
                WITHDRAWN.insert(db, [(event.version, event.note, told.seq)])
                continue
            case _:
                continue
        about = (event.version, made, event.tariff, event.valid_from, event.currency)
        VERSIONS.insert(db, [(*about, base, since, note, told.seq, told.recorded_at)])


def versions_page(db: Connection, first: int, before: int | None = None) -> list[TariffVersion]:
    """The newest first; `before` a version."""
    columns = ", ".join(f"v.{column}" for column in VERSIONS.columns)
    found = db.execute(
        f"SELECT {columns}, w.seq IS NOT NULL, coalesce(w.note, '') FROM tariff_versions v "
        "LEFT JOIN tariff_withdrawals w ON w.version = v.version "
        "WHERE %(before)s::integer IS NULL OR v.version < %(before)s ORDER BY v.version DESC LIMIT %(first)s",
        {"before": before, "first": first},
    )
    return [TariffVersion(*row) for row in found]
