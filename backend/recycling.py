"""Recycling: records that wait are decided again, corrected or written off, in bulk.

The work is done beside the writer, which gets one bounded command for each record: so charging goes
on in between. What is done stands in the log, record by record. Whoever was interrupted starts again:
what has left suspense is not there any more, and what another has touched meanwhile is passed over.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import replace

from ..domain.events import Recorded
from ..domain.refusals import Refused
from ..domain.suspense import AMENDABLE, UsageRecycled
from ..domain.usage import UnreadableRecord, UsageRecord
from ..domain.writing_off import DismissUsage, KeepUsage, UsageDismissalAsked
from ..projections.suspense import EVERYTHING, SuspenseFilter, Waiting, waited, waiting_after, waiting_count
from ..tenants.isolation import Connection
from ..tenants.sealing import Sealer, load_sealer
from .asking import Answer, Order
from .correcting import AmendRecord, RecycleRecord, raw_told, record_told
from .engine import Engine
from .intake.declaration import Format
from .intake.rereading import read_alone
from .keys import command_key
from .log import COLUMNS, Row, recorded
from .writer import Busy

AT_ONCE = 100
"""Commands under way: a slice of the writer of some ten milliseconds."""
PAGE = 500
"""Records read from the log and opened together."""
PROBLEMS_MAX = 100


class Selection(Struct, frozen=True):
    """Which records that wait: these, or all that a filter names."""

    wanted: SuspenseFilter = EVERYTHING
    usage_ids: tuple[bytes, ...] = ()


class Outcome(Struct, frozen=True):
    """What became of one record."""

    usage_id: bytes
    source: str
    record_id: str
    status: str
    """charged, rejected, dismissed, amended; asked: another person must write it off as well; kept;
    suspended: it waits on; passed_over: nothing was done."""
    reason: str = ""
    detail: str = ""
    amount: int = 0
    seq: int = 0
    """Where it stands in the log."""


class BulkReport(Struct):
    """What became of records that waited. `looked_at` is the sum of the others."""

    looked_at: int = 0
    charged: int = 0
    rejected: int = 0
    suspended: int = 0
    amended: int = 0
    dismissed: int = 0
    asked: int = 0
    kept: int = 0
    passed_over: int = 0
    amount: int = 0
    """What was charged."""
    reasons: dict[str, int] = field(default_factory=dict)
    problems: list[Outcome] = field(default_factory=list)
    """The first hundred that were not settled."""
    after: int = 0
    """Go on after this seq."""
    left: int = 0
    """How many wait beyond it, of those that were asked for."""
    last_seq: int = 0
    """Of what was stored."""

    def count(self, outcome: Outcome) -> None:
        self.looked_at += 1
        setattr(self, outcome.status, getattr(self, outcome.status) + 1)
        self.amount += outcome.amount
        self.last_seq = max(self.last_seq, outcome.seq)
        if outcome.reason:
            self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
            if len(self.problems) < PROBLEMS_MAX:
                self.problems.append(outcome)


Progress = Callable[[BulkReport], None]
Act = Callable[["_Page", Waiting], "Order | Outcome"]


class Recycling:
    """For one tenant, on behalf of one actor."""

    def __init__(
        self, engine: Engine, tenant: UUID, actor: str, *, key: str, note: str = "", dry: bool = False
    ) -> None:
        self._engine = engine
        self._tenant = tenant
        self._actor = actor
        self._key = key
        """Sent again with the same key, a record is not tried again for that."""
        self._note = note
        self._dry = dry

    async def recycle(
        self,
        selection: Selection,
        *,
        after: int = 0,
        most: int = 0,
        accept_late: bool = False,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Decide them again, oldest first; `most` of them, or all. `accept_late`: whatever their age."""

        def act(page: "_Page", row: Waiting) -> Order | Outcome:
            return self._recycled(page, row, accept_late=accept_late)

        return await self._all(selection, act, after, most, progress)

    async def dismiss(
        self, selection: Selection, *, after: int = 0, most: int = 0, progress: Progress | None = None
    ) -> BulkReport:
        """Write them off, or ask for it where that takes two."""
        return await self._all(selection, self._dismissed, after, most, progress)

    async def keep(
        self, selection: Selection, *, after: int = 0, most: int = 0, progress: Progress | None = None
    ) -> BulkReport:
        """Decline, or withdraw, what somebody asked to write off."""
        return await self._all(selection, self._kept, after, most, progress)

    async def reread(
        self,
        selection: Selection,
        format: Format,
        time_zone: str,
        *,
        after: int = 0,
        most: int = 0,
        progress: Progress | None = None,
    ) -> BulkReport:
        """Read those again that could not be read, as another format says."""

        def act(page: "_Page", row: Waiting) -> Order | Outcome:
            return self._reread(page, row, format, time_zone)

        return await self._all(selection, act, after, most, progress)

    async def amend(self, usage_id: bytes, changes: dict[str, Any]) -> Answer:
        """Correct one record; raises Refused. Of one that could not be read, all must be given."""
        page = await self._engine.in_thread(lambda: self._read(Selection(usage_ids=(usage_id,)), 0, 1))
        row = next(iter(page.rows), None)
        if row is None or row.outcome:
            raise Refused("not_waiting", record=usage_id.hex(), remedy="look at what became of it")
        record, fields = _amended(page.record(row), row, changes)
        return await self._engine.carry_out(self._tenant, self._amending(row, record, fields), self._actor)

    # --- one record ---------------------------------------------------------------------------

    def _recycled(self, page: "_Page", row: Waiting, *, accept_late: bool) -> "Order | Outcome":
        record = page.record(row)
        if record is None:
            return _passed_over(row, row.reason, row.detail)
        more = (row.position, self._note, row.recorded_at, accept_late)
        command = RecycleRecord(row.waiting, row.revision, record, *more)
        return self._order("recycle", row, command)

    def _dismissed(self, page: "_Page", row: Waiting) -> "Order | Outcome":
        about = (row.waiting, row.revision, row.source, row.record_id, self._note)
        return self._order("dismiss", row, DismissUsage(*about, row.value))

    def _kept(self, page: "_Page", row: Waiting) -> "Order | Outcome":
        about = (row.waiting, row.revision, row.source, row.record_id, self._note)
        return self._order("keep", row, KeepUsage(*about))

    def _reread(self, page: "_Page", row: Waiting, format: Format, time_zone: str) -> "Order | Outcome":
        raw = page.raw(row)
        if raw is None:
            return _passed_over(row, row.reason, "it was read already, or its person was erased")
        # Under its own source. An id made of what could not be read gives way to the one that is read now.
        about = {"time_zone": time_zone, "source": row.source, "name": row.file}
        match read_alone(*raw, format, **about):
            case UsageRecord() as record:
                return self._amending(row, record, AMENDABLE)
            case UnreadableRecord(reason=reason, detail=detail):
                return _passed_over(row, reason, detail)
            case str() as problem:
                return _passed_over(row, "malformed", problem)

    def _amending(self, row: Waiting, record: UsageRecord, fields: Sequence[str]) -> Order:
        command = AmendRecord(row.waiting, row.revision, record, tuple(fields), self._note)
        return self._order("amend", row, command)

    def _order(self, what: str, row: Waiting, command: Any) -> Order:
        key = f"suspense:{what}:{self._key}:{row.usage_id.hex()}:{row.revision}"
        return Order(command, command_key(key), self._dry)

    # --- all of them --------------------------------------------------------------------------

    async def _all(
        self, selection: Selection, act: Act, after: int, most: int, progress: Progress | None
    ) -> BulkReport:
        report = BulkReport(after=after)
        with self._engine.using(self._tenant):
            while size := min(PAGE, most - report.looked_at) if most else PAGE:
                page = await self._engine.in_thread(lambda: self._read(selection, report.after, size))
                for first in range(0, len(page.rows), AT_ONCE):
                    rows = page.rows[first : first + AT_ONCE]
                    for outcome in await asyncio.gather(*(self._one(page, row, act) for row in rows)):
                        report.count(outcome)
                    report.after = rows[-1].seq
                    if progress is not None:
                        progress(report)
                if len(page.rows) < size:
                    break
        report.left = await self._engine.in_thread(lambda: self._left(selection, report.after))
        return report

    async def _one(self, page: "_Page", row: Waiting, act: Act) -> Outcome:
        asked = _settled(row) if row.outcome else act(page, row)
        if isinstance(asked, Outcome):
            return asked
        while True:
            try:
                return _outcome(row, await self._engine.carry_out(self._tenant, asked, self._actor))
            except Refused as refusal:
                return _passed_over(row, refusal.code, str(refusal))
            except Busy as busy:
                await asyncio.sleep(busy.retry_after_ms / 1_000)

    def _read(self, selection: Selection, after: int, most: int) -> "_Page":
        engine, tenant = self._engine, self._tenant
        with engine.isolation.transaction(tenant) as db:
            if selection.usage_ids:
                every = waited(db, list(selection.usage_ids))
                rows = [row for row in every if row.seq > after][:most]
            else:
                rows = waiting_after(db, after, most, selection.wanted)
            stored = _stored(db, [row.content_seq for row in rows])
        # With the keys stored now: who was erased stays erased.
        return _Page(rows, stored, load_sealer(engine.isolation, engine.root, tenant))

    def _left(self, selection: Selection, after: int) -> int:
        with self._engine.isolation.transaction(self._tenant) as db:
            if selection.usage_ids:
                return sum(row.seq > after for row in waited(db, list(selection.usage_ids)))
            return waiting_count(db, selection.wanted, after)


class _Page:
    """Records that wait, with what the log holds of them."""

    def __init__(self, rows: list[Waiting], stored: dict[int, Row], sealer: Sealer) -> None:
        self.rows = rows
        self._stored = stored
        self._sealer = sealer

    def record(self, row: Waiting) -> UsageRecord | None:
        return record_told(self._told(row), self._sealer)

    def raw(self, row: Waiting) -> tuple[str, str] | None:
        return raw_told(self._told(row), self._sealer) if not row.readable else None

    def _told(self, row: Waiting) -> Recorded:
        return recorded(self._stored[row.content_seq])


def _stored(db: Connection, seqs: list[int]) -> dict[int, Row]:
    found = db.execute(f"SELECT {COLUMNS} FROM events WHERE seq = ANY(%s)", (seqs,), binary=True)
    return {row.seq: row for row in map(Row._make, found)}


def _amended(
    record: UsageRecord | None, row: Waiting, changes: dict[str, Any]
) -> tuple[UsageRecord, tuple[str, ...]]:
    """The record as corrected, and which of its fields were."""
    if record is None:
        missing = next((name for name in _NEEDED if changes.get(name) is None), None)
        if missing is not None:
            remedy = "give it by hand: the record could not be read"
            raise Refused("bad_record", field=missing, record=row.record_id, remedy=remedy)
        given = {"source": row.source, "record_id": row.record_id, **changes}
        return UsageRecord(**given), AMENDABLE
    fields = tuple(name for name, value in changes.items() if getattr(record, name) != value)
    return replace(record, **changes), fields


_NEEDED = ("line", "usage_type", "quantity", "started_at")


def _outcome(row: Waiting, answer: Answer) -> Outcome:
    about = (row.usage_id, row.source, row.record_id)
    told = answer.events[0]
    if isinstance(told, UsageRecycled):
        amount = (told.value or 0) if told.outcome == "charged" else 0
        return Outcome(*about, told.outcome, told.reason, told.detail, amount, answer.last_seq)
    if isinstance(told, UsageDismissalAsked):
        detail = "another person must write it off as well"
        return Outcome(*about, "asked", "takes_two", detail, seq=answer.last_seq)
    return Outcome(*about, told.topic.removeprefix("usage."), seq=answer.last_seq)


def _settled(row: Waiting) -> Outcome:
    return _passed_over(row, "not_waiting", f"it was {row.outcome} before")


def _passed_over(row: Waiting, reason: str, detail: str) -> Outcome:
    return Outcome(row.usage_id, row.source, row.record_id, "passed_over", reason, detail)
