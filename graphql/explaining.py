"""Explain: how one record came to its charge, or why there is none, read straight from the log.

The charge is computed again from what the log holds, by the code that charged it. Were the two
ever to differ, that would be an error of ours, and it is not explained away.
"""

import functools
from enum import Enum
from fractions import Fraction

import strawberry
from strawberry import ID

from ..domain import policy
from ..domain.charging import UsageCharged, UsageRejected, UsageSuspended, rated_again
from ..domain.events import Recorded
from ..domain.hierarchy import Path
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.rating.basis import NO_BASIS
from ..domain.rating.working import Component
from ..domain.refusals import InvariantBroken
from ..domain.rerated import UsageCorrected, UsageRerated
from ..domain.tariff import MICRO, CompiledRate, Rate, TariffPublished
from ..domain.tenant import Tenant
from ..domain.usage import MONEY, unpack_personal
from ..domain.window import PERIOD
from ..domain.worked import working_of
from ..projections import timeline, usages
from ..tenants.access import may
from .asking import Reach, permit, usage_id_of
from .context import Context, Info
from .explaining_suspense import Attribute, LeftSuspense, Waited, attributes_of, left_suspense, waited_before
from .limit_problems import Raiser
from .limits import raisers
from .own_rates import OwnRate, own_rate_of
from .policies import PolicyAction
from .scalars import Moment, Money, Quantity, Seq
from .telling import Teller
from .usage import Place, UsageStatus

EXACT_DECIMALS = 12
LIMIT_PAGE = 100
LIMIT_PAGES_MAX = 50
"""How far back a limit is looked for among a member's events."""

Outcome = UsageCharged | UsageRejected | UsageSuspended


@strawberry.enum
class Personal(Enum):
    """What you may know of the line and the other party."""

    CLEAR = "clear"
    MASKED = strawberry.enum_value("masked", description="Your role does not include personal data.")
    ERASED = strawberry.enum_value("erased", description="The person's key was deleted; nobody can read it.")
    SEALED = strawberry.enum_value("sealed", description="Belongs to no known resource, and stays sealed.")


@strawberry.type(description="Which rule chose the payer.")
class Steering:
    rule: str
    payer: str


@strawberry.type(description="What overage costs under the contract, in place of the tariff's price.")
class ContractPrice:
    contract: str
    version: int
    price: str = strawberry.field(description="Of `per` units, in the tenant's currency.")
    per: Quantity


@strawberry.type(description="A price plan that counts over the period, and where it stood.")
class PlanApplied:
    plan: str
    kind: str = strawberry.field(description="graduated, volume, package or spend.")
    counted_at: Place | None = strawberry.field(description="Who counts; null beyond your reach.")
    before: Quantity = strawberry.field(description="Units that the period had counted before.")
    charged_before: Money = strawberry.field(description="What they were charged.")
    units: Quantity = strawberry.field(description="Of this record: what no allowance or policy took.")
    charged: Money = strawberry.field(description="What these units were charged.")


@strawberry.type(description="A part of what a usage costs, with its own exact amount.")
class RatingComponent:
    kind: str = strawberry.field(
        description="`usage`, `connect_fee`, `percentage`, `minimum_charge`, `maximum_charge`: less than 0; "
        "`policy_price`, `plan`."
    )
    part: str = strawberry.field(
        description='Of a plan: "tier 2", "entry of tier 2", "free", "block", or "cap": less than 0.'
    )
    begins: Quantity = strawberry.field(description="Of the billed units the first one, counted from 0.")
    ends: Quantity = strawberry.field(description="The first unit after it.")
    band: int = strawberry.field(description="Which band of the rate, counted from 0.")
    window: str = strawberry.field(description='Which window of the tariff; "" is at any other time.')
    price: str = strawberry.field(description="Of `per` units; of a percentage: per cent.")
    per: Quantity
    increment: Quantity
    blocks: Quantity = strawberry.field(description="How many increments, the last one begun.")
    exact_fraction: str = strawberry.field(description="In micro-units: 1250000/3.")
    exact_amount: str = strawberry.field(description="The same in the currency, cut after 12 decimals.")
    tariff_version: int | None = strawberry.field(
        description="Whose price it is, where a session went on into another version than it began in."
    )
    since: Moment | None = strawberry.field(
        description="Of a session that went on at other prices: since when this one held for it."
    )


@strawberry.type(description="The rate that was applied, and the arithmetic.")
class Rating:
    tariff: str
    tariff_version: int
    valid_from: Moment
    rate_index: int = strawberry.field(description="Which of the version's rates, counted from 0.")
    prefix: str = strawberry.field(description="What the other party's number begins with; the longest wins.")
    zone: str
    price: str = strawberry.field(description="Of `per` units, in `currency`.")
    per: Quantity
    connect_fee: str
    currency: str
    increment: Quantity
    minimum: Quantity
    included: bool = strawberry.field(description="Whether the allowance covers it.")
    billed: Quantity = strawberry.field(description="The quantity rounded up to the increment.")
    overage: Quantity = strawberry.field(description="billed less what the buckets paid: this costs money.")
    exact_fraction: str = strawberry.field(
        description="The amount before rounding, in micro-units: 1250000/3."
    )
    exact_amount: str = strawberry.field(description="The same in `currency`, cut after 12 decimals.")
    rounding_method: str
    rounding_decimals: int
    amount: Money = strawberry.field(description="Rounded once.")
    contract_price: ContractPrice | None = strawberry.field(
        description="Applied to the overage in place of `price`."
    )
    plan: PlanApplied | None = strawberry.field(description="That it was rated under, if any.")
    origin: str = strawberry.field(
        description='The zone of the serving network or of the line, where the tariff asks for it; else "".'
    )
    window: str = strawberry.field(description='The window it began in; "" is at any other time.')
    times: Quantity = strawberry.field(description="Segments or participants that multiply what is billed.")
    components: list[RatingComponent] = strawberry.field(
        description="They add up to `exactFraction`; none where a call for help costs nothing."
    )
    own_rate: OwnRate | None = strawberry.field(
        description="Of a customer's own rate or discount: what it is in place of."
    )


@strawberry.type(description="What one bucket paid.")
class Drawn:
    node: Place | None = strawberry.field(description="Null where it is beyond your reach.")
    quantity: Quantity


@strawberry.type(description="A limit that was looked at.")
class LimitChecked:
    node: Place
    usage_type: str
    quantity: Quantity
    set_by: Seq = strawberry.field(description="The event that had set it.")


@strawberry.type(description="A threshold that this record crossed.")
class Crossing:
    node: Place | None = strawberry.field(description="Null where it is beyond your reach.")
    usage_type: str
    percent: int
    used: Quantity
    limit: Quantity
    seq: Seq


@strawberry.type(description="What a policy ruled of the record.")
class Ruling:
    policy: str
    version: int
    action: PolicyAction
    limit_of: Place | None = strawberry.field(description="Whose limit it was; null beyond your reach.")
    counted: str
    window: str
    percent: int | None
    threshold: Quantity = strawberry.field(description="What was passed.")
    kbps: int | None
    above: Quantity = strawberry.field(description="Billed units at the price of the policy.")
    price: str | None
    per: Quantity


@strawberry.type(description="What stopped the record.")
class Stop:
    reason: str = strawberry.field(
        description="`limit_exceeded`, `cap_reached`, `frozen`, `suspended`, `insufficient_allowance`, "
        "`blocked_by_policy` or `approval_required`."
    )
    window: str = strawberry.field(description="What the limit counts in: period, day, week, last_7_days.")
    node: Place | None = strawberry.field(description="Whose limit or bucket; null beyond your reach.")
    counted: str = strawberry.field(description="What the limit counts: a usage type, or money.")
    used: Quantity
    limit: Quantity
    billed: Quantity = strawberry.field(description="What the record would have added, before money.")
    may_raise: list[Place] = strawberry.field(
        description="Managers of these nodes may raise it, nearest first."
    )
    raisers: list[Raiser] = strawberry.field(
        description="By the limit's own rule; empty: whoever may set limits there."
    )


@strawberry.type(description="Why the record waits.")
class Suspension:
    reason: str
    field: str
    detail: str = strawberry.field(description="What is wrong, and what to do about it.")
    position: str = strawberry.field(description="Where it stood: calls.csv:12.")


@strawberry.type(description="How the record was charged again, in place of what it was charged before.")
class ExplainedRerating:
    seq: Seq
    job: ID
    cause: str
    was_amount: Money
    amount: Money
    payable: Money
    rating: Rating
    drawn: list[Drawn] = strawberry.field(description="What each bucket pays now.")
    credit: list[Drawn]
    path: list[Place]
    by_zone: bool = strawberry.field(
        description="Nobody could read the number any more: the stored prefix chose the rate."
    )
    corrected_in: str | None = strawberry.field(
        description="The period in which the difference is owed, where the record's own is closed."
    )
    recorded_at: Moment


@strawberry.type(description="How one record came to its charge, or why there is none.")
class Explanation:
    usage_id: ID
    status: UsageStatus
    sentence: str
    source: str
    record_id: str
    usage_type: str | None
    unit: str | None
    direction: str | None
    started_at: Moment | None
    period: str | None
    quantity: Quantity
    personal: Personal
    line: str | None
    counterpart: str | None
    path: list[Place] = strawberry.field(
        description="From the resource up, as it was then, within your reach."
    )
    steering: Steering | None
    rating: Rating | None
    drawn: list[Drawn] = strawberry.field(description="What each bucket paid, in the order of consumption.")
    credit: list[Drawn] = strawberry.field(description="What each money bucket paid of `amount`.")
    amount: Money
    payable: Money = strawberry.field(description="amount less what money buckets paid.")
    currency: str
    limits: list[LimitChecked] = strawberry.field(description="Those in force on the path then.")
    crossings: list[Crossing]
    stop: Stop | None
    ruling: Ruling | None = strawberry.field(description="Which policy decided, where one did.")
    suspension: Suspension | None
    event_seqs: list[Seq]
    recorded_at: Moment
    actor: str
    reratings: list[ExplainedRerating] = strawberry.field(
        description="How it was charged again, oldest first: the last holds. All else is of the first charge."
    )
    attributes: list[Attribute] = strawberry.field(
        description="What a record said besides, where it was suspended or rejected."
    )
    waited: Waited | None = strawberry.field(
        description="Of what waits, or left suspense by a charge or rejection: why, and what was amended."
    )
    left: LeftSuspense | None = strawberry.field(
        description="Of what waited: what became of it. Null while it waits."
    )


async def explain(info: Info, usage_id: ID) -> Explanation | None:
    """How a record came to its charge; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    key = usage_id_of(usage_id)
    answer = await context.answer_to(key) if key is not None else []
    if not answer or not isinstance(answer[0].event, Outcome):
        return None
    state = await context.state()
    reach = Reach(context.principal, state)
    if not _seen(answer[0].event, reach):
        return None
    return await _Explaining(context, state, reach, usage_id, answer).explanation()


def _seen(event: Outcome, reach: Reach) -> bool:
    return reach.whole if isinstance(event, UsageSuspended) else reach.sees_path(event.path)


class _Explaining:
    """One record, for one reader."""

    def __init__(
        self, context: Context, state: Tenant, reach: Reach, usage_id: ID, answer: list[Recorded]
    ) -> None:
        self.context = context
        self.state = state
        self.reach = reach
        self.usage_id = usage_id
        self.answer = answer
        self.recorded = answer[0]
        event = answer[0].event
        assert isinstance(event, Outcome)
        self.event: Outcome = event

    async def explanation(self) -> Explanation:
        event = self.event
        path: Path = () if isinstance(event, UsageSuspended) else event.path
        personal, line, counterpart = await self._personal(path)
        return Explanation(
            usage_id=self.usage_id,
            status=UsageStatus(event.topic.removeprefix("usage.")),
            sentence=Teller(self.state, self.reach).sentence(event),
            source=event.source,
            record_id=event.record_id,
            usage_type=event.usage_type or None,
            unit=self.reach.units.get(event.usage_type),
            direction=event.direction or None,
            started_at=Moment(event.started_at) if event.started_at else None,
            period=None if isinstance(event, UsageSuspended) else event.period,
            quantity=Quantity(event.quantity),
            personal=personal,
            line=line,
            counterpart=counterpart,
            path=[place for ordinal in path if (place := self._place(ordinal)) is not None],
            steering=Steering(rule=event.steering, payer=event.payer)
            if isinstance(event, UsageCharged)
            else None,
            rating=self._rating(event) if isinstance(event, UsageCharged) else None,
            drawn=self._paid(event.drawn) if isinstance(event, UsageCharged) else [],
            credit=self._paid(event.credit) if isinstance(event, UsageCharged) else [],
            amount=Money(event.amount if isinstance(event, UsageCharged) else 0),
            payable=Money(event.payable if isinstance(event, UsageCharged) else 0),
            currency=self.state.opened.currency if self.state.opened else "",
            limits=await self._limits(path),
            crossings=self._crossings(),
            stop=self._stop(event) if isinstance(event, UsageRejected) else None,
            ruling=None if isinstance(event, UsageSuspended) else self._ruling(event.ruling),
            suspension=_suspension(event) if isinstance(event, UsageSuspended) else None,
            event_seqs=[Seq(told.seq) for told in self.answer],
            recorded_at=Moment(self.recorded.recorded_at),
            actor=self.recorded.actor,
            reratings=await self._reratings(),
            attributes=[] if isinstance(event, UsageCharged) else attributes_of(event.attributes),
            waited=await waited_before(self.context, self.reach, self.recorded),
            left=await left_suspense(self.context, self.recorded),
        )

    async def _reratings(self) -> list[ExplainedRerating]:
        if not isinstance(self.event, UsageCharged):
            return []
        query = functools.partial(usages.remade, firsts=[self.recorded.seq])
        _, remade = await self.context.read(query, ("usages",))
        told = await self.context.events([one.seq for one in remade.get(self.recorded.seq, ())])
        return [self._rerating(one) for one in told]

    def _rerating(self, told: Recorded) -> ExplainedRerating:
        made = told.event
        assert isinstance(made, UsageRerated | UsageCorrected)
        charge = made.charge
        return ExplainedRerating(
            seq=Seq(told.seq),
            job=ID(made.job),
            cause=made.cause,
            was_amount=Money(made.was.amount),
            amount=Money(charge.amount),
            payable=Money(charge.payable),
            rating=self._rating(charge),
            drawn=self._paid(charge.drawn),
            credit=self._paid(charge.credit),
            path=[place for ordinal in charge.path if (place := self._place(ordinal)) is not None],
            by_zone=made.by_zone,
            corrected_in=made.period if isinstance(made, UsageCorrected) else None,
            recorded_at=Moment(told.recorded_at),
        )

    def _place(self, ordinal: int) -> Place | None:
        # A resource that has left is still named: the reader sees the usage it made here.
        member = self.state.hierarchy.members[ordinal]
        used_it = not isinstance(self.event, UsageSuspended) and ordinal == self.event.path[0]
        if not used_it and not self.reach.sees(ordinal):
            return None
        return Place(id=ID(member.id), name=member.name or member.id, kind=member.kind)

    async def _personal(self, path: Path) -> tuple[Personal, str | None, str | None]:
        if not may(self.context.principal, "read_personal"):
            return Personal.MASKED, None, None
        if isinstance(self.event, UsageSuspended):
            if not self.event.readable:
                return Personal.SEALED, None, None
            subjects = [self.event.subject]
        else:
            subjects = self.state.hierarchy.tokens_of(self.state.hierarchy.members[path[0]])
        key = self.recorded.command_key
        assert key is not None
        opened = await self.context.opened(subjects, self.event.sealed, key)
        if opened is None:
            return Personal.ERASED, None, None
        line, counterpart = unpack_personal(opened)
        return Personal.CLEAR, line, counterpart or None

    def _rating(self, event: UsageCharged) -> Rating:
        published = self.state.tariffs.versions[event.tariff - 1].published
        rate = published.rates[event.rate]
        basis = event.basis or NO_BASIS
        compiled = self._rate_again(event, published)
        return Rating(
            tariff=published.tariff,
            tariff_version=published.version,
            valid_from=Moment(published.valid_from),
            rate_index=event.rate,
            prefix=event.prefix,
            zone=event.zone,
            price=rate.price,
            per=Quantity(rate.per),
            connect_fee=rate.connect_fee,
            currency=published.currency,
            increment=Quantity(rate.increment),
            minimum=Quantity(rate.minimum),
            included=rate.included,
            billed=Quantity(event.billed),
            overage=Quantity(event.overage),
            exact_fraction=f"{event.exact[0]}/{event.exact[1]}",
            exact_amount=exact_text(Fraction(*event.exact) / MICRO),
            rounding_method=published.method,
            rounding_decimals=published.decimals,
            amount=Money(event.amount),
            contract_price=self._contract_price(event, rate),
            plan=self._plan(event),
            origin=basis.origin,
            window=basis.window,
            times=Quantity(basis.times),
            components=[_component(one) for one in working_of(compiled, event)],
            own_rate=own_rate_of(self.state.tariffs, event.tariff, event.rate),
        )

    def _plan(self, event: UsageCharged) -> PlanApplied | None:
        counted = event.basis.counted if event.basis is not None else None
        if counted is None:
            return None
        return PlanApplied(
            plan=counted.plan,
            kind=self.state.tariffs.versions[event.tariff - 1].plans[counted.plan].plan.kind,
            counted_at=self._place(counted.of),
            before=Quantity(counted.before),
            charged_before=Money(counted.spent_before),
            units=Quantity(counted.units),
            charged=Money(counted.spent),
        )

    def _contract_price(self, event: UsageCharged, rate: Rate) -> ContractPrice | None:
        period = self.state.contracts.periods[event.period]
        prices = self.state.contracts.terms_of(period).overage_prices
        for one in prices if rate.included else ():
            if one.usage_type == event.usage_type:
                per = Quantity(one.per)
                return ContractPrice(
                    contract=period.contract, version=period.version, price=one.price, per=per
                )
        return None

    def _rate_again(self, event: UsageCharged, published: TariffPublished) -> CompiledRate:
        tariffs = self.state.tariffs.versions[event.tariff - 1].rate_of(event.rate, event.prefix, event.basis)
        period = self.state.contracts.periods[event.period]
        compiled = self.state.contracts.rate_of(period, event.usage_type, tariffs)
        billed = compiled.billed(event.quantity)
        rated = rated_again(compiled, event)
        stored = (
            event.tariff,
            event.prefix,
            event.billed,
            billed - sum(part for _, part in event.drawn),
            event.amount,
            Fraction(*event.exact),
        )
        again = (
            published.version,
            compiled.prefix,
            billed,
            rated.overage,
            rated.amount,
            Fraction(*rated.exact),
        )
        if stored != again:
            raise InvariantBroken("a charge rated again is the same", seq=self.recorded.seq)
        return compiled

    def _paid(self, parts: tuple[tuple[int, int], ...]) -> list[Drawn]:
        return [Drawn(node=self._place(ordinal), quantity=Quantity(part)) for ordinal, part in parts]

    def _crossings(self) -> list[Crossing]:
        by_id = self.state.hierarchy.by_id
        return [
            Crossing(
                node=self._place(by_id[told.event.node].ordinal),
                usage_type=told.event.usage_type,
                percent=told.event.percent,
                used=Quantity(told.event.used),
                limit=Quantity(told.event.limit),
                seq=Seq(told.seq),
            )
            for told in self.answer
            if isinstance(told.event, ThresholdCrossed)
        ]

    def _stop(self, event: UsageRejected) -> Stop:
        above = self.state.hierarchy.members[event.stopped_by].path
        return Stop(
            reason=event.reason,
            window=event.window,
            raisers=self._raisers(event),
            node=self._place(event.stopped_by),
            counted=event.counted,
            used=Quantity(event.used),
            limit=Quantity(event.limit),
            billed=Quantity(event.billed),
            may_raise=[
                place
                for ordinal in above
                if self.state.hierarchy.members[ordinal].is_node
                and (place := self._place(ordinal)) is not None
            ],
        )

    def _raisers(self, event: UsageRejected) -> list[Raiser]:
        """By the rule of the limit as it is now: it is now that somebody would raise it."""
        limits, period = self.state.limits, event.period
        limit = limits.of(event.stopped_by, event.counted, period, None, event.window)
        if limit is None or not self.reach.sees(event.stopped_by):
            return []
        return raisers(limit.may_raise, limit.quantity)

    def _ruling(self, ruling: policy.Ruling | None) -> Ruling | None:
        if ruling is None:
            return None
        return Ruling(
            policy=ruling.policy,
            version=ruling.version,
            action=PolicyAction(ruling.action),
            limit_of=self._place(ruling.limit_of),
            counted=ruling.counted,
            window=ruling.window,
            percent=ruling.percent or None,
            threshold=Quantity(ruling.at),
            kbps=ruling.kbps or None,
            above=Quantity(ruling.above),
            price=ruling.price or None,
            per=Quantity(ruling.per),
        )

    async def _limits(self, path: Path) -> list[LimitChecked]:
        """The limits that were in force on the path when the record was decided."""
        checked = []
        for ordinal in path:
            for usage_type in (self.event.usage_type, MONEY):
                # Most members never had a limit: only the others' history is read.
                if ordinal in self.state.limits.by_type.get(usage_type, {}) and self.reach.sees(ordinal):
                    checked += await self._limit_then(ordinal, usage_type)
        return checked

    async def _limit_then(self, ordinal: int, usage_type: str) -> list[LimitChecked]:
        """The one set before that holds from the latest period on, as `domain.limit` has it."""
        place, before = self._place(ordinal), self.recorded.seq
        assert place is not None
        held: list[Recorded] = []
        for _ in range(LIMIT_PAGES_MAX):
            query = functools.partial(
                timeline.member_page, ident=str(place.id), first=LIMIT_PAGE, before=before, usage=False
            )
            _, seqs = await self.context.read(query, ("timeline",))
            told = await self.context.events(seqs)
            held += [one for one in told if self._held(one, usage_type, str(place.id))]
            if len(seqs) < LIMIT_PAGE:
                break
            before = seqs[-1]
        last = max(held, key=_holds_from, default=None)
        return [] if last is None else _checked(place, last)

    def _held(self, told: Recorded, usage_type: str, node: str) -> bool:
        limit = told.event
        return (
            isinstance(limit, LimitSet)
            and limit.node == node
            and limit.usage_type == usage_type
            and not isinstance(self.event, UsageSuspended)
            and limit.from_period <= self.event.period
            and limit.window == PERIOD
        )


def _holds_from(told: Recorded) -> tuple[str, int]:
    assert isinstance(told.event, LimitSet)
    return told.event.from_period, told.seq


def exact_text(exact: Fraction) -> str:
    """An exact amount as a decimal number, cut after 12 decimals."""
    size = abs(exact)
    whole, rest = divmod(size.numerator * 10**EXACT_DECIMALS // size.denominator, 10**EXACT_DECIMALS)
    return f"{'-' if exact < 0 else ''}{whole}.{rest:0{EXACT_DECIMALS}d}"


def _component(one: Component) -> RatingComponent:
    return RatingComponent(
        kind=one.kind,
        part=one.part,
        begins=Quantity(one.begins),
        ends=Quantity(one.ends),
        band=one.band,
        window=one.window,
        price=one.price,
        per=Quantity(one.per),
        increment=Quantity(one.increment),
        blocks=Quantity(one.blocks),
        exact_fraction=f"{one.exact.numerator}/{one.exact.denominator}",
        exact_amount=exact_text(one.exact / MICRO),
        tariff_version=one.tariff or None,
        since=Moment(one.since) if one.since else None,
    )


def _checked(place: Place, told: Recorded) -> list[LimitChecked]:
    assert isinstance(told.event, LimitSet)
    if told.event.quantity is None:
        return []
    return [
        LimitChecked(
            node=place,
            usage_type=told.event.usage_type,
            quantity=Quantity(told.event.quantity),
            set_by=Seq(told.seq),
        )
    ]


def _suspension(event: UsageSuspended) -> Suspension:
    return Suspension(reason=event.reason, field=event.field, detail=event.detail, position=event.position)
