"""Rules: limits in every window with their raises, policies with their versions, approvals.

They are few and change seldom: their events are kept as they are, and folded for whoever asks. What
limits per day, week or rolling window have counted is added up beside them, bin by bin, from when
each was set: what was charged, without what sessions hold.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from ..domain.charging import CORPORATE
from ..domain.gauge import Gauge
from ..domain.lateness import LateRuleSet
from ..domain.limit import InForce, LimitSet, ThresholdCrossed
from ..domain.policy import PolicySet, PolicyWithdrawn, UsageApproved
from ..domain.raising import LimitRaised, raised
from ..domain.rerated import UsageTakenBack
from ..domain.session_terms import SessionTermsSet
from ..domain.tenant import TenantOpened
from ..domain.usage import MONEY
from ..domain.window import PERIOD, Calendar, window_of
from ..domain.writing_off import DismissalRuleSet
from .chunk import Chunk
from .tables import Connection, Table

RULES = Table(
    "rule_events",
    {"seq": "bigint"},
    {"topic": "text", "ordinal": "integer", "state": "bytea", "recorded_at": "bigint"},
)
LIMITS = Table(
    "window_limits",
    {"ordinal": "integer", "usage_type": "text", "span": "text"},
    {"since": "bigint", "in_force": "boolean"},
)
USAGE = Table(
    "window_usage",
    {"ordinal": "integer", "usage_type": "text", "span": "text", "since": "bigint", "bin": "bigint"},
    {"used": "bigint"},
)
TABLES = (RULES, LIMITS, USAGE)
VERSION = 3
NOWHERE = -1
"""The ordinal of what is about no member."""

OfMember = (
    LimitSet | LimitRaised | ThresholdCrossed | PolicySet | PolicyWithdrawn | UsageApproved | SessionTermsSet
)
OfAll = LateRuleSet | DismissalRuleSet
Rule = OfMember | OfAll
KINDS: dict[str, type[Rule]] = {kind.topic: kind for kind in get_args(Rule)}
_pack = msgspec.msgpack.Encoder().encode
_decoders = {topic: msgspec.msgpack.Decoder(kind) for topic, kind in KINDS.items()}
_decode_opened = msgspec.msgpack.Decoder(TenantOpened).decode


class Told(Struct, frozen=True):
    """A rule's event, with its place in the log."""

    seq: int
    ordinal: int
    recorded_at: int
    event: OfMember


class ToldOfAll(Struct, frozen=True):
    """The event of a rule for the whole enterprise, with its place in the log."""

    seq: int
    recorded_at: int
    event: OfAll


class Limit(Struct, frozen=True):
    """A limit in force at a member in a window, and how far usage has come there."""

    ordinal: int
    usage_type: str
    in_force: InForce
    """As raised for the moment asked about."""
    seq: int
    """The event that set it."""
    recorded_at: int
    raises: list[Told]
    """Since it was set, the newest last."""
    of: str
    """Which period, day or week; the last day or hour of a rolling window."""
    used: int
    crossed: list[Told]
    """The thresholds that have fired in this window, in order."""


class Policy(Struct, frozen=True):
    """A policy with all its versions, the newest last."""

    policy: str
    ordinal: int
    versions: list[Told]
    approved: list[Told]


def apply(chunk: Chunk, db: Connection) -> None:
    rows = []
    for told in chunk.others:
        event = told.event
        if isinstance(event, TenantOpened):
            rows.append((told.seq, told.topic, NOWHERE, _pack(event), told.recorded_at))
        elif told.topic in KINDS:
            assert isinstance(event, Rule)
            ordinal = NOWHERE if isinstance(event, OfAll) else chunk.ordinals.of[event.node]
            rows.append((told.seq, told.topic, ordinal, _pack(event), told.recorded_at))
    RULES.insert(db, rows)
    _count(chunk, db)


def _count(chunk: Chunk, db: Connection) -> None:
    """What is charged within the windows of limits, from when each is set until it is lifted."""
    sets = [
        (told.seq, (chunk.ordinals.of[told.event.node], told.event.usage_type, told.event.window), told.event)
        for told in chunk.others
        if isinstance(told.event, LimitSet) and told.event.window != PERIOD
    ]
    limits = chunk.kept("window_limits", lambda: _counting(db), changes=bool(sets))
    if not limits and not sets:
        return
    counting, changed = _Counting(calendar(db), limits), {}
    for seq, key, event in sets:
        counting.until(seq, key, holds=event.quantity is not None)
        changed[key] = (counting.since.get(key, seq), event.quantity is not None)
    LIMITS.put(db, changed)
    USAGE.add(db, counting.charged(chunk))


def _counting(db: Connection) -> dict[tuple[int, str, str], int]:
    """Since when limits in windows count, of those in force."""
    found = db.execute("SELECT ordinal, usage_type, span, since FROM window_limits WHERE in_force")
    return {(ordinal, usage_type, window): since for ordinal, usage_type, window, since in found}


class _Counting:
    """Which limits counted which charges of a chunk."""

    def __init__(self, of: Calendar, limits: dict[tuple[int, str, str], int]) -> None:
        self.calendar = of
        self.since = dict(limits)
        self._spans: dict[tuple[int, str], list[tuple[str, int, int, int]]] = {}
        """By ordinal and usage type: window, since, and the seqs between which it counts."""
        self._begun = {key: (since, 0) for key, since in limits.items()}

    def until(self, seq: int, key: tuple[int, str, str], *, holds: bool) -> None:
        """A limit is set or lifted. Set again, it goes on."""
        if holds and key not in self._begun:
            self._begun[key] = (seq, seq)
            self.since[key] = seq
        elif not holds and key in self._begun:
            self._end(key, seq)
            del self._begun[key]

    def charged(self, chunk: Chunk) -> dict[Any, list[int]]:
        for key in self._begun:
            self._end(key, 1 << 62)
        sums: dict[Any, list[int]] = {}
        limited = {ordinal for ordinal, _ in self._spans}
        for seq, charge in zip(chunk.charges.seqs, chunk.charges.events, strict=True) if limited else ():
            if charge.payer != CORPORATE or limited.isdisjoint(charge.path):
                continue
            for counted, much in ((charge.usage_type, charge.billed), (MONEY, charge.amount)):
                for ordinal in charge.path if much else ():
                    for window, since, first, last in self._spans.get((ordinal, counted), ()):
                        if first < seq < last:
                            number = self._bin(window, charge.started_at)
                            sums.setdefault((ordinal, counted, window, since, number), [0])[0] += much
        for told in chunk.others:
            if isinstance(told.event, UsageTakenBack):
                self._correct(told.seq, told.event, sums)
        return sums

    def _correct(self, seq: int, event: UsageTakenBack, sums: dict[Any, list[int]]) -> None:
        for one in event.windows:
            for window, since, first, last in self._spans.get((one.ordinal, one.counted), ()):
                if window == one.window and first < seq < last:
                    key = (one.ordinal, one.counted, window, since, self._bin(window, one.at))
                    sums.setdefault(key, [0])[0] += one.change

    def _end(self, key: tuple[int, str, str], seq: int) -> None:
        since, first = self._begun[key]
        ordinal, usage_type, window = key
        self._spans.setdefault((ordinal, usage_type), []).append((window, since, first, seq))

    def _bin(self, window: str, at: int) -> int:
        kind = window_of(window)
        assert kind is not None
        return self.calendar.bin_of(kind.unit, at)


# --- queries ---------------------------------------------------------------------------------


def calendar(db: Connection) -> Calendar:
    """The tenant's own days and weeks."""
    made = Calendar()
    found = db.execute("SELECT state FROM rule_events WHERE topic = %s", (TenantOpened.topic,)).fetchone()
    if found is not None:
        made.zone = ZoneInfo(_decode_opened(found[0]).time_zone)
    return made


def limits_at(
    db: Connection, ordinals: Sequence[int], period: str, at: int, used: Mapping[tuple[int, str], int]
) -> list[Limit]:
    """The limits in force at members, those set last first; `used` is what the period has counted."""
    told = _told(db, ordinals, (LimitSet.topic, LimitRaised.topic, ThresholdCrossed.topic))
    found: dict[tuple[int, str, str], list[Told]] = {}
    for one in told:
        event = one.event
        assert isinstance(event, LimitSet | LimitRaised | ThresholdCrossed)
        found.setdefault((one.ordinal, event.usage_type, event.window), []).append(one)
    counts, days = _counts(db, ordinals), calendar(db)
    limits = [
        limit
        for key, events in found.items()
        if (limit := _limit(key, events, period, at, days, used, counts)) is not None
    ]
    return sorted(limits, key=lambda limit: -limit.seq)


def counted_since(db: Connection, node: str, usage_type: str, window: str) -> int | None:
    """The event from which on a limit in a window other than the period counts; None where none is."""
    found = db.execute(
        "SELECT since FROM window_limits WHERE ordinal = (SELECT ordinal FROM members WHERE id = %s) "
        "AND usage_type = %s AND span = %s AND in_force",
        (node, usage_type, window),
    ).fetchone()
    return int(found[0]) if found is not None else None


def policies(db: Connection) -> list[Policy]:
    """All policies; who may see which is for the reader to say."""
    topics = (PolicySet.topic, PolicyWithdrawn.topic, UsageApproved.topic)
    found: dict[str, tuple[list[Told], list[Told]]] = {}
    for told in _told(db, None, topics):
        assert isinstance(told.event, PolicySet | PolicyWithdrawn | UsageApproved)
        versions, approved = found.setdefault(told.event.policy, ([], []))
        (approved if isinstance(told.event, UsageApproved) else versions).append(told)
    made = [Policy(name, of[0][-1].ordinal, *of) for name, of in found.items()]
    return sorted(made, key=lambda policy: -policy.versions[-1].seq)


def session_terms(db: Connection) -> list[Told]:
    """The terms for sessions that hold, those set last first; who may see which is for the reader to say."""
    found: dict[tuple[int, str], Told] = {}
    for told in _told(db, None, (SessionTermsSet.topic,)):
        assert isinstance(told.event, SessionTermsSet)
        found[told.ordinal, told.event.usage_type] = told
    held = [told for told in found.values() if told.event.terms is not None]  # type: ignore[union-attr]
    return sorted(held, key=lambda told: -told.seq)


def suspense_rules(db: Connection) -> tuple[ToldOfAll | None, list[ToldOfAll]]:
    """What writing off takes, if anything; and the rules for late usage, by source. Those that hold."""
    dismissal: ToldOfAll | None = None
    late: dict[str, ToldOfAll] = {}
    for seq, _, recorded_at, event in _events_of(db, None, (DismissalRuleSet.topic, LateRuleSet.topic)):
        assert isinstance(event, OfAll)
        told = ToldOfAll(seq, recorded_at, event)
        match event:
            case DismissalRuleSet(above):
                dismissal = told if above is not None else None
            case LateRuleSet(source, hours):
                late.pop(source, None)
                if hours is not None:
                    late[source] = told
    return dismissal, [late[source] for source in sorted(late)]


def _limit(
    key: tuple[int, str, str],
    events: Sequence[Told],
    period: str,
    at: int,
    days: Calendar,
    used: Mapping[tuple[int, str], int],
    counts: Mapping[tuple[int, str, str], dict[int, int]],
) -> Limit | None:
    """As `domain/limit.py` has it: of several the one that holds from the latest period on, set last."""
    ordinal, usage_type, window = key
    sets = [one for one in events if isinstance(one.event, LimitSet) and one.event.from_period <= period]
    last = max(reversed(sets), key=lambda one: one.event.from_period, default=None)  # type: ignore[union-attr]
    if window != PERIOD:
        last = sets[-1] if sets else None
    if last is None or not isinstance(last.event, LimitSet) or last.event.quantity is None:
        return None
    newest = max(one.seq for one in events if isinstance(one.event, LimitSet))
    raises = [one for one in events if isinstance(one.event, LimitRaised) and one.seq > newest]
    of, counted = period, used.get((ordinal, usage_type), 0)
    kind = window_of(window)
    if kind is not None:
        gauge = Gauge(kind, 0)
        gauge.ceiling = 1 << 62
        for number, much in sorted(counts.get(key, {}).items()):
            gauge.add(number, much)
        number = days.bin_of(kind.unit, at)
        counted, of = gauge.sum_of(number), days.label(kind.unit, number)
    crossed = [
        one
        for one in events
        if isinstance(one.event, ThresholdCrossed) and (one.event.of or one.event.period) == of
    ]
    given = last.event
    quantity = raised(_events(raises), last.event.quantity, at)
    in_force = InForce(
        *(given.node, quantity, given.thresholds, given.from_period, window, given.kind, given.quantities),
        *(given.may_raise, None if quantity == given.quantity else given.quantity),
    )
    return Limit(ordinal, usage_type, in_force, last.seq, last.recorded_at, raises, of, counted, crossed)


def _events(told: Iterable[Told]) -> list[LimitRaised]:
    return [one.event for one in told if isinstance(one.event, LimitRaised)]


def _counts(db: Connection, ordinals: Sequence[int]) -> dict[tuple[int, str, str], dict[int, int]]:
    counts: dict[tuple[int, str, str], dict[int, int]] = {}
    found = db.execute(
        "SELECT u.ordinal, u.usage_type, u.span, u.bin, u.used FROM window_usage u "
        "JOIN window_limits l ON l.ordinal = u.ordinal AND l.usage_type = u.usage_type "
        "AND l.span = u.span AND l.since = u.since WHERE l.in_force AND u.ordinal = ANY(%s)",
        (list(ordinals),),
    )
    for ordinal, usage_type, window, number, used in found:
        counts.setdefault((ordinal, usage_type, window), {})[number] = used
    return counts


def _told(db: Connection, ordinals: Sequence[int] | None, topics: Sequence[str]) -> list[Told]:
    told = []
    for seq, ordinal, recorded_at, event in _events_of(db, ordinals, topics):
        assert isinstance(event, OfMember)
        told.append(Told(seq, ordinal, recorded_at, event))
    return told


def _events_of(
    db: Connection, ordinals: Sequence[int] | None, topics: Sequence[str]
) -> Iterator[tuple[int, int, int, Rule]]:
    among = "" if ordinals is None else "AND ordinal = ANY(%(ordinals)s)"
    found = db.execute(
        f"SELECT seq, topic, ordinal, state, recorded_at FROM rule_events WHERE topic = ANY(%(topics)s) "
        f"{among} ORDER BY seq",
        {"topics": list(topics), "ordinals": list(ordinals or ())},
        binary=True,
    )
    for seq, topic, ordinal, state, recorded_at in found:
        yield seq, ordinal, recorded_at, _decoders[topic].decode(state)
