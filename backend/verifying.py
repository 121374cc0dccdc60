"""Verification: everything that always holds, checked again on the stored log from event 1.

What is checked is what is stored: order, hashes, the fold's invariants, each charge rated
again, one charge per record, and every projection against its rebuild. The first event that
does not hold is named. `dump` prints the state as canonical bytes, for `sha256sum`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import UUID

from msgspec import Struct, field

from ..domain import canonical, proof
from ..domain.bucket import Transferred
from ..domain.charging import CORPORATE, UsageCharged, rated_again
from ..domain.events import Recorded
from ..domain.hold import NO_HOLD, Hold
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.offer import OfferAccepted
from ..domain.refusals import InvariantBroken, Refused
from ..domain.rerated import RatingEvent, UsageCorrected, UsageRerated, UsageTakenBack
from ..domain.reservation import Leg
from ..domain.session import SessionEvent, SessionExpired, SessionReleased
from ..domain.suspense import UsageRecycled, follows
from ..domain.tenant import Tenant
from ..domain.trading import TransferUndone
from ..domain.usage import MONEY
from ..domain.window import PERIOD
from ..projections.allocations import drawn_from_above
from ..projections.balances import balances_under
from ..projections.invoices import Invoice, invoice
from ..projections.plans import counters as plan_counters
from ..projections.sessions import held_now
from ..tenants.isolation import Connection, Isolation
from .checking_received import received_wrongly
from .following import catch_up, stands_at
from .keys import TIME_BYTES, recycled_keys, usage_keys
from .log import Head, PostgresLog, Row, follow, recorded
from .looking_back import dump_views, past, rebuild_and_compare
from .rerated_chain import Chain, Unchained

CHECK_WHOLE_EVERY = 10_000
"""Events between two sums over every bucket; each event's own buckets are checked at each event."""


class VerifyReport(Struct):
    """`ok`, or what broke first and at which seq (0 where no one event is to blame)."""

    tenant: str
    ok: bool = True
    seq: int = 0
    root: str = ""
    first_offending_seq: int | None = None
    problem: str = ""
    checks: dict[str, int] = field(default_factory=dict)
    """How many events, charges or rows each check has looked at."""


class Broken(Exception):
    """What does not hold, and where."""

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"seq {seq}: {problem}")
        self.seq = seq
        self.problem = problem


def verify(isolation: Isolation, tenant: UUID, *, projections: bool = True) -> VerifyReport:
    """Check a tenant's whole log, and its views if wanted. Reads only, but for views that lag."""
    report = VerifyReport(str(tenant))
    log = PostgresLog(isolation, tenant, role="auditor")
    try:
        # The head first: what is appended from now on is for the next verification.
        state = _check_log(log, log.head(), report)
        if projections:
            _check_views(isolation, tenant, report)
            _check_figures(isolation, tenant, state, report)
    except Broken as broken:
        report.ok = False
        report.first_offending_seq, report.problem = broken.seq, broken.problem
    return report


def dump(isolation: Isolation, tenant: UUID, as_of: int | None = None) -> Iterator[bytes]:
    """Canonical lines: the log's end and root, the state, and every view, as of a seq or now."""
    log = PostgresLog(isolation, tenant, role="auditor")
    end = log.head().seq
    if as_of is not None and not 0 <= as_of <= end:
        raise Refused("no_such_seq", seq=as_of, last=end)
    upto = end if as_of is None else as_of
    state, peaks = Tenant(), list[bytes]()
    for row in follow(log, upto=upto):
        proof.append(peaks, row.seq - 1, row.leaf_hash)
        state.apply(recorded(row).event)
    yield canonical.line(
        {"is": "log", "tenant": str(tenant), "seq": upto, "root": proof.root_of(peaks).hex()}
    )
    yield from canonical.lines(state)
    if as_of is None:
        catch_up(isolation, tenant, upto=upto)
        with isolation.snapshot(tenant, "auditor") as connection:
            if stands_at(connection, upto):
                yield from map(canonical.line, dump_views(connection))
                return
    # The past, or a present that has moved on while we folded.
    with past(isolation, tenant, upto) as connection:
        yield from map(canonical.line, dump_views(connection))


def _check_log(log: PostgresLog, head: Head, report: VerifyReport) -> Tenant:
    state, peaks, keys = Tenant(), list[bytes](), set[bytes]()
    counts = report.checks = {"events": 0, "charges": 0, "transfers": 0, "thresholds": 0}
    fired: set[tuple[object, ...]] = set()
    times_set: Counter[tuple[str, str, str]] = Counter()
    moved: dict[int, Transferred | OfferAccepted] = {}
    chain = Chain(log)
    recorded_at, held = 0, NO_HOLD
    recycled: UsageRecycled | None = None
    for row in follow(log, upto=head.seq):
        _check_row(log.tenant, row, report.seq, recorded_at)
        told = _decoded(row)
        _apply(state, told)
        if isinstance(told.event, UsageCharged):
            _check_charge(state, told, keys, held, recycled)
            counts["charges"] += 1
        elif isinstance(told.event, RatingEvent):
            _check_made_again(state, told, chain)
        elif isinstance(told.event, SessionEvent):
            _check_hold(state, told.seq, told.event)
            counts["sessions"] = counts.get("sessions", 0) + 1
        elif isinstance(told.event, Transferred | OfferAccepted):
            counts["transfers"] += told.topic == Transferred.topic
            moved[told.seq] = told.event
        elif isinstance(told.event, TransferUndone):
            _check_undone(told.seq, told.event, moved)
        elif isinstance(told.event, LimitSet):
            times_set[told.event.node, told.event.usage_type, told.event.window] += 1
        elif isinstance(told.event, ThresholdCrossed):
            _check_once(told, fired, times_set)
            counts["thresholds"] += 1
        # A charge may follow that a session had leave for.
        recycled = told.event if isinstance(told.event, UsageRecycled) else None
        held = told.event.before if isinstance(told.event, SessionReleased | SessionExpired) else NO_HOLD
        proof.append(peaks, row.seq - 1, row.leaf_hash)
        report.seq, recorded_at = row.seq, row.recorded_at
        counts["events"] += 1
    _check_end(state, peaks, head, report)
    return state


def _check_row(tenant: UUID, row: Row, seen: int, recorded_at: int) -> None:
    if row.seq != seen + 1:
        raise Broken(seen + 1, f"the log has a hole: after {seen} comes {row.seq}")
    leaf = proof.leaf_hash(
        tenant.bytes, row.seq, row.topic.encode(), row.recorded_at, row.command_key, row.state
    )
    if leaf != row.leaf_hash:
        raise Broken(row.seq, "the stored event does not have the hash it was stored with")
    if row.recorded_at < recorded_at:
        raise Broken(row.seq, "it was recorded before the event that precedes it")


def _decoded(row: Row) -> Recorded:
    try:
        return recorded(row)
    except (InvariantBroken, ValueError) as error:
        raise Broken(row.seq, f"it cannot be read: {error}") from error


def _apply(state: Tenant, told: Recorded) -> None:
    try:
        state.apply(told.event)
        if told.seq % CHECK_WHOLE_EVERY == 0:
            state.check_whole()
    except (InvariantBroken, KeyError, IndexError) as error:
        raise Broken(told.seq, f"{told.topic} does not follow from what precedes it: {error}") from error


def _check_charge(
    state: Tenant, told: Recorded, keys: set[bytes], held: Hold, recycled: UsageRecycled | None
) -> None:
    """Once per record, under the record's own key; and rating it again gives the same figures."""
    charge = told.event
    assert isinstance(charge, UsageCharged)
    named = charge.source, charge.record_id, charge.started_at
    under: tuple[bytes, ...] = usage_keys(*named)
    identity = under[0][TIME_BYTES:]
    if recycled is not None and follows(recycled, charge):
        under += recycled_keys(*named)
    if identity in keys or told.command_key not in under:
        raise Broken(
            told.seq, f"record {charge.source}/{charge.record_id} is charged twice, or under another key"
        )
    keys.add(identity)
    _check_rated(state, told.seq, charge)
    if charge.payer != CORPORATE:
        return
    if charge.billed > held.billed:
        _check_limits(state, told.seq, charge, charge.usage_type)
    if charge.amount > held.amount:
        _check_limits(state, told.seq, charge, MONEY)


def _check_rated(state: Tenant, seq: int, charge: UsageCharged) -> None:
    """Rating it again gives the same figures."""
    if not 1 <= charge.tariff <= len(state.tariffs.versions):
        raise Broken(seq, f"there is no tariff version {charge.tariff}")
    rates = state.tariffs.versions[charge.tariff - 1].rates
    if not 0 <= charge.rate < len(rates):
        raise Broken(seq, f"tariff version {charge.tariff} has no rate {charge.rate}")
    period = state.contracts.periods[charge.period]
    version = state.tariffs.versions[charge.tariff - 1]
    found = version.rate_of(charge.rate, charge.prefix, charge.basis)
    rate = state.contracts.rate_of(period, charge.usage_type, found)
    if not version.has_prefix(charge.rate, charge.prefix) or charge.zone != rate.zone:
        raise Broken(seq, f"prefix and zone are not those of rate {charge.rate}")
    rated = rated_again(rate, charge)
    again = (rate.billed(charge.quantity), rated.amount, rated.exact)
    if again != (charge.billed, charge.amount, charge.exact):
        raise Broken(seq, f"rated again it is {again}, not {(charge.billed, charge.amount, charge.exact)}")
    if charge.payable < 0:
        raise Broken(seq, f"credit of {charge.amount - charge.payable} pays more than {charge.amount}")


def _check_made_again(state: Tenant, told: Recorded, chain: Chain) -> None:
    """Charges made again are those that were taken back, each once, and rated right."""
    event = told.event
    try:
        match event:
            case UsageTakenBack():
                chain.check_taken_back(event)
            case UsageRerated() | UsageCorrected():
                chain.check_made_again(event, told.command_key)
                _check_rated(state, told.seq, event.charge)
    except Unchained as error:
        raise Broken(told.seq, str(error)) from error


def _check_hold(state: Tenant, seq: int, told: SessionEvent) -> None:
    """What is held anew is within every limit on its path, as what is charged."""
    if told.held.billed > told.before.billed:
        _check_limits(state, seq, told, told.usage_type)
    if told.held.amount > told.before.amount:
        _check_limits(state, seq, told, MONEY)


def _check_limits(state: Tenant, seq: int, charge: UsageCharged | SessionEvent, counted: str) -> None:
    """Hard limits hold in every window, as raised for when it happened."""
    limits, family, at = state.limits, state.families[counted, charge.period], charge.started_at
    for ordinal in charge.path:
        for window in (PERIOD, *limits.windows.get(counted, {}).get(ordinal, ())):
            limit = limits.of(ordinal, counted, charge.period, at, window)
            used = limits.used(family, ordinal, window, at)
            if limit is not None and limit.kind == "hard" and used > limit.quantity:
                told = f"{used} of {limit.quantity} {counted} per {window}"
                raise Broken(seq, f"{limit.node} passed its limit: {told}")


def _check_undone(seq: int, undone: TransferUndone, moved: Mapping[int, Transferred | OfferAccepted]) -> None:
    """What goes back is what the log says has moved."""
    event = moved.get(undone.seq)
    legs: tuple[Leg, ...] = ()
    if isinstance(event, OfferAccepted):
        legs = event.legs
    elif event is not None:
        legs = (Leg(event.source, event.target, event.usage_type, event.period, event.quantity),)
    if legs != undone.legs:
        raise Broken(seq, f"what is undone is not what event {undone.seq} has moved")


def _check_once(
    told: Recorded, fired: set[tuple[object, ...]], times_set: Mapping[tuple[str, str, str], int]
) -> None:
    """A threshold fires once per crossing and window, for each time its limit was set."""
    crossing = told.event
    assert isinstance(crossing, ThresholdCrossed)
    times = times_set.get((crossing.node, crossing.usage_type, crossing.window), 0)
    if not times:
        raise Broken(told.seq, f"{crossing.node} has no limit that a threshold could be of")
    threshold = (crossing.percent, crossing.at, crossing.policy, crossing.version)
    about = (crossing.node, crossing.usage_type, crossing.window, crossing.of or crossing.period, *threshold)
    # The same percentage is another threshold while the limit is raised.
    if (*about, crossing.limit, times) in fired:
        raise Broken(told.seq, f"the {crossing.percent} % threshold of {crossing.node} fired twice")
    fired.add((*about, crossing.limit, times))


def _check_end(state: Tenant, peaks: list[bytes], head: Head, report: VerifyReport) -> None:
    if report.seq != head.seq:
        raise Broken(report.seq + 1, f"the head says {head.seq} events, {report.seq} are stored")
    if peaks != head.peaks:
        raise Broken(head.seq, "the log's hashes do not lead to the root in its head")
    try:
        state.check_whole()
        state.rerating.check_settled()
    except InvariantBroken as error:
        raise Broken(head.seq, str(error)) from error
    report.root = proof.root_of(peaks).hex()


def _check_views(isolation: Isolation, tenant: UUID, report: VerifyReport) -> None:
    catch_up(isolation, tenant)
    differences = rebuild_and_compare(isolation, tenant)
    if differences:
        raise Broken(0, f"a projection differs from its rebuild: {differences[0]}")
    report.checks["projections"] = report.seq


def _check_figures(isolation: Isolation, tenant: UUID, state: Tenant, report: VerifyReport) -> None:
    """The views tell what the rules count: another way to the same figures, so not the same mistake."""
    with isolation.snapshot(tenant, "auditor") as db:
        if not stands_at(db, report.seq):
            return
        _check_sessions(db, state)
        if (problem := received_wrongly(db, state, report.checks["charges"])) is not None:
            raise Broken(0, problem)
        for period in state.contracts.periods:
            _check_invoice(invoice(db, period), state, period)
            _check_plans(db, state, period)
            _check_buckets(db, state, period)
            _check_drawn(db, state, period)
            report.checks["periods"] = report.checks.get("periods", 0) + 1


def _check_invoice(found: Invoice, state: Tenant, period: str) -> None:
    lines = [line for node in found.nodes for line in node.lines]
    charged = _used(state, MONEY, period) - state.sessions.held_amount(period)
    if found.usage != charged or found.total != found.usage + found.fees + found.plans:
        raise Broken(0, f"the invoice of {period} is not the sum of its lines, or not of its charges")
    if found.corrected != state.rerating.corrected.get(period, 0):
        raise Broken(0, f"the invoice of {period} is owed {found.corrected} for periods that are closed")
    once = [fee.amount for node in found.nodes for fee in node.fees if fee.kind != "recurring"]
    if sum(once) != state.fees.total(period):
        raise Broken(0, f"the invoice of {period} has one-off fees of {sum(once)}")
    paid = state.families[MONEY, period].consumed_total
    if found.credit != paid:
        raise Broken(0, f"the invoice of {period} has a credit of {found.credit}, money buckets paid {paid}")
    for usage_type in state.types:
        billed = sum(line.billed for line in lines if line.usage_type == usage_type)
        if billed != _used(state, usage_type, period) - state.sessions.held_units(usage_type, period):
            raise Broken(0, f"the invoice of {period} bills {billed} of {usage_type}")


def _check_plans(db: Connection, state: Tenant, period: str) -> None:
    """What plans have counted is what charges say that they added."""
    counted = {
        (plan, ordinal): counter
        for (plan, of), counters in state.plans.counters.items()
        if of == period
        for ordinal, counter in counters.items()
    }
    told = {(one.plan, one.ordinal): (one.units, one.spent) for one in plan_counters(db, period)}
    if told != counted:
        raise Broken(0, f"plans have counted {told} in {period}, the log {counted}")


def _check_buckets(db: Connection, state: Tenant, period: str) -> None:
    for held in balances_under(db, None, None, period, state.types.known(), resources=True):
        family, ordinal = state.families[held.usage_type, period], held.ordinal
        told = (held.bucket.remaining, held.bucket.reserved, held.bucket.consumed, held.used)
        counted = (
            *(family.remaining[ordinal], family.reserved[ordinal]),
            *(family.consumed[ordinal], family.used[ordinal]),
        )
        if told != counted:
            raise Broken(0, f"the balance of {held.id} in {period} tells {told}, the log {counted}")


def _check_drawn(db: Connection, state: Tenant, period: str) -> None:
    counted = {
        (usage_type, ordinal): drawn
        for (usage_type, of), family in state.families.items()
        if of == period and family.caps is not None
        for ordinal, drawn in family.caps.drawn.items()
        if drawn
    }
    if (told := drawn_from_above(db, period)) != counted:
        raise Broken(0, f"what was drawn past caps in {period} is told as {told}, the log {counted}")


def _check_sessions(db: Connection, state: Tenant) -> None:
    holds = [session.hold for session in state.sessions.open.values()]
    counted = len(holds), sum(hold.billed for hold in holds), sum(hold.amount for hold in holds)
    if (told := held_now(db)) != counted:
        raise Broken(0, f"the sessions that run tell {told}, the log {counted}")


def _used(state: Tenant, usage_type: str, period: str) -> int:
    used = state.families[usage_type, period].used
    return used[0] if used else 0
