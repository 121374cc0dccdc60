"""Suspense: usage records that wait, and what becomes of them: corrected, recycled, or written off.

A record that waits is known by a digest of its identity and of what was sealed with it. It stays one
record: corrected it has the same identity, recycled in vain it waits on, with the new reason and one
attempt more. It leaves once, charged, rejected or written off. What was suspended ever is what waits
and what was settled, always.
"""

from hashlib import blake2b
from typing import ClassVar, Literal

from msgspec import Struct

from . import lateness
from .charging import (
    CONFLICTING,
    SUSPENSE,
    Charged,
    ChargeUsage,
    Charging,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
)
from .contract import Contracts
from .refusals import InvariantBroken, Refused, check_text
from .writing_off import (
    DismissUsage,
    KeepUsage,
    UsageDismissalAsked,
    UsageDismissed,
    UsageKept,
    WritingOff,
)

ID_BYTES = 12
SETTLED = ("charged", "rejected", "dismissed")
AMENDABLE = (
    *("line", "counterpart", "usage_type", "quantity", "started_at", "direction"),
    *("source", "record_id"),
)
"""The fields of a record that may be corrected. With another id it is another record: there is one
charge for each id, whatever waits under it."""


class UsageRecycled(Struct, frozen=True, array_like=True, gc=False):
    """A record that waited was decided again; the charge or rejection follows, or it waits on."""

    topic: ClassVar[str] = "usage.recycled"
    waiting: bytes
    """Which record: see `waiting_id`."""
    source: str
    record_id: str
    outcome: Literal["charged", "rejected", "suspended"]
    reason: str
    """Why it was rejected, or waits on; "" for a charge."""
    field: str
    detail: str
    attempt: int
    """Which revision of the record this was decided of, counted from 1."""
    usage_type: str
    value: int | None = None
    """What was charged for it; where it waits on, what it would cost, if this can be told."""
    note: str = ""
    late: bool = False
    """Whether it came too late to be charged unasked, and was accepted on purpose."""


class UsageAmended(Struct, frozen=True, array_like=True, gc=False):
    """A record that waits says something else from now on; what it said first stays in the log."""

    topic: ClassVar[str] = "usage.amended"
    waiting: bytes
    source: str
    """Whose it is from now on, with its id."""
    record_id: str
    fields: tuple[str, ...]
    """Which were corrected; all of them where the record could not be read."""
    usage_type: str
    quantity: int
    started_at: int
    direction: str
    attributes: tuple[tuple[str, str], ...]
    sealed: bytes
    """The line and the other party, under the line's own key."""
    subject: bytes
    value: int | None = None
    note: str = ""


class RecycleUsage(Struct, frozen=True, gc=False):
    """Decide a record that waits again, on the state as it is now, at the time of its usage."""

    waiting: bytes
    revision: int
    """How often it had been touched when it was read: what has changed since is not charged unseen."""
    charge: ChargeUsage
    taken: bool = False
    """Whether a record of this identity was charged or rejected before; known on the way in."""
    note: str = ""
    came_at: int | None = None
    """When it first came, known on the way in; None where it comes now."""
    accept_late: bool = False
    """Charge it whatever its age."""


class AmendUsage(Struct, frozen=True, gc=False):
    """Correct a record that waits. Its personal part comes sealed, its line as a keyed hash."""

    waiting: bytes
    revision: int
    charge: ChargeUsage
    fields: tuple[str, ...]
    note: str


SuspenseCommand = RecycleUsage | AmendUsage | DismissUsage | KeepUsage
SuspenseEvent = UsageRecycled | UsageAmended | UsageDismissed | UsageDismissalAsked | UsageKept


TOO_LATE = (lateness.TOO_LATE, *SUSPENSE[lateness.TOO_LATE])
"""Of a record that came late and was not accepted: reason, field and remedy."""


def waiting_id(told: UsageSuspended) -> bytes:
    """By what a record that waits is known. What is sealed is unlike anything else ever sealed."""
    named = f"{told.source}\x1f{told.record_id}\x1f".encode()
    return blake2b(named + told.sealed, digest_size=ID_BYTES).digest()


class Suspense:
    """Which records wait, and how often each was touched."""

    def __init__(self, charging: Charging, contracts: Contracts) -> None:
        self._charging = charging
        self.writing_off = WritingOff(contracts)
        self.waiting: dict[bytes, int] = {}
        """Record -> its revision, in the order in which they came."""
        self.settled = dict.fromkeys(SETTLED, 0)

    def decide(self, command: SuspenseCommand, now: int, by: str = "") -> list[SuspenseEvent | Charged]:
        match command:
            case RecycleUsage(charge=ChargeUsage(record)):
                self._check(command, record.record_id)
                check_text("note", command.note, empty=True)
                return self._recycle(command, now)
            case AmendUsage(charge=ChargeUsage(record)):
                self._check(command, record.record_id)
                check_text("note", command.note)
                return [self._amend(command)]
            case DismissUsage():
                self._check(command, command.record_id)
                check_text("note", command.note)
                return [self.writing_off.dismissed(command, by, now)]
            case KeepUsage():
                self._check(command, command.record_id)
                check_text("note", command.note, empty=True)
                return [self.writing_off.kept(command)]

    def _check(self, command: SuspenseCommand, record_id: str) -> None:
        revision = self.waiting.get(command.waiting)
        if revision is None:
            raise Refused("not_waiting", record=record_id, remedy="look at what became of it")
        if revision != command.revision:
            raise Refused("record_changed", record=record_id, remedy="look at it again, then decide")

    def _recycle(self, command: RecycleUsage, now: int) -> list[SuspenseEvent | Charged]:
        if command.taken:
            return [_recycled(command, "suspended", CONFLICTING)]
        charge, came_at = command.charge, now if command.came_at is None else command.came_at
        late = self._charging.late.holds(charge.record, came_at)
        if late and not command.accept_late:
            return [_recycled(command, "suspended", TOO_LATE, self._charging.worth(charge.record))]
        events = self._charging.decide_in_time(charge, now)
        match events[0]:
            case UsageSuspended() as told:
                why = (told.reason, told.field, told.detail)
                return [_recycled(command, "suspended", why, told.value)]
            case UsageRejected(reason=reason):
                return [_recycled(command, "rejected", (reason, "", ""), late=late), *events]
            case UsageCharged(amount=amount):
                return [_recycled(command, "charged", ("", "", ""), amount, late=late), *events]
        raise AssertionError(events)

    def _amend(self, command: AmendUsage) -> UsageAmended:
        record = command.charge.record
        if not command.fields:
            raise Refused("nothing_amended", record=record.record_id)
        return UsageAmended(
            command.waiting,
            record.source,
            record.record_id,
            command.fields,
            record.usage_type,
            record.quantity,
            record.started_at,
            record.direction,
            record.attributes,
            command.charge.sealed,
            command.charge.token,
            self._charging.worth(record),
            command.note,
        )

    def apply(self, event: UsageSuspended | SuspenseEvent) -> None:
        match event:
            case UsageSuspended():
                self.waiting[waiting_id(event)] = 0
            case UsageAmended(waiting) | UsageRecycled(waiting, outcome="suspended"):
                self.waiting[waiting] += 1
                self.writing_off.forget(waiting)
            case UsageRecycled(waiting, outcome=outcome):
                self._settle(waiting, outcome)
                self.writing_off.forget(waiting)
            case UsageDismissed(waiting):
                self._settle(waiting, "dismissed")
                self.writing_off.apply(event)
            case UsageDismissalAsked() | UsageKept():
                self.writing_off.apply(event)

    def _settle(self, waiting: bytes, how: str) -> None:
        if self.waiting.pop(waiting, None) is None:
            raise InvariantBroken("a record leaves suspense once", waiting=waiting.hex(), how=how)
        self.settled[how] += 1

    def check_whole(self) -> None:
        self.writing_off.check_whole(self.waiting)
        ever, settled = self._charging.counts["suspended"], sum(self.settled.values())
        if ever != len(self.waiting) + settled:
            raise InvariantBroken(
                "what was suspended waits or was settled",
                suspended=ever,
                waiting=len(self.waiting),
                settled=settled,
            )


def _recycled(
    command: RecycleUsage,
    outcome: Literal["charged", "rejected", "suspended"],
    why: tuple[str, str, str],
    value: int | None = None,
    *,
    late: bool = False,
) -> UsageRecycled:
    record, attempt = command.charge.record, command.revision + 1
    about = (command.waiting, record.source, record.record_id)
    return UsageRecycled(*about, outcome, *why, attempt, record.usage_type, value, command.note, late)


def follows(told: UsageRecycled, event: UsageCharged | UsageRejected) -> bool:
    """Whether this is the charge, or rejection, that a recycling announced."""
    same = (told.source, told.record_id) == (event.source, event.record_id)
    return same and event.topic == f"usage.{told.outcome}"
