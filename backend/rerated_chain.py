"""Chains of charges: what was taken back is what stood in the log, and is made again once."""

from ..domain.charging import UsageCharged, UsageRejected
from ..domain.events import Recorded
from ..domain.rerated import UsageCorrected, UsageRerated, UsageTakenBack, unsealed
from ..domain.withdrawn import of_rejected
from .keys import replacing_keys
from .log import COLUMNS, PostgresLog, Row, reachable, recorded


class Unchained(Exception):
    """A charge that does not follow from the one it is said to replace."""


class Chain:
    """Follows a log in order; asks it again for the charges that events name."""

    def __init__(self, log: PostgresLog) -> None:
        self._log = log
        self._replaced: set[int] = set()
        self._back: dict[int, tuple[int, UsageCharged]] = {}
        """Taken back, and to be made again: the first event of the record, and the charge."""

    def check_taken_back(self, event: UsageTakenBack) -> None:
        stored = {told.seq: told for told in events_at(self._log, [one.seq for one in event.charges])}
        for one in event.charges:
            told = stored.get(one.seq)
            if told is None or held_in(told) != (one.first, one.charge):
                raise Unchained(f"what is taken back is not the charge of event {one.seq}")
            self._back[one.seq] = (one.first, one.charge)

    def check_made_again(self, event: UsageRerated | UsageCorrected, key: bytes | None) -> None:
        charge = event.charge
        if event.seq in self._replaced or key not in replacing_keys(event.seq, charge.started_at):
            raise Unchained(f"the charge of event {event.seq} is replaced twice, or under another key")
        self._replaced.add(event.seq)
        if isinstance(event, UsageRerated):
            before = self._back.pop(event.seq, None)
        else:
            before = next((held_in(told) for told in events_at(self._log, [event.seq])), None)
        if before is None or before[0] != event.first or _record(before[1]) != _record(charge):
            raise Unchained(f"it is not made in place of the charge of event {event.seq}")
        if isinstance(event, UsageCorrected) and event.difference != charge.amount - before[1].amount:
            raise Unchained(f"its difference to event {event.seq} is another")


def held_in(told: Recorded) -> tuple[int, UsageCharged] | None:
    """The charge that stands in an event, and the event that charged its record first, or denied it."""
    match told.event:
        case UsageCharged():
            return told.seq, unsealed(told.event)
        case UsageRerated() | UsageCorrected():
            return told.event.first, told.event.charge
        case UsageRejected():
            return told.seq, of_rejected(told.event)
    return None


def events_at(log: PostgresLog, seqs: list[int]) -> list[Recorded]:
    if not seqs:
        return []
    with reachable(), log.isolation.transaction(log.tenant, log.role) as connection:
        found = connection.execute(
            f"SELECT {COLUMNS} FROM events WHERE seq = ANY(%s::bigint[]) ORDER BY seq",
            (seqs,),
            binary=True,
            prepare=True,
        ).fetchall()
    return [recorded(Row(*row)) for row in found]


def _record(charge: UsageCharged) -> tuple[object, ...]:
    return (
        charge.source,
        charge.record_id,
        charge.usage_type,
        charge.period,
        charge.started_at,
        charge.quantity,
    )
