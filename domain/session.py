"""Sessions: usage that is authorised before it happens, slice by slice, and charged once, at its end.

Each event tells of one rating group: what it held `before`, and what is `held` from now on. So
whoever follows the log adds and takes away, and needs to know nothing of the session.
"""

from typing import ClassVar

from msgspec import Struct

from .hierarchy import Path
from .hold import NO_HOLD, Hold
from .policy import Ruling
from .rating.basis import Basis, Switch
from .session_conditions import Conditions
from .usage import UsageRecord

VALIDITY_SECONDS = 600
"""A session that is silent for longer is ended: its network element has forgotten it."""
OPEN_MAX = 1_000_000
EXPIRED_MAX = 10_000
"""Sessions ended by silence that are remembered for a late report; the oldest are forgotten first."""
RATING_GROUP = 1
"""Of a session that has one only, and does not say which."""
LATE = "+late"
PART = "+"
"""Between a session's id and the rating group, in the id of every group after the first."""

SessionId = tuple[str, str]
"""Source and the source's own id: as a usage record's identity, for a session is charged as one."""


class SessionReserved(Struct, frozen=True, array_like=True, gc=False):
    """A session has been opened, and a first slice of units granted."""

    topic: ClassVar[str] = "session.reserved"
    source: str
    session: str
    rating_group: int
    number: int
    path: Path
    """Who uses it: the resource's ordinal, then its nodes up to the root, as they are at the start."""
    usage_type: str
    period: str
    started_at: int
    direction: str
    tariff: int
    rate: int
    requested: int
    """0 leaves it to us."""
    granted: int
    final: bool
    """Nothing is left beyond this slice."""
    held: Hold
    expires_at: int
    """Without a report by then it is ended, and what was reported is charged."""
    subject: bytes
    sealed: bytes
    """The line and the other party, under the line's own key."""
    emergency: bool = False
    """A call for help: whoever is frozen may make it."""
    payer: str = "corporate"
    """Who pays for all of it. What the enterprise does not pay for holds nothing of its own."""
    place: str = ""
    """Of the other party's number, the longest prefix that a policy names: it tells country groups."""
    ruling: Ruling | None = None
    """What a policy ruled, where one did: with the rate to throttle to."""
    prefix: str = ""
    """By which the rate was found among its zone's; "" where it has one of its own."""
    basis: Basis | None = None
    """What else the rate was chosen by."""
    of: str = ""
    """Of another rating group than the session's first: the session. It is charged as `<of>+<group>`."""
    conditions: Conditions | None = None
    """None: as usual."""

    @property
    def before(self) -> Hold:
        return NO_HOLD


class SessionUpdated(Struct, frozen=True, array_like=True, gc=False):
    """Usage was reported, and the next slice granted; or none was asked for."""

    topic: ClassVar[str] = "session.updated"
    source: str
    session: str
    rating_group: int
    number: int
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    used: int
    """Since the start."""
    requested: int | None
    granted: int
    final: bool
    before: Hold
    """What was held until now."""
    held: Hold
    expires_at: int
    ruling: Ruling | None = None
    conditions: Conditions | None = None
    switches: tuple[Switch, ...] | None = None
    """All of the session's changes of price, where this report has changed them."""


class SessionDenied(Struct, frozen=True, array_like=True, gc=False):
    """No units were granted, to a new session or to a running one, and by whom: it will be asked why."""

    topic: ClassVar[str] = "session.denied"
    source: str
    session: str
    rating_group: int
    number: int
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    used: int
    requested: int
    reason: str
    """As of a usage record that is rejected; "redirected": a new session is the user's own to pay."""
    stopped_by: int
    """The ordinal of the member whose limit, or bucket, stopped it."""
    counted: str
    """What the limit counts: the usage type or "money"."""
    counted_used: int
    limit: int
    before: Hold
    held: Hold
    """What a running session goes on to hold: what it has used."""
    expires_at: int
    """0 for a session that never began."""
    subject: bytes
    sealed: bytes
    window: str = "period"
    """What the limit counts in."""
    ruling: Ruling | None = None
    conditions: Conditions | None = None
    switches: tuple[Switch, ...] | None = None


class SessionReleased(Struct, frozen=True, array_like=True, gc=False):
    """A session has ended and gives back what it held; what it used is charged in the same commit."""

    topic: ClassVar[str] = "session.released"
    source: str
    session: str
    rating_group: int
    number: int
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    used: int
    overrun: int
    """Of `used`: what nobody had granted and a limit or an empty allowance forbids. It is not charged."""
    late: bool
    """The report came after the session had been ended by silence: only what is new is charged."""
    before: Hold

    @property
    def held(self) -> Hold:
        return NO_HOLD


class SessionExpired(Struct, frozen=True, array_like=True, gc=False):
    """A session has been silent for too long and is ended; what it had reported is charged."""

    topic: ClassVar[str] = "session.expired"
    source: str
    session: str
    rating_group: int
    number: int
    """Of the last report."""
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    used: int
    overrun: int
    before: Hold

    @property
    def held(self) -> Hold:
        return NO_HOLD


class ReserveUnits(Struct, frozen=True, gc=False):
    """Open a session and ask for its first slice: the record's quantity, or 0 for as much as is usual.

    The record's id is the session's. Its personal part comes sealed, its line as a keyed hash.
    """

    record: UsageRecord
    number: int
    token: bytes
    sealed: bytes
    rating_group: int = RATING_GROUP
    of: str = ""
    """Where it is a further rating group of a session: that session."""


class Report(Struct, frozen=True, gc=False):
    """What a network element says was used: since its last report, or `total`, since the start."""

    used: int = 0
    total: int | None = None
    changes: tuple[tuple[int, int], ...] = ()
    """Where it tells them apart: after so many of its units, other prices held since a moment."""


class UpdateSession(Struct, frozen=True, gc=False):
    """Report usage and ask for the next slice: 0 for as much as is usual, None for nothing more."""

    source: str
    session: str
    number: int
    report: Report
    requested: int | None = 0
    sealed: bytes = b""
    """For a charge of its own, where the session was ended before; set on the way in."""


class AskMore(Struct, frozen=True, gc=False):
    """Ask for the next slice, after what all services of a pool have used was reported."""

    source: str
    session: str
    number: int
    requested: int


class ReleaseSession(Struct, frozen=True, gc=False):
    """Report the last usage, and end the session."""

    source: str
    session: str
    number: int
    report: Report
    sealed: bytes = b""


class KeepSession(Struct, frozen=True, gc=False):
    """Go on holding what is held: another rating group of the same session was told of."""

    source: str
    session: str
    number: int


class ExpireSession(Struct, frozen=True, gc=False):
    """End a session that has been silent for longer than its validity."""

    source: str
    session: str


class Session(Struct, frozen=True, array_like=True, gc=False):
    """A session, as its next decision needs it."""

    source: str
    session: str
    number: int
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    tariff: int
    rate: int
    used: int
    hold: Hold
    expires_at: int
    subject: bytes
    sealed: bytes
    emergency: bool = False
    payer: str = "corporate"
    place: str = ""
    prefix: str = ""
    basis: Basis | None = None
    rating_group: int = RATING_GROUP
    of: str = ""
    pooled: bool = False
    """What it holds may be used up by other services of the same session."""


SessionCommand = ReserveUnits | UpdateSession | ReleaseSession | ExpireSession | KeepSession | AskMore
SessionEvent = SessionReserved | SessionUpdated | SessionDenied | SessionReleased | SessionExpired
