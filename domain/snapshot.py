"""A tenant's state as bytes, from which the same state comes back: a fold cut short.

In two parts. The structure (members, contracts, tariffs, limits) is large and changes seldom; the
counters are lists of numbers and change with every charge. What follows from these, such as
compiled rates and the index of identities, is built again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar, get_args

import msgspec
from msgspec import Raw, Struct

from .brief import Charged
from .bucket import Family, Granted, Transferred
from .cap import CapReached, CapSet, count_drawn
from .channels import ChannelsSet
from .charging import CORPORATE, UsageCharged, UsageRejected, UsageSuspended
from .contract import ContractSigned, Ending, PeriodOpened
from .gauge import Gauge, Told
from .granting import GrantChanged, ToppedUp
from .hierarchy import Identity, Member, NodeFrozen, Path
from .kept_counters import KeptCounters, keep_counters, restore_counters
from .kept_life import KeptLife, keep_life, restore_life
from .kept_limits import KeptLimits, KeptMany, keep_limits, restore_limits, restore_many
from .lateness import LateRuleSet
from .limit import LimitSet, ThresholdCrossed
from .notice import RecipientSet, Webhook
from .one_off import FeeCharged, FeeCredited
from .planned import Counting
from .policy import PolicySet, PolicyWithdrawn, UsageApproved
from .raising import LimitRaised
from .rating.amending import TariffAmended, TariffWithdrawn
from .rating.overriding import RatesOverridden
from .rating_job import RatingJob
from .receiving import ImportBegun, ReceivingEvent
from .refusals import InvariantBroken
from .rerated import RatingEvent
from .rollover import RolledOver
from .schedule import AllocationScheduled, ScheduleCarriedOut, ScheduleSkipped
from .session import (
    Session,
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from .session_terms import SessionTermsSet
from .suspense import SuspenseEvent
from .tariff import Made, TariffPublished
from .template import TemplateDefined
from .tenant import Event, Tenant, TenantOpened
from .trading import TradingEvent
from .trading_kept import NO_TRADING, KeptTrading, keep_trading, restore_trading
from .usage import MONEY
from .usage_type import UsageTypeDefined
from .window import window_of
from .writing_off import DismissalRuleSet

One = TypeVar("One")

BLOCK = 2_000
"""Members, or limits, encoded in one call: others get their turn in between."""
NOBODY = -1

COUNTED = {
    event.topic
    for event in (
        *(UsageCharged, UsageRejected, UsageSuspended),
        *(Granted, Transferred, PeriodOpened, ThresholdCrossed),
        *(ToppedUp, GrantChanged, RolledOver),
        *(SessionReserved, SessionUpdated, SessionDenied, SessionReleased, SessionExpired),
        *get_args(TradingEvent),
        *(CapReached, ScheduleCarriedOut, ScheduleSkipped),
        *get_args(RatingEvent),
        *(*get_args(SuspenseEvent), *get_args(ReceivingEvent)),
    )
}
"""The events that change counters only. Any other may change the structure."""


class FamilyCounters(Struct, array_like=True):
    """As in `Family`."""

    usage_type: str
    period: str
    granted_total: int
    remaining_total: int
    consumed_total: int
    remaining: KeptCounters
    consumed: KeptCounters
    reserved: KeptCounters
    used: KeptCounters
    mark: KeptCounters
    ceiling: KeptCounters
    expired_total: int = 0
    rolled_total: int = 0
    rolled_in_total: int = 0
    rolled: dict[int, dict[int, int]] = {}
    agreed: int | None = None
    drawn: dict[int, int] = {}
    """From above, by everybody who ever had a cap."""
    drawn_ceiling: dict[int, int] = {}
    told: list[int] = []
    """Whose cap was told to be reached."""


class GaugeCounters(Struct, array_like=True):
    """As in `Gauge`, with whose it is."""

    usage_type: str
    ordinal: int
    window: str
    first: int
    latest: int
    total: int
    mark: int
    ceiling: int
    bins: dict[int, int]
    told: dict[int, tuple[Told, ...]]


class Counters(Struct, array_like=True):
    opened: TenantOpened | None
    periods: list[PeriodOpened]
    families: list[FamilyCounters]
    fired: dict[str, list[tuple[str, int, int]]]
    """Usage type -> (period, ordinal, percent)."""
    counts: dict[str, int]
    amount_total: int
    sessions: list[Session]
    """Running, in the order of their last reports."""
    expired: list[Session]
    turns: list[tuple[str, str, int]] = []
    """Usage type, period, and how often it was rolled over."""
    trading: KeptTrading = NO_TRADING
    next_at: dict[str, int] = {}
    """When what is scheduled is due."""
    told: list[tuple[str, str, int, tuple[Told, ...]]] = []
    """Usage type, period, ordinal, and the thresholds."""
    gauges: list[GaugeCounters] = []
    jobs: list[RatingJob] = []
    corrected: dict[str, int] = {}
    taken_back: dict[int, int] = {}
    rerated: int = 0
    waiting: list[tuple[bytes, int]] = []
    """Records in suspense, in the order in which they came, each with its revision."""
    settled: dict[str, int] = {}
    imports: list[ImportBegun] = []
    digests: list[str] = []
    plans: list[tuple[str, str, dict[int, tuple[int, int]]]] = []
    """Plan, period, and of each ordinal what it has counted."""
    unsettled: tuple[Counting, ...] = ()
    dismissals: list[tuple[bytes, str]] = []
    """Records that somebody wants to write off, and who."""
    written_off: list[tuple[str, int, int]] = []
    """Person, day, and how much was written off alone."""
    settled_again: list[tuple[Counting, int]] = []
    """What is owed elsewhere for plans of closed periods, ..."""
    by_charge: list[tuple[str, str]] = []
    """... and plans and closed periods whose single charges were corrected."""


class KeptMember(Struct, array_like=True, gc=False):
    id: str
    kind: str
    name: str
    is_node: bool
    parent: int
    above: int
    """Which of the `ways` its path goes on with, after itself."""
    stays: list[tuple[int, int]]
    """(since, which of the `ways`), `NOBODY` where it had ended."""
    identities: tuple[Identity, ...]


class Structure(Struct, array_like=True):
    signed: list[ContractSigned]
    tariffs: list[TariffPublished]
    ways: list[Path]
    members: list[bytes]
    """Blocks of `KeptMember`."""
    limits: list[bytes]
    """`KeptLimits`, each by itself."""
    limits_many: list[KeptMany]
    life: KeptLife
    ends: dict[str, Ending] = {}
    types: list[UsageTypeDefined] = []
    recipients: list[RecipientSet] = []
    webhooks: list[Webhook] = []
    caps: list[CapSet] = []
    frozen: list[NodeFrozen] = []
    templates: list[TemplateDefined] = []
    schedules: list[AllocationScheduled] = []
    windows: list[LimitSet] = []
    raises: list[LimitRaised] = []
    policies: list[tuple[PolicySet | None, PolicyWithdrawn | None]] = []
    """One of the two, in the order in which they came."""
    approved: list[UsageApproved] = []
    amended: list[TariffAmended] = []
    overridden: list[RatesOverridden] = []
    withdrawn: list[TariffWithdrawn] = []
    session_terms: list[SessionTermsSet] = []
    fees: list[FeeCharged] = []
    credits: list[FeeCredited] = []
    channels: list[ChannelsSet] = []
    late_rules: list[LateRuleSet] = []
    dismissal_rule: DismissalRuleSet | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_counters = msgspec.msgpack.Decoder(Counters).decode
_decode_structure = msgspec.msgpack.Decoder(Structure).decode
_decode_limits = msgspec.msgpack.Decoder(KeptLimits).decode
_decode_members = msgspec.msgpack.Decoder(list[KeptMember]).decode


class CountersCopy(Struct):
    """Counters as they stood at one moment: copied lists, not encoded yet."""

    told: Counters
    """Without the families."""
    families: list[Family]


def copy_counters(tenant: Tenant) -> CountersCopy:
    """What changes with every charge, copied. The state must stand still meanwhile."""
    fired: dict[str, list[tuple[str, int, int]]] = {}
    for (usage_type, period, ordinal), percent in tenant.limits.fired.items():
        fired.setdefault(usage_type, []).append((period, ordinal, percent))
    told = Counters(
        tenant.opened,
        list(tenant.contracts.periods.values()),
        [],
        fired,
        dict(tenant.charging.counts),
        tenant.charging.amount_total,
        list(tenant.sessions.open.values()),
        list(tenant.sessions.expired.values()),
        [(*at, count) for at, count in tenant.rollovers.turns.items()],
        keep_trading(tenant.trading),
        dict(tenant.schedules.next_at),
        [(*key, told) for key, told in tenant.limits.told.items()],
        _copy_gauges(tenant),
        [msgspec.structs.replace(job) for job in tenant.rerating.jobs.values()],
        dict(tenant.rerating.corrected),
        dict(tenant.rerating.waiting),
        tenant.rerating.changed,
        list(tenant.suspense.waiting.items()),
        dict(tenant.suspense.settled),
        list(tenant.receiving.open.values()),
        sorted(tenant.receiving.digests),
        [(*of, counters.copy()) for of, counters in tenant.plans.counters.items()],
        tenant.rerating.unsettled,
        list(tenant.suspense.writing_off.asked.items()),
        [(person, *of_day) for person, of_day in tenant.suspense.writing_off.alone.items()],
        list(tenant.rerating.resettling.corrected.items()),
        sorted(tenant.rerating.resettling.by_charge),
    )
    return CountersCopy(told, [_copy_family(family) for family in tenant.families.values()])


def encode_counters(copied: CountersCopy) -> bytes:
    """List by list: nobody is held up for longer than one of them takes."""
    told = copied.told
    families = [Raw(_encode_family(family)) for family in copied.families]
    return _encode(
        [
            *(told.opened, told.periods, families, told.fired, told.counts, told.amount_total),
            *(told.sessions, told.expired, told.turns, told.trading, told.next_at, told.told, told.gauges),
            *(told.jobs, told.corrected, told.taken_back, told.rerated),
            *(told.waiting, told.settled, told.imports, told.digests),
            *(told.plans, told.unsettled),
            *(told.dismissals, told.written_off, told.settled_again, told.by_charge),
        ]
    )


class Moved(Exception):
    """The structure changed while it was read."""


def encode_structure(tenant: Tenant, moved: Callable[[], bool] = lambda: False) -> bytes:
    """Members, contracts, tariffs and limits: right only if none of these changed meanwhile.

    Whether they did is asked between two blocks: of a million members none is read in vain for long.
    """

    def between() -> None:
        if moved():
            raise Moved

    def blocks(told: Sequence[One]) -> Iterator[Sequence[One]]:
        for first in range(0, len(told), BLOCK):
            between()
            yield told[first : first + BLOCK]

    ways: dict[Path, int] = {}
    members = tenant.hierarchy.members
    limits, limits_many = keep_limits(tenant.limits.by_type, between)
    made = [tariff.made for tariff in tenant.tariffs.versions]
    return _encode(
        Structure(
            tenant.contracts.signed,
            [one for one in made if isinstance(one, TariffPublished)],
            members=[_encode([_keep(member, ways) for member in block]) for block in blocks(members)],
            limits=[*map(_encode, limits)],
            limits_many=limits_many,
            ways=list(ways),
            life=keep_life(tenant),
            ends=tenant.contracts.ends,
            types=tenant.types.defined,
            recipients=list(tenant.notices.recipients.values()),
            webhooks=list(tenant.notices.webhooks.values()),
            caps=[cap for by in tenant.caps.by_type.values() for caps in by.values() for cap in caps],
            frozen=[*tenant.hierarchy.frozen.values()],
            templates=list(tenant.templates.by_name.values()),
            schedules=list(tenant.schedules.by_id.values()),
            windows=[
                limit
                for by_ordinal in tenant.limits.windows.values()
                for limits_there in by_ordinal.values()
                for limit in limits_there.values()
            ],
            raises=list(chain.from_iterable(tenant.limits.raises.values())),
            policies=[*map(_keep_version, chain.from_iterable(tenant.limits.policies.versions.values()))],
            approved=list(chain.from_iterable(tenant.limits.policies.approved.values())),
            amended=[one for one in made if isinstance(one, TariffAmended)],
            overridden=[one for one in made if isinstance(one, RatesOverridden)],
            withdrawn=list(tenant.tariffs.withdrawn.values()),
            session_terms=[*tenant.sessions.terms.by_node.values()],
            fees=list(tenant.fees.charged.values()),
            credits=list(tenant.fees.credited.values()),
            channels=list(tenant.channels.last.values()),
            late_rules=list(tenant.charging.late.by_source.values()),
            dismissal_rule=tenant.suspense.writing_off.rule,
        )
    )


def restore(counters: bytes, structure: bytes) -> Tenant:
    """The state that both parts were taken of."""
    kept, counted = _decode_structure(structure), _decode_counters(counters)
    tenant = Tenant()
    if counted.opened is not None:
        tenant.apply(counted.opened)
    for defined in kept.types:
        tenant.types.apply(defined)
    for signed in kept.signed:
        tenant.contracts.apply(signed)
    tenant.contracts.ends = kept.ends
    tenant.contracts.arrange()
    for period in counted.periods:
        tenant.contracts.apply(period)
    made: list[Made] = [*kept.tariffs, *kept.amended, *kept.overridden]
    for tariff in sorted(made, key=lambda one: one.version):
        tenant.tariffs.apply(tariff)
    for withdrawn in kept.withdrawn:
        tenant.tariffs.apply(withdrawn)
    tenant.notices.recipients = {one.recipient: one for one in kept.recipients}
    tenant.notices.webhooks = {one.id: one for one in kept.webhooks}
    for usage_type, all_fired in counted.fired.items():
        for period_name, ordinal, percent in all_fired:
            tenant.limits.fired[usage_type, period_name, ordinal] = percent
    _restore_members(tenant, kept.ways, chain.from_iterable(map(_decode_members, kept.members)))
    restore_limits(tenant.limits.by_type, map(_decode_limits, kept.limits), tenant.hierarchy.members)
    restore_many(tenant.limits.by_type, kept.limits_many)
    restore_life(tenant, kept.life)
    _restore_allocation(tenant, kept)
    _restore_rules(tenant, kept, counted)
    _restore_owed(tenant, kept, counted)
    for family in counted.families:
        restored = tenant.families[family.usage_type, family.period] = _restore_family(family)
        _restore_caps(tenant, restored, family)
    tenant.schedules.next_at = counted.next_at
    tenant.charging.counts.update(counted.counts)
    tenant.charging.amount_total = counted.amount_total
    tenant.rollovers.turns = {(usage_type, period): count for usage_type, period, count in counted.turns}
    tenant.sessions.open = {(one.source, one.session): one for one in counted.sessions}
    tenant.sessions.expired = {(one.source, one.session): one for one in counted.expired}
    restore_trading(tenant.trading, counted.trading)
    tenant.rerating.jobs = {job.started.job: job for job in counted.jobs}
    tenant.rerating.corrected, tenant.rerating.waiting = counted.corrected, counted.taken_back
    tenant.rerating.changed, tenant.rerating.unsettled = counted.rerated, counted.unsettled
    tenant.rerating.resettling.corrected = dict(counted.settled_again)
    tenant.rerating.resettling.by_charge = set(counted.by_charge)
    tenant.suspense.waiting = dict(counted.waiting)
    tenant.suspense.settled.update(counted.settled)
    tenant.receiving.open = {begun.id: begun for begun in counted.imports}
    tenant.receiving.digests = set(counted.digests)
    for rule in kept.late_rules:
        tenant.charging.late.apply(rule)
    writing_off = tenant.suspense.writing_off
    writing_off.rule, writing_off.asked = kept.dismissal_rule, dict(counted.dismissals)
    writing_off.alone = {person: (day, much) for person, day, much in counted.written_off}
    return tenant


def count_all(tenant: Tenant, charges: Sequence[Charged]) -> None:
    """Apply a run of charges as `Charging.count` does, each ancestor and bucket counted once at the end.

    Usage only grows within a run, buckets only shrink, and no limit changes: what is within its
    bounds at the end always was.
    """
    charging, runs = tenant.charging, _Runs(tenant.families)
    of_period, by_type = "", runs.of("")
    gauges = tenant.limits.gauges
    for envelope in charges:
        event = envelope.event
        billed, amount, path = event.billed, event.amount, event.path
        if event.period != of_period:
            of_period = event.period
            by_type = runs.of(of_period)
        foot, above, drawn = by_type[event.usage_type]
        taken = 0
        for ordinal, part in event.drawn:
            if part <= 0:
                raise InvariantBroken("no bucket is overdrawn", member=ordinal, part=part)
            taken += part
            drawn[ordinal] += part
        if taken + event.overage != billed:
            raise InvariantBroken(
                "the parts of a charge add up", taken=taken, overage=event.overage, billed=billed
            )
        if event.payer != CORPORATE:
            continue
        if event.basis is not None and event.basis.counted is not None:
            tenant.plans.count(of_period, event.basis.counted)
        if gauges:
            charging.count_windows(event.usage_type, path, event.started_at, billed, amount)
        # A node has one way up, but many resources: its charges go on together.
        foot[path[0]] += billed
        above[path[1:]] += billed
        if amount:
            foot, above, paid = by_type[MONEY]
            foot[path[0]] += amount
            above[path[1:]] += amount
            charging.amount_total += amount
            for ordinal, part in event.credit:
                paid[ordinal] += part
    charging.counts["charged"] += len(charges)
    runs.end()
    if any(family.caps is not None for family in tenant.families.values()):
        for envelope in charges:
            event = envelope.event
            count_drawn(tenant.families[event.usage_type, event.period], event.path, event.drawn)


_Run = tuple[defaultdict[int, int], defaultdict[Path, int], defaultdict[int, int]]
"""What a run of charges adds to one family: at the foot of paths, on what is above, out of buckets."""


class _OfPeriod(dict[str, _Run]):
    """One run for each usage type that is met."""

    def __missing__(self, usage_type: str) -> _Run:
        run = self[usage_type] = (defaultdict(int), defaultdict(int), defaultdict(int))
        return run


class _Runs:
    """One for each family that a run of charges touches."""

    def __init__(self, families: dict[tuple[str, str], Family]) -> None:
        self._families = families
        self._by_period: dict[str, _OfPeriod] = {}

    def of(self, period: str) -> _OfPeriod:
        return self._by_period.setdefault(period, _OfPeriod())

    def end(self) -> None:
        for period, by_type in self._by_period.items():
            for usage_type, (foot, above, drawn) in by_type.items():
                for path, quantity in above.items():
                    for ordinal in path:
                        foot[ordinal] += quantity
                add_up(self._families[usage_type, period], foot, drawn)


def counts_by_sums(tenant: Tenant) -> bool:
    """Whether charges count by what they add up to: where windows or caps count, each is looked at."""
    return not tenant.limits.gauges and all(family.caps is None for family in tenant.families.values())


def add_up(family: Family, used: dict[int, int], drawn: dict[int, int]) -> None:
    """Count what a run of charges adds to one family."""
    counters, ceiling = family.used, family.ceiling
    for ordinal, quantity in used.items():
        total = counters[ordinal] = counters[ordinal] + quantity
        if total > ceiling[ordinal]:
            raise InvariantBroken(
                "usage never passes a limit", usage_type=family.usage_type, member=ordinal, used=total
            )
    if drawn:
        family.consume(tuple(drawn.items()))


# --- members -------------------------------------------------------------------------------------


def _keep(member: Member, ways: dict[Path, int]) -> KeptMember:
    """Thousands of resources share the way from their node up: it is told once."""
    above = ways.setdefault(member.path[1:], len(ways))
    stays = [
        (since, ways.setdefault(path[1:], len(ways)) if path else NOBODY) for since, path in member.stays
    ]
    parent = member.parent.ordinal if member.parent else NOBODY
    return KeptMember(
        member.id, member.kind, member.name, member.is_node, parent, above, stays, member.identities
    )


def _restore_members(tenant: Tenant, ways: list[Path], kept: Iterable[KeptMember]) -> None:
    hierarchy = tenant.hierarchy
    members, by_id, by_token = hierarchy.members, hierarchy.by_id, hierarchy.by_token
    parents: list[int] = []
    kinds: dict[str, str] = {}
    for ordinal, one in enumerate(kept):
        member = Member(one.id, ordinal, kinds.setdefault(one.kind, one.kind), one.name, is_node=one.is_node)
        if one.is_node:
            member.way = (ordinal, *ways[one.above])
        member.identities = one.identities
        for since, way in one.stays:
            member.stays.append((since, () if way == NOBODY else (ordinal, *ways[way])))
        members.append(member)
        by_id[one.id] = member
        parents.append(one.parent)
        for identity in one.identities:
            holders = by_token.get(identity.token)
            by_token[identity.token] = (*holders, member) if holders else (member,)
    for member, parent in zip(members, parents, strict=True):
        if parent != NOBODY:
            member.parent = members[parent]


def _keep_version(
    version: PolicySet | PolicyWithdrawn,
) -> tuple[PolicySet | None, PolicyWithdrawn | None]:
    return (version, None) if isinstance(version, PolicySet) else (None, version)


def _copy_gauges(tenant: Tenant) -> list[GaugeCounters]:
    return [
        GaugeCounters(
            *(usage_type, ordinal, window, gauge.first, gauge.latest, gauge.total, gauge.mark, gauge.ceiling),
            *(gauge.bins.copy(), gauge.told.copy()),
        )
        for usage_type, by_ordinal in tenant.limits.gauges.items()
        for ordinal, gauges in by_ordinal.items()
        for window, gauge in gauges.items()
    ]


def _restore_owed(tenant: Tenant, kept: Structure, counted: Counters) -> None:
    tenant.plans.counters = {(plan, period): counters for plan, period, counters in counted.plans}
    for charged in kept.fees:
        tenant.fees.apply(charged)
    for credited in kept.credits:
        tenant.fees.apply(credited)
    tenant.channels.last = {one.resource: one for one in kept.channels}


def _restore_rules(tenant: Tenant, kept: Structure, counted: Counters) -> None:
    """What limits and policies have beside the limits per period."""
    limits, by_id = tenant.limits, tenant.hierarchy.by_id
    limits.begin(period.starts_at for period in counted.periods)
    for usage_type, period, ordinal, told in counted.told:
        limits.told[usage_type, period, ordinal] = told
    for limit in kept.windows:
        by_ordinal = limits.windows.setdefault(limit.usage_type, {})
        by_ordinal.setdefault(by_id[limit.node].ordinal, {})[limit.window] = limit
    for raised in kept.raises:
        key = (raised.usage_type, raised.window, by_id[raised.node].ordinal)
        limits.raises[key] = (*limits.raises.get(key, ()), raised)
    for pair in kept.policies:
        limits.policies.apply(pair[0] or pair[1], tenant.hierarchy)  # type: ignore[arg-type]
    for approved in kept.approved:
        limits.policies.apply(approved, tenant.hierarchy)
    for one in counted.gauges:
        window = window_of(one.window)
        assert window is not None
        gauge = Gauge(window, one.first)
        gauge.latest, gauge.total = one.latest, one.total
        gauge.mark, gauge.ceiling, gauge.bins, gauge.told = one.mark, one.ceiling, one.bins, one.told
        limits.gauges.setdefault(one.usage_type, {}).setdefault(one.ordinal, {})[one.window] = gauge


def _restore_allocation(tenant: Tenant, kept: Structure) -> None:
    events: list[Event] = [*kept.caps, *kept.frozen, *kept.templates, *kept.schedules, *kept.session_terms]
    for event in events:
        tenant.apply(event)


def _restore_caps(tenant: Tenant, family: Family, kept: FamilyCounters) -> None:
    """Of promises nothing is kept: they are added up again."""
    tenant.caps.arm(family)
    if kept.drawn:
        # Those who had the caps may all be closed; what was drawn past them stays counted.
        tenant.caps.on(family)
    if family.caps is not None:
        family.caps.drawn, family.caps.ceiling = kept.drawn, kept.drawn_ceiling
        family.caps.told = set(kept.told)


# --- families ------------------------------------------------------------------------------------


def _copy_family(family: Family) -> Family:
    copied = Family(family.usage_type, family.period, 0)
    copied.granted_total = family.granted_total
    copied.remaining_total = family.remaining_total
    copied.consumed_total = family.consumed_total
    copied.expired_total, copied.rolled_total = family.expired_total, family.rolled_total
    copied.rolled_in_total, copied.agreed = family.rolled_in_total, family.agreed
    copied.rolled = {ordinal: ages.copy() for ordinal, ages in family.rolled.items()}
    copied.remaining, copied.consumed = family.remaining.copy(), family.consumed.copy()
    copied.reserved, copied.used = family.reserved.copy(), family.used.copy()
    copied.mark, copied.ceiling = family.mark.copy(), family.ceiling.copy()
    copied.caps = family.caps.counters() if family.caps is not None else None
    return copied


def _encode_family(family: Family) -> bytes:
    lists = (family.remaining, family.consumed, family.reserved, family.used, family.mark, family.ceiling)
    return _encode(
        [
            family.usage_type,
            family.period,
            family.granted_total,
            family.remaining_total,
            family.consumed_total,
            *map(keep_counters, lists),
            *(family.expired_total, family.rolled_total, family.rolled_in_total),
            *(family.rolled, family.agreed),
            *((caps.drawn, caps.ceiling, sorted(caps.told)) if (caps := family.caps) else ({}, {}, [])),
        ]
    )


def _restore_family(kept: FamilyCounters) -> Family:
    family = Family(kept.usage_type, kept.period, 0)
    family.granted_total = kept.granted_total
    family.remaining_total = kept.remaining_total
    family.consumed_total = kept.consumed_total
    family.expired_total, family.rolled_total = kept.expired_total, kept.rolled_total
    family.rolled_in_total, family.agreed = kept.rolled_in_total, kept.agreed
    family.rolled = kept.rolled
    family.remaining, family.consumed = restore_counters(kept.remaining), restore_counters(kept.consumed)
    family.reserved, family.used = restore_counters(kept.reserved), restore_counters(kept.used)
    family.mark, family.ceiling = restore_counters(kept.mark), restore_counters(kept.ceiling)
    family.holders = {ordinal for ordinal, remaining in enumerate(family.remaining) if remaining}
    return family
