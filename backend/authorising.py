"""Sessions on their way to the rules: their numbers are sealed, and each is charged as one record.

A session's identity is that of a usage record. What was charged under it by another door is not
charged again: whichever comes later waits in suspense.
"""

from msgspec import Struct
from msgspec.structs import replace

from ..domain.charging import UsageCharged
from ..domain.session import (
    LATE,
    ExpireSession,
    ReleaseSession,
    ReserveUnits,
    Session,
    SessionCommand,
    UpdateSession,
)
from ..domain.tenant import Tenant
from ..domain.usage import UsageRecord, pack_personal, unpack_personal
from ..tenants.sealing import Sealer


class StartSession(Struct, frozen=True):
    """Open a session under its real numbers; the writer seals them on the way in."""

    record: UsageRecord
    number: int

    def sealed_by(self, sealer: Sealer, key: bytes) -> ReserveUnits:
        """Sealed for the charge to come: it opens under the key of the record alone."""
        record = self.record
        token = sealer.token(record.line)
        sealed = sealer.seal(token, pack_personal(record), key)
        return ReserveUnits(record, self.number, token, sealed)


def records_of(command: object) -> list[tuple[str, str]]:
    """The usage records that a command on sessions may charge, by source and id."""
    match command:
        case StartSession(record):
            return [(record.source, record.record_id)]
        case ExpireSession(source, session):
            return [(source, session)]
        case UpdateSession(source, session) | ReleaseSession(source, session):
            return [(source, session), (source, session + LATE)]
    return []


def session_of(command: SessionCommand, state: Tenant) -> Session | None:
    """The session that is meant, running or ended by silence."""
    if isinstance(command, ReserveUnits):
        return None
    ident = (command.source, command.session)
    return state.sessions.open.get(ident) or state.sessions.expired.get(ident)


def resealed(
    command: SessionCommand, state: Tenant, sealer: Sealer, key: bytes, late: bytes
) -> SessionCommand:
    """A late report is charged under a key of its own; so is its personal part sealed."""
    if not isinstance(command, UpdateSession | ReleaseSession):
        return command
    session = state.sessions.expired.get((command.source, command.session))
    plain = sealer.open(session.subject, session.sealed, key) if session is not None else None
    if session is None or plain is None:
        return command
    return replace(command, sealed=sealer.seal(session.subject, plain, late))


def record_of(charge: UsageCharged, session: Session, sealer: Sealer, key: bytes) -> UsageRecord:
    """What would have been charged, as the record that it is; without numbers where these were erased."""
    plain = sealer.open(session.subject, charge.sealed, key)
    line, counterpart = unpack_personal(plain) if plain else ("", "")
    return UsageRecord(
        charge.source,
        charge.record_id,
        line,
        charge.usage_type,
        charge.quantity,
        charge.started_at,
        charge.direction,
        counterpart,
    )
