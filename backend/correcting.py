"""Records in suspense on their way to the rules: read from the log, opened, and sealed again.

What waits stands in the log as it came, or as it was corrected since. To decide it again its numbers
are opened outside of the writer, and travel in clear as those of every record do on their way in.
"""

import msgspec
from msgspec import Struct

from ..domain.charging import ChargeUsage, UsageSuspended
from ..domain.events import Recorded
from ..domain.suspense import AmendUsage, RecycleUsage, UsageAmended
from ..domain.usage import UsageRecord, pack_personal, unpack_personal
from ..tenants.sealing import Sealer
from .intake.rereading import cut


class RecycleRecord(Struct, frozen=True):
    """Decide a record again that waits, under its real numbers; the writer seals them on the way in."""

    waiting: bytes
    revision: int
    record: UsageRecord
    position: str = ""
    note: str = ""
    came_at: int | None = None
    """When it first came: see `RecycleUsage`."""
    accept_late: bool = False

    def sealed_by(self, sealer: Sealer, key: bytes, *, taken: bool) -> RecycleUsage:
        """Sealed for the charge to come, under whose key it opens."""
        charge = _sealed(self.record, sealer, key, self.position)
        more = (taken, self.note, self.came_at, self.accept_late)
        return RecycleUsage(self.waiting, self.revision, charge, *more)

    def first_form(self) -> dict[str, object]:
        """What was asked, without what is only known on the way in, as it was told before there was more."""
        left_out = {"came_at"} if self.accept_late else {"came_at", "accept_late"}
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in left_out}


class AmendRecord(Struct, frozen=True):
    """Correct a record that waits, under its real numbers."""

    waiting: bytes
    revision: int
    record: UsageRecord
    fields: tuple[str, ...]
    note: str

    def sealed_by(self, sealer: Sealer) -> AmendUsage:
        charge = _sealed(self.record, sealer, amended_context(self.waiting))
        return AmendUsage(self.waiting, self.revision, charge, self.fields, self.note)


InClear = RecycleRecord | AmendRecord


def amended_context(waiting: bytes) -> bytes:
    """What the personal part of a corrected record is bound to: the record that waits."""
    return b"amended\x1f" + waiting


def record_told(told: Recorded, sealer: Sealer) -> UsageRecord | None:
    """The record that an event tells of; None where it could not be read, or its person was erased."""
    event = told.event
    assert isinstance(event, UsageSuspended | UsageAmended)
    if isinstance(event, UsageSuspended) and not event.readable:
        return _record_in(raw_told(told, sealer))
    context = told.command_key or b""
    if isinstance(event, UsageAmended):
        context = amended_context(event.waiting)
    plain = sealer.open(event.subject, event.sealed, context)
    if plain is None:
        return None
    line, counterpart = unpack_personal(plain)
    return UsageRecord(
        *(event.source, event.record_id, line, event.usage_type, event.quantity, event.started_at),
        *(event.direction, counterpart, event.attributes),
    )


def raw_told(told: Recorded, sealer: Sealer) -> tuple[str, str] | None:
    """The record as it came, of one that could not be read, after the header of its file or "".

    None where its person was erased.
    """
    event = told.event
    assert isinstance(event, UsageSuspended)
    if event.readable:
        return None
    plain = sealer.open(event.subject, event.sealed, told.command_key or b"")
    return None if plain is None else cut(plain)


def _record_in(raw: tuple[str, str] | None) -> UsageRecord | None:
    """What contradicts an earlier record was readable: it is kept as it was read."""
    if raw is None or not raw[1].startswith("["):
        return None
    try:
        return _decode(raw[1])
    except msgspec.MsgspecError:
        return None


_decode = msgspec.json.Decoder(UsageRecord).decode


def _sealed(record: UsageRecord, sealer: Sealer, key: bytes, position: str = "") -> ChargeUsage:
    token = sealer.token(record.line)
    return ChargeUsage(record, token, sealer.seal(token, pack_personal(record), key), position)
