"""Fees: what was charged once, and what is owed for being there, as lines of an invoice.

One-off fees stand in the log. Recurring ones are owed by the tariff versions in force, for who was
there; each line is one fee of one version at one node, exact, and rounded once as that version says.
Whoever is there now is taken to stay: the preview of a running period shows what it will come to.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from msgspec import Struct

from ..domain.one_off import FeeCharged, FeeCredited
from ..domain.rating.fees import Fee, Ruler, owed, shares
from ..domain.rating.rounding import round_to
from .chunk import Chunk
from .in_force import InForce, Published
from .presence import presences
from .tables import Connection, Table

ONE_OFF = Table(
    "one_off_fees",
    {"period": "text", "fee": "text", "credited": "boolean"},
    {"name": "text", "node": "integer", "amount": "bigint", "note": "text", "seq": "bigint"},
)
TABLES = (ONE_OFF,)
VERSION = 1


class FeeLine(Struct, frozen=True):
    """A fee on an invoice."""

    kind: str
    """"recurring", "one_off", or "credit" for one that was taken back."""
    node: int
    name: str
    amount: int
    """Micro-units; of a credit less than nothing."""
    fee: str = ""
    """The id of a one-off fee."""
    note: str = ""
    tariff: int = 0
    """Of a recurring fee: the version that says it, ..."""
    each: str = ""
    of_kind: str = ""
    price: str = ""
    """... for each and a whole period, ..."""
    share: tuple[int, int] = (1, 1)
    """... how many whole periods they were there, all together, ..."""
    exact: tuple[int, int] = (0, 1)
    """... and what that is before rounding."""


def apply(chunk: Chunk, db: Connection) -> None:
    rows: list[tuple[Any, ...]] = []
    for told in chunk.others:
        event = told.event
        if isinstance(event, FeeCharged | FeeCredited):
            credited = isinstance(event, FeeCredited)
            node, amount = chunk.ordinals.of[event.node], -event.amount if credited else event.amount
            rows.append((event.period, event.fee, credited, event.name, node, amount, event.note, told.seq))
    ONE_OFF.insert(db, rows)


# --- queries ---------------------------------------------------------------------------------


def one_off(db: Connection, period: str) -> list[FeeLine]:
    """What was charged once in a period, and taken back in it, in order."""
    found = db.execute(
        "SELECT credited, node, name, amount, fee, note FROM one_off_fees WHERE period = %s ORDER BY seq",
        (period,),
    )
    return [FeeLine("credit" if credited else "one_off", *row) for credited, *row in found]


def recurring(db: Connection, held: InForce) -> list[FeeLine]:
    """What is owed for being there, version by version, in the order of their fees."""
    return [line for published, fee in _fees(held.versions) for line in _lines(db, held, published, fee)]


def _fees(versions: Sequence[Published]) -> Iterator[tuple[Published, Fee]]:
    """A fee that is not prorated is that of the last version in force."""
    for place, published in enumerate(versions):
        for fee in published.fees:
            if fee.share != "whole" or place + 1 == len(versions):
                yield published, fee


def _lines(db: Connection, held: InForce, published: Published, fee: Fee) -> Iterator[FeeLine]:
    for node, share in sorted(_shares(db, held, published, fee).items()):
        yield _line(node, fee, published, share)


def _shares(db: Connection, held: InForce, published: Published, fee: Fee) -> dict[int, Fraction]:
    if fee.share == "whole":
        since, until = held.spans[0][0], held.spans[-1][1]
        return {one.node: Fraction(one.count) for one in presences(db, fee, since, until)}
    there = [one for since, until in published.spans for one in presences(db, fee, since, until)]
    return shares(Ruler(held.stretch, fee.share, held.zone), there)


def _line(node: int, fee: Fee, published: Published, share: Fraction) -> FeeLine:
    exact = owed(fee, share)
    amount = round_to(published.step, published.method, exact.numerator, exact.denominator)
    return FeeLine(
        *("recurring", node, fee.fee, amount),
        tariff=published.version,
        each=fee.each,
        of_kind=fee.kind,
        price=fee.amount,
        share=share.as_integer_ratio(),
        exact=exact.as_integer_ratio(),
    )
