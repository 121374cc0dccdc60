"""Authorising: what may be used next, what a session holds meanwhile, and what it is charged in the end.

reserve -> update ... -> release, or silence. A session is rated by the tariff, path and period of its
start. At each report it holds anew what all of it would cost as one whole usage, so that rounding
happens once. What was used within a grant can be charged whatever becomes of the limits meanwhile.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from msgspec.structs import replace

from .bucket import Drawn, Family
from .cap import CapReached
from .charging import CORPORATE, FUTURE_MAX, UsageCharged, charged, find_rate
from .contract import QUANTITY_MAX, Contracts
from .emergency import is_emergency
from .freeze import frozen_on
from .hierarchy import Hierarchy, Path
from .hold import NO_HOLD, STOPPING, Hold, Slice, Terms, give_back, keep
from .limit import Limits, Stop, ThresholdCrossed
from .planned import Plans
from .policy import EMERGENCY, PERSONAL, Asked, Ruling
from .pooling import unit_value
from .rating.basis import Switch
from .rating.sessions import ends_sessions, switches_at
from .rating.switched_rate import with_switches
from .refusals import InvariantBroken, Refused
from .session import (
    EXPIRED_MAX,
    LATE,
    OPEN_MAX,
    VALIDITY_SECONDS,
    AskMore,
    ExpireSession,
    KeepSession,
    ReleaseSession,
    Report,
    ReserveUnits,
    Session,
    SessionCommand,
    SessionDenied,
    SessionEvent,
    SessionExpired,
    SessionId,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
    UpdateSession,
)
from .session_conditions import Conditions
from .session_terms import SessionTermsSet, SetSessionTerms, TermsInForce
from .slicing import SECOND, Crowd, quota_of, wish
from .switching import Switching, going_on, known
from .tariff import CompiledRate, Rated, Tariffs
from .usage import MONEY, UsageRecord

CALLS = ("voice", "video")
"""What a suspension does not cut off: it might be an emergency call, and ends by itself."""

Told = SessionEvent | UsageCharged | ThresholdCrossed | CapReached | SessionTermsSet


class Sessions:
    """The running sessions of a tenant, and those ended by silence not long ago."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        tariffs: Tariffs,
        limits: Limits,
        families: dict[tuple[str, str], Family],
        plans: Plans | None = None,
    ) -> None:
        self._plans = plans or Plans(hierarchy)
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._tariffs = tariffs
        self._limits = limits
        self._families = families
        self._switching = Switching(tariffs, contracts.types.units)
        self.open: dict[SessionId, Session] = {}
        """In the order of their last reports, and so of `expires_at`, nearly."""
        self.expired: dict[SessionId, Session] = {}
        self.terms = TermsInForce()
        self._crowd: Crowd | None = None
        self._further: dict[SessionId, tuple[str, ...]] | None = None
        """Of each session its rating groups after the first, by the ids they are charged under."""

    def further(self, source: str, session: str) -> tuple[str, ...]:
        """The further rating groups of a session, running or ended by silence."""
        if self._further is None:
            self._further = {}
            for known in chain(self.open.values(), self.expired.values()):
                self._join(known)
        return self._further.get((source, session), ())

    def crowd(self) -> Crowd:
        """How many run, and where."""
        if self._crowd is None:
            self._crowd = Crowd()
            for session in self.open.values():
                self._crowd.count(session.usage_type, session.period, session.path)
        return self._crowd

    def _join(self, session: Session) -> None:
        if session.of and self._further is not None:
            of = (session.source, session.of)
            self._further[of] = (*self._further.get(of, ()), session.session)

    def _part(self, session: Session) -> None:
        if session.of and self._further is not None:
            of = (session.source, session.of)
            left = tuple(one for one in self._further.get(of, ()) if one != session.session)
            if left:
                self._further[of] = left
            else:
                self._further.pop(of, None)

    def due(self, now: int) -> Iterator[ExpireSession]:
        """The ends of running sessions whose time is over, oldest first."""
        for session in self.open.values():
            if session.expires_at > now:
                return
            yield ExpireSession(session.source, session.session)

    def next_due(self) -> int | None:
        return next((session.expires_at for session in self.open.values()), None)

    def decide(self, command: SessionCommand | SetSessionTerms, now: int) -> list[Told]:
        match command:
            case SetSessionTerms():
                return [self.terms.decide(command, self._hierarchy, self._contracts.types)]
            case ReserveUnits():
                return self._reserve(command, now)
            case ExpireSession():
                return self._expire(command, now)
        late = self.expired.get((command.source, command.session))
        if late is not None and isinstance(command, UpdateSession | ReleaseSession):
            return self._late(late, command)
        session = self.open.get((command.source, command.session))
        if session is None:
            raise Refused("unknown_session", session=command.session)
        if isinstance(command, KeepSession):
            return [_kept(session, command.number, now)]
        if isinstance(command, AskMore):
            asking = UpdateSession(*session_id(session), command.number, Report(), command.requested)
            return self._update(session, asking, session.used, now)
        used = _used(session, command)
        if isinstance(command, ReleaseSession):
            session = _switched(session, self._switching.within(session, command.report, now))
            return self._release(session, command.number, used)
        return self._update(session, command, used, now)

    # --- opening and going on -----------------------------------------------------------------

    def _reserve(self, command: ReserveUnits, now: int) -> list[Told]:
        session, rate = self._opened(command, now)
        terms = self._terms(session, 0, rate)
        asked = _checked(command.record.quantity)
        suspended = self._hierarchy.is_suspended(session.path[0], session.started_at)
        if suspended and not session.emergency:
            return [self._denied(session, terms, command.number, 0, asked, NO_HOLD, 0, suspended=True)]
        granted = self._grant(session, terms, asked, now)
        if not granted.quantity:
            denied = self._denied(session, terms, command.number, 0, asked, NO_HOLD, 0)
            payer = EMERGENCY if session.emergency else PERSONAL
            if payer == EMERGENCY or denied.reason == "redirected":
                return [
                    _reserved(
                        replace(session, payer=payer), asked, _free(session, asked), NO_HOLD, denied.ruling
                    )
                ]
            return [denied, *self._capped(terms, 1)]
        ruling = terms.ruling_of(granted.hold)
        return [
            _reserved(
                session,
                asked,
                granted.quantity,
                granted.hold,
                ruling,
                self._conditions(session, terms, granted.quantity, now, last=granted.final),
                final=granted.final,
            ),
            *terms.crossed(granted.hold),
            *self._capped(terms, granted.hold.total),
        ]

    def _opened(self, command: ReserveUnits, now: int) -> tuple[Session, CompiledRate]:
        """The session as it would begin, holding nothing; refuses what nobody can authorise."""
        record, at = command.record, command.record.started_at
        ident = (record.source, record.record_id)
        if ident in self.open or ident in self.expired:
            raise Refused("session_exists", session=record.record_id)
        if len(self.open) >= OPEN_MAX:
            raise Refused("too_many_sessions", sessions_max=OPEN_MAX)
        path = self._hierarchy.guide(command.token, at)
        if path is None:
            raise Refused("unknown_line", session=record.record_id)
        if not path:
            raise Refused("line_not_active", session=record.record_id)
        if at > now + FUTURE_MAX:
            raise Refused("in_the_future", session=record.record_id)
        period = self._contracts.period_for(at)
        if period is None:
            raise Refused("no_contract", period=self._contracts.name_at(at))
        self._contracts.types.check(record.usage_type)
        tariff = self._tariffs.at(at)
        rate = find_rate(tariff, record) if tariff else None
        if rate is None:
            raise Refused("no_rate", usage_type=record.usage_type)
        rate = self._contracts.rate_of(period, record.usage_type, rate)
        session = Session(
            *(*ident, command.number, path, record.usage_type, period.period, at, record.direction),
            *(rate.version, rate.index, 0, NO_HOLD, _until(now), command.token, command.sealed),
            *(is_emergency(record), CORPORATE, self._limits.policies.place_of(record.counterpart)),
            *(rate.prefix, rate.basis),
            rating_group=command.rating_group,
            of=command.of,
        )
        return session, self._plans.bound(rate, period.period, path)

    def _update(self, session: Session, command: UpdateSession, used: int, now: int) -> list[Told]:
        switches = self._switching.reported(session, command.report, used, now)
        switched = switches if switches != known(session) else None
        session = _switched(session, switches)
        terms, requested = self._terms(session, used), command.requested
        if session.payer != CORPORATE:
            quantity = _free(session, _checked(requested)) if requested is not None else 0
            told = (*_of(session, command.number), used, requested, quantity, False, NO_HOLD, NO_HOLD)
            return [SessionUpdated(*told, _until(now), switches=switched)]
        suspended = requested is not None and self._is_cut_off(session, now)
        if requested is None or suspended:
            held, _ = terms.priced(terms.largest(used))
            quantity, final = 0, False
        else:
            granted = self._grant(session, terms, _checked(requested), now)
            held, quantity, final = granted.hold, granted.quantity, granted.final
        crossed: list[ThresholdCrossed | CapReached] = [*terms.crossed(held)]
        crossed += self._capped(terms, held.total + (requested is not None and not quantity))
        if requested is not None and not quantity and session.emergency:
            # Nothing ends a call for help: what cannot be held will not be charged.
            quantity = _free(session, requested)
        if requested is not None and not quantity:
            until = _until(now)
            denied = self._denied(
                session, terms, command.number, used, requested, held, until, suspended=suspended
            )
            return [replace(denied, switches=switched), *crossed]
        updated = SessionUpdated(
            *(*_of(session, command.number), used, requested, quantity, final, session.hold, held),
            *(_until(now), terms.ruling_of(held)),
            *(self._conditions(session, terms, quantity, now, last=final), switched),
        )
        return [updated, *crossed]

    def _grant(self, session: Session, terms: Terms, requested: int, now: int) -> Slice:
        """The next slice, sized by the session's pace and by who else draws on the same."""
        laid_down = self.terms.of(session.path, session.usage_type)
        usual, least = (laid_down.usual, laid_down.least) if laid_down is not None else (0, 0)
        quota, crowd = quota_of(session.usage_type, usual, least), self.crowd()
        is_new = (session.source, session.session) not in self.open

        def sharing(stop: Stop) -> int:
            return crowd.at(stop.counted, session.period, stop.ordinal) + is_new

        terms.ends = ends_sessions(terms.rate)
        wished = wish(requested, quota, terms.used, now - session.started_at)
        granted = terms.grant(wished, len(self.open) + is_new, sharing)
        if session.emergency and granted.final:
            # No slice is the last one of a call for help: what cannot be held will not be charged.
            return Slice(granted.hold, max(granted.quantity, _free(session, requested)), final=False)
        return granted

    def _conditions(
        self, session: Session, terms: Terms, granted: int, now: int = 0, *, last: bool
    ) -> Conditions | None:
        """What is told beside a slice, or with a denial; None where all is as usual."""
        laid_down = self.terms.of(session.path, session.usage_type)
        told = laid_down.conditions(granted, last=last) if laid_down is not None else _AS_USUAL
        if granted:
            begins = session.started_at + terms.used * SECOND
            switch_at = switches_at(terms.rate, begins, begins + granted * SECOND)
            switch_at = switch_at or self._switching.next_at(session, now)
            told = replace(told, switch_at=switch_at) if switch_at else told
        if granted and laid_down is not None and laid_down.pooled:
            told = replace(told, unit_value=unit_value(terms))
        return told if told != _AS_USUAL else None

    def _is_cut_off(self, session: Session, now: int) -> bool:
        """Whether a running session gets no more because its resource has been suspended."""
        if session.emergency or session.usage_type in CALLS:
            return False
        return self._hierarchy.is_suspended(session.path[0], now)

    def _denied(
        self,
        session: Session,
        terms: Terms,
        number: int,
        used: int,
        requested: int,
        held: Hold,
        expires_at: int,
        *,
        suspended: bool = False,
    ) -> SessionDenied:
        stop = terms.stop(held.total + 1)
        if suspended:
            family, by = terms.family, session.path[0]
            stop = Stop("suspended", by, family.usage_type, family.used[by], 0)
        assert stop is not None, "what is denied is stopped by somebody"
        _, _, ruling = terms.ruled(held.total + 1)
        return SessionDenied(
            *_of(session, number),
            used,
            requested,
            stop.reason,
            stop.ordinal,
            stop.counted,
            stop.used,
            stop.limit,
            session.hold,
            held,
            expires_at,
            session.subject,
            session.sealed,
            stop.window,
            ruling if stop.reason in STOPPING.values() else None,
            self._conditions(session, terms, 0, last=True),
        )

    # --- ending -------------------------------------------------------------------------------

    def _release(self, session: Session, number: int, used: int) -> list[Told]:
        total, followed = self._charged(session, used, session.session, session.sealed)
        released = SessionReleased(*_of(session, number), used, used - total, False, session.hold)
        return [released, *followed]

    def _expire(self, command: ExpireSession, now: int) -> list[Told]:
        session = self.open.get((command.source, command.session))
        if session is None:
            raise Refused("unknown_session", session=command.session)
        if session.expires_at > now:
            raise Refused("not_expired", session=command.session)
        total, followed = self._charged(session, session.used, session.session, session.sealed)
        expired = SessionExpired(
            *_of(session, session.number), session.used, session.used - total, session.hold
        )
        return [expired, *followed]

    def _late(self, session: Session, command: UpdateSession | ReleaseSession) -> list[Told]:
        """A report after the session was ended: what is new in it is charged as a record of its own."""
        used = _used(session, command)
        more = used - session.used
        session = replace(session, basis=going_on(session))
        total, followed = self._charged(session, more, session.session + LATE, command.sealed)
        released = SessionReleased(*_of(session, command.number), used, more - total, True, NO_HOLD)
        return [released, *followed]

    def _charged(
        self, session: Session, used: int, record_id: str, sealed: bytes
    ) -> tuple[int, list[UsageCharged | ThresholdCrossed | CapReached]]:
        """How much of what was used is charged, the charge of it, and the thresholds it crosses."""
        rate = self._rate(session)
        if session.payer != CORPORATE:
            return used, [_usage_of_another(session, rate, used, record_id, sealed)] if used else []
        terms = self._terms(session, used, rate)
        total = terms.largest(used)
        if not total:
            return 0, []
        hold, rated, ruling = terms.ruled(total)
        if ruling is not None and ruling.action in STOPPING:
            ruling = None
        # Money is not held back for sessions: what is there at the end pays.
        credit, _ = terms.money.draw(session.path, hold.amount)
        told = _usage(session, rate, hold, rated, record_id, sealed, CORPORATE, ruling, credit)
        return total, [told, *terms.crossed(hold), *self._capped(terms, total)]

    def _capped(self, terms: Terms, total: int) -> list[CapReached]:
        return terms.capped(total, self._hierarchy.members)

    def _rate(self, session: Session) -> CompiledRate:
        version = self._tariffs.versions[session.tariff - 1]
        prefix = session.prefix or version.rates[session.rate].prefix
        rate = version.rate_of(session.rate, prefix, session.basis)
        period = self._contracts.periods[session.period]
        rate = self._contracts.rate_of(period, session.usage_type, rate)
        return self._plans.bound(rate, session.period, session.path)

    def _terms(self, session: Session, used: int, rate: CompiledRate | None = None) -> Terms:
        families = self._families
        counters = families[session.usage_type, session.period], families[MONEY, session.period]
        kind = self._hierarchy.members[session.path[0]].kind
        asked = Asked(
            *(session.path, session.usage_type, session.direction, session.started_at),
            *(kind, "", session.place),
        )
        return Terms(
            rate or self._rate(session),
            session.path,
            counters,
            self._limits,
            session.hold,
            used,
            asked,
            frozen=None if session.emergency else frozen_on(session.path, self._hierarchy),
            overage=self._contracts.periods[session.period].overage,
            spared=session.emergency,
        )

    # --- applied ------------------------------------------------------------------------------

    def apply(self, event: SessionEvent | SessionTermsSet) -> None:
        if isinstance(event, SessionTermsSet):
            self.terms.apply(event, self._hierarchy)
            return
        ident = (event.source, event.session)
        session = self.open.pop(ident, None)
        before = session.hold if session is not None else NO_HOLD
        if event.before != before:
            raise InvariantBroken("a session gives back what it held", session=event.session, held=before)
        at = (event.usage_type, event.period)
        give_back(self._families, at, event.path, event.before)
        keep(self._families, at, event.path, event.held)
        if self._limits.gauges:
            self._count_windows(event)
        if self._crowd is not None:
            self._count_crowd(event, session)
        match event:
            case SessionReserved():
                begun = self.open[ident] = _begun(event)
                self._join(begun)
            case SessionUpdated() | SessionDenied():
                if session is not None:
                    self.open[ident] = _gone_on(session, event)
            case SessionReleased():
                ended = self.expired.pop(ident, session)
                if ended is not None:
                    self._part(ended)
            case SessionExpired():
                assert session is not None
                self.expired[ident] = replace(session, hold=NO_HOLD)
                if len(self.expired) > EXPIRED_MAX:
                    self._part(self.expired.pop(next(iter(self.expired))))

    def _count_crowd(self, event: SessionEvent, session: Session | None) -> None:
        assert self._crowd is not None
        if isinstance(event, SessionReserved):
            self._crowd.count(event.usage_type, event.period, event.path)
        elif isinstance(event, SessionReleased | SessionExpired) and session is not None:
            self._crowd.count(event.usage_type, event.period, event.path, -1)

    def _count_windows(self, event: SessionEvent) -> None:
        """Holds count in the windows that the session began in."""
        before, held, limits = event.before, event.held, self._limits
        for counted, less, more in (
            (event.usage_type, before.billed, held.billed),
            (MONEY, before.amount, held.amount),
        ):
            # Taken back before more is counted: on the way a window never stands higher than in the end.
            for quantity in (-less, more):
                if quantity:
                    limits.count(counted, event.path, quantity, event.started_at)

    def held_at(self, ordinal: int, counted: str) -> list[tuple[int, int]]:
        """What sessions hold at and below a member: when each began, and how much of it."""
        holds = [
            (session.started_at, session.hold.amount if counted == MONEY else session.hold.billed)
            for session in self.open.values()
            if ordinal in session.path and counted in (MONEY, session.usage_type)
        ]
        return [hold for hold in holds if hold[1]]

    def held_amount(self, period: str) -> int:
        """Money held in a period, counted in `used` and not charged yet."""
        return sum(session.hold.amount for session in self.open.values() if session.period == period)

    def holds(self) -> Iterator[tuple[tuple[str, str], Path, Drawn]]:
        """Family, path and parts of buckets of everything that is held."""
        for session in self.open.values():
            if session.hold.drawn:
                yield (session.usage_type, session.period), session.path, session.hold.drawn

    def held_units(self, usage_type: str, period: str) -> int:
        return sum(
            session.hold.billed
            for session in self.open.values()
            if (session.usage_type, session.period) == (usage_type, period)
        )

    def check_whole(self, others: Mapping[tuple[str, str, int], int]) -> None:
        """Over all sessions: what is reserved in the buckets is what they and the others hold, no more.

        `others` by usage type, period and ordinal: what offers and waiting transfers have reserved.
        """
        reserved = dict(others)
        for session in self.open.values():
            for ordinal, part in session.hold.drawn:
                key = (session.usage_type, session.period, ordinal)
                reserved[key] = reserved.get(key, 0) + part
        for (usage_type, period), family in self._families.items():
            for ordinal, held in enumerate(family.reserved):
                if held != reserved.get((usage_type, period, ordinal), 0):
                    raise InvariantBroken(
                        "reserved = the holds of sessions and offers", member=ordinal, reserved=held
                    )


def _of(session: Session, number: int) -> tuple[str, str, int, int, Path, str, str, int, str]:
    """What every event tells of its session, in the order of their fields."""
    return (
        session.source,
        session.session,
        session.rating_group,
        number,
        session.path,
        session.usage_type,
        session.period,
        session.started_at,
        session.direction,
    )


def _kept(session: Session, number: int, now: int) -> SessionUpdated:
    used, hold = session.used, session.hold
    left = max(0, hold.total - used)
    return SessionUpdated(*_of(session, number), used, None, left, False, hold, hold, _until(now))


def _begun(event: SessionReserved) -> Session:
    return Session(
        *(event.source, event.session, event.number, event.path, event.usage_type, event.period),
        *(event.started_at, event.direction, event.tariff, event.rate, 0, event.held),
        *(event.expires_at, event.subject, event.sealed, event.emergency, event.payer, event.place),
        *(event.prefix, event.basis, event.rating_group, event.of),
        pooled=_is_pooled(event.conditions),
    )


def _gone_on(session: Session, event: SessionUpdated | SessionDenied) -> Session:
    if event.switches is not None:
        session = _switched(session, event.switches)
    return replace(
        session,
        number=event.number,
        used=event.used,
        hold=event.held,
        expires_at=event.expires_at,
        pooled=session.pooled or _is_pooled(event.conditions),
    )


def _switched(session: Session, switches: tuple[Switch, ...]) -> Session:
    if switches == known(session):
        return session
    return replace(session, basis=with_switches(session.basis, switches))


def session_id(session: Session) -> SessionId:
    return session.source, session.session


def _is_pooled(conditions: Conditions | None) -> bool:
    return conditions is not None and conditions.unit_value is not None


def _used(session: Session, command: UpdateSession | ReleaseSession) -> int:
    """Used since the start; refuses a report that is older than the last, or takes usage back."""
    if command.number <= session.number:
        raise Refused("report_out_of_order", session=session.session, last=session.number)
    report = command.report
    used = session.used + report.used if report.total is None else report.total
    if used < session.used:
        raise Refused("usage_taken_back", session=session.session, used=session.used)
    return _checked(used)


def _checked(quantity: int) -> int:
    if not 0 <= quantity <= QUANTITY_MAX:
        raise Refused("quantity_out_of_range", quantity=quantity, quantity_max=QUANTITY_MAX)
    return quantity


def _until(now: int) -> int:
    return now + VALIDITY_SECONDS * 1_000_000


def _reserved(
    session: Session,
    asked: int,
    quantity: int,
    hold: Hold,
    ruling: Ruling | None,
    conditions: Conditions | None = None,
    *,
    final: bool = False,
) -> SessionReserved:
    return SessionReserved(
        *_of(session, session.number),
        session.tariff,
        session.rate,
        asked,
        quantity,
        final,
        hold,
        session.expires_at,
        session.subject,
        session.sealed,
        session.emergency,
        session.payer,
        session.place,
        ruling,
        session.prefix,
        session.basis,
        session.of,
        conditions,
    )


def _free(session: Session, requested: int) -> int:
    """A slice that the enterprise does not pay for: as asked for."""
    return requested or quota_of(session.usage_type).usual


_AS_USUAL = Conditions()


def _usage_of_another(
    session: Session, rate: CompiledRate, used: int, record_id: str, sealed: bytes
) -> UsageCharged:
    """What somebody else pays for is rated as a whole; a call for help costs nothing."""
    billed = rate.billed(used)
    rated = Rated(billed, 0, (0, 1))
    if session.payer != EMERGENCY:
        rated = rate.rate(billed, 0, session.started_at)
    hold = Hold(used, billed, (), rated.overage, rated.amount)
    return _usage(session, rate, hold, rated, record_id, sealed, session.payer, None)


def _usage(
    session: Session,
    rate: CompiledRate,
    hold: Hold,
    rated: Rated,
    record_id: str,
    sealed: bytes,
    payer: str,
    ruling: Ruling | None,
    credit: Drawn = (),
) -> UsageCharged:
    record = UsageRecord(
        *(session.source, record_id, "", session.usage_type),  # its line is known sealed only
        *(hold.total, session.started_at, session.direction),
    )
    about = (record, sealed, session.path, session.period, hold.billed, rate)
    return charged(*about, hold.drawn, rated, credit, payer, ruling)
