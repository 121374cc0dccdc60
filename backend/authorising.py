"""Sessions on their way to the rules: their numbers are sealed, and each is charged as one record.

A session's identity is that of a usage record. What was charged under it by another door is not
charged again: whichever comes later waits in suspense.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..domain.charging import UsageCharged
from ..domain.refusals import Refused
from ..domain.session import (
    LATE,
    RATING_GROUP,
    ExpireSession,
    KeepSession,
    ReleaseSession,
    ReserveUnits,
    Session,
    SessionCommand,
    UpdateSession,
)
from ..domain.session_request import (
    GroupReport,
    group_of,
    groups_of,
    part_id,
    record_ids,
    steps_of_release,
    steps_of_update,
    ungranted_id,
)
from ..domain.tenant import Tenant
from ..domain.usage import UsageRecord, pack_personal, unpack_personal
from ..tenants.sealing import Sealer

KeysOf = Callable[[str, str, int], Sequence[bytes]]
"""The keys that a record may have, by source, id and start."""


class StartSession(Struct, frozen=True):
    """Open a session under its real numbers; the writer seals them on the way in."""

    record: UsageRecord
    number: int
    rating_group: int = RATING_GROUP
    of: str = ""

    def sealed_by(self, sealer: Sealer, key: bytes) -> ReserveUnits:
        """Sealed for the charge to come: it opens under the key of the record alone."""
        record = self.record
        token = sealer.token(record.line)
        sealed = sealer.seal(token, pack_personal(record), key)
        return ReserveUnits(record, self.number, token, sealed, self.rating_group, self.of)


class AskUnits(Struct, frozen=True):
    """What a network element asks in one request, for one or several rating groups of a session."""

    source: str
    session: str
    number: int
    groups: tuple[GroupReport, ...]
    record: UsageRecord | None = None
    """Opens the session: with what all of its groups have in common, type and quantity aside."""
    ends: bool = False
    at: int = 0
    """When groups begin that are new to a running session."""
    attributes: tuple[tuple[str, str], ...] = ()

    def first_form(self) -> Any:
        """As it was told before reports could tell changes of price apart, where this one does not."""
        if any(told.changes for told in self.groups):
            return self
        about = msgspec.structs.asdict(self)
        return about | {"groups": [_as_told_first(told) for told in self.groups]}

    def steps(
        self, state: Tenant, sealer: Sealer, keys_of: KeysOf, now: int
    ) -> "Sequence[StartSession | SessionCommand]":
        """What is to be decided, one after the other."""
        groups = [*groups_of(state.sessions, self.source, self.session)]
        if self.record is not None:
            if groups:
                raise Refused("session_exists", session=self.session)
            return [self._starting(told, self.record, place) for place, told in enumerate(self.groups)]
        if not groups:
            raise Refused("unknown_session", session=self.session)
        if self.ends:
            return steps_of_release(groups, self.number, self.groups)
        new = [told for told in self.groups if told.requested is not None and group_of(told, groups) is None]
        running = next((group for group in groups if group.expires_at > now), None)
        starting: list[StartSession] = []
        if running is not None and new:
            record = _beginning(running, sealer, keys_of, self.at or now, self.attributes)
            starting = [self._starting(told, record, 1) for told in new]
        steps = [*steps_of_update(groups, self.number, self.groups, now), *starting]
        return steps or [self._keeping(groups, state)]

    def _keeping(self, groups: Sequence[Session], state: Tenant) -> KeepSession:
        """Nothing is asked of any group that runs: there is an event all the same, to answer from."""
        running = [group for group in groups if (group.source, group.session) in state.sessions.open]
        if not running:
            raise Refused("unknown_session", session=self.session)
        return KeepSession(running[0].source, running[0].session, self.number)

    def ungranted(self, state: Tenant, sealer: Sealer, keys_of: KeysOf, now: int) -> list[UsageRecord]:
        """What is reported of groups that have no units, as records: nothing used is taken for nothing."""
        groups = [*groups_of(state.sessions, self.source, self.session)]
        told = [one for one in self.groups if one.used > 0 and group_of(one, groups) is None]
        if not told:
            return []
        record = self.record or _beginning(groups[0], sealer, keys_of, self.at or now, self.attributes)
        return [
            replace(
                record,
                record_id=ungranted_id(self.session, one.rating_group, self.number),
                usage_type=one.usage_type,
                quantity=one.used,
            )
            for one in told
        ]

    def _starting(self, told: GroupReport, record: UsageRecord, place: int) -> "StartSession":
        """The first group has the session's own id, any other one made of it."""
        changes = {"usage_type": told.usage_type, "quantity": told.requested or 0}
        if not place:
            return StartSession(replace(record, **changes), self.number, told.rating_group)
        own = part_id(self.session, told.rating_group)
        record = replace(record, record_id=own, **changes)
        return StartSession(record, self.number, told.rating_group, self.session)


def _as_told_first(told: GroupReport) -> dict[str, Any]:
    about = msgspec.structs.asdict(told)
    del about["changes"]
    return about


def _beginning(
    session: Session, sealer: Sealer, keys_of: KeysOf, at: int, attributes: tuple[tuple[str, str], ...]
) -> UsageRecord:
    """The record of a group that begins while its session runs: the same line, and the same other party."""
    keys = keys_of(session.source, session.session, session.started_at)
    plain = _opened(sealer, session, keys)
    line, counterpart = unpack_personal(plain) if plain else ("", "")
    about = (session.source, session.of or session.session, line, "", 0, at, session.direction)
    return UsageRecord(*about, counterpart, attributes)


def charged_later(command: object, state: Tenant) -> list[tuple[str, str]]:
    """The records that a request may charge without naming them: of groups that it is silent about."""
    if not isinstance(command, AskUnits):
        return []
    return [
        (command.source, one)
        for further in state.sessions.further(command.source, command.session)
        for one in (further, further + LATE)
    ]


def records_of(command: object) -> list[tuple[str, str]]:
    """The usage records that a command on sessions may charge, by source and id."""
    match command:
        case AskUnits(source, session, number, groups):
            ids = record_ids(session, number, groups)
            return [(source, one) for one in ids]
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
    command: SessionCommand, state: Tenant, sealer: Sealer, keys: Sequence[bytes], late: bytes
) -> SessionCommand:
    """A late report is charged under a key of its own; so is its personal part sealed."""
    if not isinstance(command, UpdateSession | ReleaseSession):
        return command
    session = state.sessions.expired.get((command.source, command.session))
    plain = _opened(sealer, session, keys) if session is not None else None
    if session is None or plain is None:
        return command
    return replace(command, sealed=sealer.seal(session.subject, plain, late))


def key_sealed_for(sealer: Sealer, subject: bytes, sealed: bytes, keys: Sequence[bytes]) -> bytes:
    """Which of two keys something was sealed for: a session may have begun under an earlier release.

    Of a person who was erased nothing tells it, and nothing needs it.
    """
    usual, earlier = keys
    if sealer.open(subject, sealed, usual) is None and sealer.open(subject, sealed, earlier) is not None:
        return earlier
    return usual


def _opened(sealer: Sealer, session: Session, keys: Sequence[bytes]) -> bytes | None:
    opened = (sealer.open(session.subject, session.sealed, key) for key in keys)
    return next((plain for plain in opened if plain is not None), None)


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
