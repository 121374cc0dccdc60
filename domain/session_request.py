"""Requests: what a network element asks about a session in one go, for several rating groups at once.

Each group is a session of its own to the rules: it holds its own units and is charged as a record of its
own. The first has the session's id; a further one adds its rating group: "call-7+2". Step by step, in the
order given here, each decided on what the one before has led to. A step that is refused leads to nothing
and hinders no other; only what concerns the whole request refuses all of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from .refusals import Refused
from .session import (
    LATE,
    PART,
    RATING_GROUP,
    VALIDITY_SECONDS,
    AskMore,
    KeepSession,
    ReleaseSession,
    Report,
    Session,
    SessionCommand,
    SessionId,
    UpdateSession,
)

GROUPS_MAX = 32
"""Rating groups that one request may tell of."""
SECOND = 1_000_000
KEPT_ALIVE_SECONDS = VALIDITY_SECONDS // 2
"""A group that a report is silent about is kept when it has less time left than this."""


class GroupReport(Struct, frozen=True, gc=False):
    """What is told of one rating group: used since its last report, and what is asked for."""

    rating_group: int
    usage_type: str
    used: int = 0
    requested: int | None = None
    """0 for as much as is usual; None for nothing more."""
    changes: tuple[tuple[int, int], ...] = ()
    """After so many of the used units other prices held, since a moment in microseconds."""


class Running(Protocol):
    """The sessions that are known."""

    @property
    def open(self) -> Mapping[SessionId, Session]: ...
    @property
    def expired(self) -> Mapping[SessionId, Session]: ...
    def further(self, source: str, session: str) -> Iterable[str]: ...


def part_id(session: str, rating_group: int) -> str:
    return f"{session}{PART}{rating_group}"


def groups_of(sessions: Running, source: str, session: str) -> Iterator[Session]:
    """All that is known of a session, running or ended by silence, its first group first."""
    for one in (session, *sessions.further(source, session)):
        found = sessions.open.get((source, one)) or sessions.expired.get((source, one))
        if found is not None:
            yield found


def group_of(told: GroupReport, groups: Iterable[Session]) -> Session | None:
    """The session of a rating group, among those of one session."""
    return next((group for group in groups if _is_of(told, group)), None)


def _is_of(told: GroupReport, group: Session) -> bool:
    if group.usage_type != told.usage_type:
        return False
    # Before there were several groups all of them were called the first.
    unnamed = group.rating_group == RATING_GROUP and group.usage_type != "voice"
    return unnamed or group.rating_group == told.rating_group


def steps_of_update(
    groups: list[Session], number: int, reports: Iterable[GroupReport], now: int
) -> list[SessionCommand]:
    """A group that nothing is told of goes on as it was."""
    _check_number(groups, number)
    told = [(group, one) for one in reports if (group := group_of(one, groups)) is not None]
    pooled = sum(group.pooled for group, _ in told) > 1
    steps = _of_pool(told, number) if pooled else [_reporting(group, number, one) for group, one in told]
    known = {group.session for group, _ in told}
    return [
        *steps,
        *(
            KeepSession(group.source, group.session, number)
            for group in groups
            if group.session not in known and 0 < group.expires_at - now < KEPT_ALIVE_SECONDS * SECOND
        ),
    ]


def _of_pool(told: list[tuple[Session, GroupReport]], number: int) -> list[SessionCommand]:
    """All reports first, of whoever gives back before whoever took more; then all are granted more."""
    ordered = sorted(told, key=lambda pair: pair[0].used + pair[1].used - pair[0].hold.total)
    return [
        *(_reporting(group, number, replace(one, requested=None)) for group, one in ordered),
        *(
            AskMore(group.source, group.session, number, one.requested)
            for group, one in told
            if one.requested is not None
        ),
    ]


def _reporting(group: Session, number: int, told: GroupReport) -> UpdateSession:
    report = Report(_counted(group, told), changes=told.changes)
    return UpdateSession(group.source, group.session, number, report, told.requested)


def steps_of_release(
    groups: list[Session], number: int, reports: Iterable[GroupReport]
) -> list[SessionCommand]:
    """All groups end, whether they are told of or not: those first that give most back."""
    _check_number(groups, number)
    told = {
        group.session: Report(_counted(group, one), changes=one.changes)
        for one in reports
        if (group := group_of(one, groups))
    }
    nothing = Report()
    ending = sorted(
        groups, key=lambda group: group.used + told.get(group.session, nothing).used - group.hold.total
    )
    return [
        ReleaseSession(group.source, group.session, number, told.get(group.session, nothing))
        for group in ending
    ]


def ungranted_id(session: str, rating_group: int, number: int) -> str:
    """Of what a request reports of a group that had no units yet: a record of its own."""
    return f"{part_id(session, rating_group)}{PART}{number}"


def record_ids(session: str, number: int, reports: Iterable[GroupReport]) -> list[str]:
    """The records that a request may have charged, whatever is known of the session."""
    told = [*reports]
    ids = [session, *(part_id(session, one.rating_group) for one in told)]
    ungranted = [ungranted_id(session, one.rating_group, number) for one in told if one.used]
    return [*ids, *(one + LATE for one in ids), *ungranted]


def _check_number(groups: list[Session], number: int) -> None:
    last = max(group.number for group in groups)
    if number <= last:
        raise Refused("report_out_of_order", session=groups[0].session, last=last)


def _counted(group: Session, told: GroupReport) -> int:
    if told.used < 0:
        raise Refused("usage_taken_back", session=group.session, used=group.used)
    return told.used
