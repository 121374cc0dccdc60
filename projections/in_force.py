"""In force: what a period's fees and plans are owed by: its stretch, who is covered when, which tariff.

Read from what views keep of the log, so that a look back finds what was in force as of then. Of a period
that is closed it is what was known when it closed: a version published later changes nothing of it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from ..domain.agreed import ContractSigned
from ..domain.calendar import Stretch, local_day, stretch_at
from ..domain.contract import ContractEnded, ContractRenewed, Contracts, PeriodOpened
from ..domain.rating.fees import Fee
from ..domain.rating.language import DECIMALS_MAX, Method
from ..domain.rating.plan import PricePlan
from ..domain.refusals import Refused
from ..domain.rollover import closes_at
from .contracts import contracts
from .tables import Connection

Span = tuple[int, int]
Row = tuple[Any, ...]

_decode_plans = msgspec.json.Decoder(tuple[PricePlan, ...]).decode
_decode_fees = msgspec.json.Decoder(tuple[Fee, ...]).decode


class Published(Struct, frozen=True):
    """A tariff version, while it holds in a period."""

    version: int
    method: Method
    decimals: int
    plans: tuple[PricePlan, ...]
    fees: tuple[Fee, ...]
    spans: Sequence[Span]
    """The parts of the period that it holds for and a contract covers."""

    @property
    def step(self) -> int:
        return int(10 ** (DECIMALS_MAX - self.decimals))


class InForce(Struct, frozen=True):
    zone: ZoneInfo
    stretch: Stretch
    """The whole one, of which the period is a part, or all."""
    spans: Sequence[Span]
    """The parts of the period that a contract covers."""
    versions: Sequence[Published]
    """In order of time; those with neither plans nor fees as well."""


def in_force(db: Connection, period: str, *, by_now: bool = False) -> InForce | None:
    """None where no contract covers any of it, or no tariff had plans or fees.

    `by_now`: as if it had been known at its close already what is known now.
    """
    rows = db.execute(_TARIFFS).fetchall()
    if not any(row[4] != "[]" or row[5] != "[]" for row in rows):
        return None
    agreed = agreed_in(db)
    try:
        starts_at, ends_at = agreed.bounds(period)
    except Refused:
        return None
    spans = [
        (max(starts_at, span.starts_at), min(ends_at, span.ends_at))
        for span in agreed.agreed.spans
        if span.starts_at < ends_at and starts_at < span.ends_at
    ]
    if not spans:
        return None
    whole = _stretch(agreed, period, spans[0][0], (starts_at, ends_at))
    if not by_now:
        rows = _known(agreed, period, rows)
    versions = [
        Published(
            *(version, method, decimals, _decode_plans(plans), _decode_fees(fees)),
            spans=[*_within(spans, since, until)],
        )
        for (_, version, method, decimals, plans, fees, _), since, until in _turns(rows, starts_at, ends_at)
    ]
    return InForce(agreed.zone, whole, spans, versions)


def _known(agreed: Contracts, period: str, rows: list[Row]) -> list[Row]:
    """Of the versions: those that were known when the period closed, if it ever does."""
    opened = agreed.periods.get(period)
    closes = closes_at(agreed, opened) if opened is not None else None
    return rows if closes is None else [row for row in rows if row[6] < closes]


def _turns(rows: Sequence[Row], starts_at: int, ends_at: int) -> Iterator[tuple[Row, int, int]]:
    """Which version holds from when to when. Of two that begin at one moment the later one holds."""
    begins = sorted({starts_at, *(row[0] for row in rows if starts_at < row[0] < ends_at)})
    for since, until in pairwise([*begins, ends_at]):
        held = [row for row in rows if row[0] <= since]
        if held:
            yield max(held, key=lambda row: (row[0], row[1])), since, until


def _within(spans: Sequence[Span], since: int, until: int) -> Iterator[Span]:
    for begins, ends in spans:
        if max(begins, since) < min(ends, until):
            yield max(begins, since), min(ends, until)


def _stretch(agreed: Contracts, period: str, at: int, bounds: Span) -> Stretch:
    opened = agreed.periods.get(period)
    held = agreed.agreed.at(at)
    if opened is not None:
        calendar = agreed.terms_of(opened).calendar
    else:
        assert held is not None
        calendar = held.signed.agreed.calendar
    found = stretch_at(calendar, at, agreed.zone)
    return found or Stretch(local_day(bounds[0], agreed.zone), *bounds)


def agreed_in(db: Connection) -> Contracts:
    """What was agreed, as the rules hold it."""
    agreed = Contracts()
    zone = db.execute("SELECT time_zone FROM tenant_facts ORDER BY seq LIMIT 1").fetchone()
    agreed.zone = ZoneInfo(zone[0] if zone else "UTC")
    found = contracts(db)
    signed = [(version, contract) for contract in found for version in contract.versions]
    for version, contract in sorted(signed, key=lambda pair: pair[0].seq):
        about = (contract.id, version.version, version.starts_on, version.grants, version.overage)
        agreed.apply(ContractSigned(*about, version.terms))
    for contract in found:
        ending = ContractEnded if contract.ended else ContractRenewed
        agreed.apply(ending(contract.id, contract.ends_on))
    for row in db.execute(_PERIODS):
        agreed.apply(PeriodOpened(*row))
    return agreed


_TARIFFS = (
    "SELECT t.valid_from, version, t.method, t.decimals, t.plans, t.fees, v.recorded_at "
    "FROM tariffs t JOIN tariff_versions v USING (version) "
    "WHERE NOT EXISTS (SELECT FROM tariff_withdrawals w WHERE w.version = t.version) ORDER BY version"
)
_PERIODS = "SELECT period, starts_at, ends_at, contract, version, overage FROM periods ORDER BY starts_at"
