"""Contracts: what was agreed, and what the carrier's staff may change of it."""

from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.calendar import MONTHLY, Calendar
from ..domain.contract import EndContract, RenewContract, SignContract
from ..domain.granting import ChangeGrants, GrantChanged, ToppedUp, TopUp
from ..domain.terms import USUAL, Grant, OveragePrice, RollOverRule, Terms
from ..domain.usage import USAGE_TYPES
from ..domain.usage_type import DefineUsageType
from ..projections import contracts as views
from .asking import AsOf, looking, permit
from .changing import DryRun, change, changed, seqs_of
from .context import Answer, Context, Info
from .hierarchy import Member
from .problems import (
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    NotPermitted,
    OfAllocation,
    ProblemType,
    TryAgain,
    UnknownNode,
)
from .scalars import Money, Quantity, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD

VIEWS = ("contracts",)

# --- what is read ----------------------------------------------------------------------------


@strawberry.enum(
    description="How a contract cuts time into periods, at midnights of the tenant's clock: the calendar "
    "month; from a day of the month, in one that is too short its last; from a day of the week, 1 (Monday) "
    "to 7; so many days, counted from a date; from each date of a list, the last of which ends it."
)
class CalendarKind(Enum):
    MONTH = "month"
    BILLING_DAY = "billing_day"
    WEEKLY = "weekly"
    DAYS = "days"
    DATES = "dates"


@strawberry.type
class ContractCalendar:
    kind: CalendarKind
    number: int = strawberry.field(description="The day, or how many days; 0 where there is none.")
    starts: list[str] = strawberry.field(description="The dates given.")


@strawberry.type(description="What goes on into the next period of a grant's rest; the remainder expires.")
class RollOver:
    cycles: int = strawberry.field(description="A unit rolled over so often expires at the period's end.")
    quantity: Quantity | None = strawberry.field(description="At most so much, of all buckets together.")
    percent: int | None = strawberry.field(description="At most so much of the grant.")


@strawberry.type(description="What is granted in each period.")
class ContractGrant:
    usage_type: str
    quantity: Quantity = strawberry.field(description="In the type's unit; money in micro-units.")
    rollover: RollOver | None


@strawberry.type(description="What overage of a type costs, whatever the tariff says of it.")
class ContractOveragePrice:
    usage_type: str
    price: str = strawberry.field(description="Of `per` units, in the tenant's currency.")
    per: Quantity


@strawberry.type(description="What is agreed besides the grants.")
class ContractTerms:
    calendar: ContractCalendar
    prorate: bool = strawberry.field(description="A period that is cut short gets its share, rounded down.")
    renews_months: int = strawberry.field(description="So many months longer at each end, by itself.")
    rolls_to_enterprise: bool = strawberry.field(description="Not to the bucket of who had it.")
    settle_after_hours: int = strawberry.field(description="So long a period's rest waits for late usage.")
    commitment: Money = strawberry.field(description="Spend agreed per period.")
    overage_prices: list[ContractOveragePrice]
    over_commitment_percent: int = strawberry.field(
        description="Caps below a bucket may add up to so much more than it has."
    )
    expires: bool = strawberry.field(
        description="What is left at a period's end expires, told bucket by bucket, if it does not roll over."
    )


@strawberry.type(description="A version of a contract; it holds from the next period opened.")
class ContractVersion:
    version: int
    starts_on: str
    overage: bool = strawberry.field(description="Whether usage beyond the allowance is charged or denied.")
    grants: list[ContractGrant]
    terms: ContractTerms
    note: str
    seq: Seq = strawberry.field(description="The event that signed it.")


@strawberry.type(description="What the enterprise bought.")
class Contract:
    id: ID
    starts_on: str = strawberry.field(description="The first day of its first version.")
    ends_on: str | None = strawberry.field(description="The last day it covers; null: until further notice.")
    ended: bool = strawberry.field(description="Somebody has ended it: it does not renew itself.")
    version: int = strawberry.field(description="The newest.")
    versions: list[ContractVersion] = strawberry.field(description="In the order they were signed.")


@strawberry.type(description="What the tenant counts.")
class UsageType:
    name: str
    unit: str
    built_in: bool = strawberry.field(description="Else the carrier has defined it.")


async def contracts(info: Info, as_of: AsOf | None = None) -> list[Contract]:
    """In the order they were first signed."""
    return await _contracts(info.context, None, as_of)


async def contract(info: Info, id: ID, as_of: AsOf | None = None) -> Contract | None:
    """Null when there is none of this name."""
    found = await _contracts(info.context, str(id), as_of)
    return found[0] if found else None


async def usage_types(info: Info) -> list[UsageType]:
    """Those built in, then those the carrier has defined."""
    permit(info.context, "read")
    units = (await info.context.state()).types.units
    return [UsageType(name=name, unit=unit, built_in=name in USAGE_TYPES) for name, unit in units.items()]


async def _contracts(
    context: Context, ident: str | None, as_of: AsOf | None, at_least: int = 0
) -> list[Contract]:
    permit(context, "read")
    from_where = await looking(context, as_of)
    _, found = await context.read(
        lambda db: views.contracts(db, ident), VIEWS, as_of=from_where.seq, at_least=at_least
    )
    return [_contract(one) for one in found]


def _contract(found: views.Contract) -> Contract:
    return Contract(
        id=ID(found.id),
        starts_on=min(version.starts_on for version in found.versions),
        ends_on=found.ends_on or None,
        ended=found.ended,
        version=found.versions[-1].version,
        versions=[_version(version) for version in found.versions],
    )


def _version(found: views.Version) -> ContractVersion:
    rules = {rule.usage_type: rule for rule in found.terms.rollover}
    return ContractVersion(
        version=found.version,
        starts_on=found.starts_on,
        overage=found.overage,
        grants=[_grant(grant, rules.get(grant.usage_type)) for grant in found.grants],
        terms=terms_told(found.terms),
        note=found.note,
        seq=Seq(found.seq),
    )


def _grant(grant: Grant, rule: RollOverRule | None) -> ContractGrant:
    rollover = None
    if rule is not None:
        quantity = None if rule.quantity is None else Quantity(rule.quantity)
        rollover = RollOver(cycles=rule.cycles, quantity=quantity, percent=rule.percent)
    return ContractGrant(usage_type=grant.usage_type, quantity=Quantity(grant.quantity), rollover=rollover)


def terms_told(terms: Terms) -> ContractTerms:
    calendar = terms.calendar
    return ContractTerms(
        calendar=ContractCalendar(
            kind=CalendarKind(calendar.kind), number=calendar.number, starts=list(calendar.starts)
        ),
        prorate=terms.prorate,
        renews_months=terms.renews_months,
        rolls_to_enterprise=terms.rolls_to_enterprise,
        settle_after_hours=terms.settle_after_hours,
        commitment=Money(terms.commitment),
        overage_prices=[
            ContractOveragePrice(usage_type=one.usage_type, price=one.price, per=Quantity(one.per))
            for one in terms.overage_prices
        ],
        over_commitment_percent=terms.over_commitment_percent,
        expires=terms.expires,
    )


# --- what is asked for -----------------------------------------------------------------------


@strawberry.input
class CalendarInput:
    kind: CalendarKind
    number: int = strawberry.field(default=0, description="The day, or how many days.")
    starts: list[str] = strawberry.field(
        default_factory=list,
        description="DAYS: the date the first one begins. DATES: each start, and the end.",
    )


@strawberry.input(description="What may go on into the next period; one cap at most.")
class RollOverInput:
    cycles: int = strawberry.field(default=1, description="How often a unit may be rolled over.")
    quantity: Quantity | None = None
    percent: int | None = None


@strawberry.input
class GrantInput:
    usage_type: str = strawberry.field(description="data, voice, messaging, video, money, or one defined.")
    quantity: Quantity = strawberry.field(description="Per period, in the type's unit; money in micro-units.")
    rollover: RollOverInput | None = None


@strawberry.input
class OveragePriceInput:
    usage_type: str
    price: str = strawberry.field(description='Of `per` units, in the tenant\'s currency: "0.05".')
    per: Quantity = Quantity(1)


@strawberry.input(description="A contract, or its next version: it replaces all that was agreed before.")
class SignContractInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    contract: ID
    starts_on: str = strawberry.field(description="A date, YYYY-MM-DD, in the tenant's time zone.")
    grants: list[GrantInput]
    overage: bool = strawberry.field(default=True, description="Charge usage beyond the allowance, or deny.")
    ends_on: str | None = strawberry.field(
        default=None, description="The last day; else until further notice."
    )
    calendar: CalendarInput | None = strawberry.field(default=None, description="Else calendar months.")
    renews_months: int = 0
    prorate: bool = False
    rolls_to_enterprise: bool = False
    settle_after_hours: int = 0
    commitment: Money = Money(0)
    overage_prices: list[OveragePriceInput] = strawberry.field(default_factory=list)
    over_commitment_percent: int = 0
    expires: bool = strawberry.field(
        default=False,
        description="Let what is left at a period's end expire, and be told bucket by bucket, also where "
        "nothing rolls over. Else it stays, for usage that is told late.",
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class EndContractInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    contract: ID
    ends_on: str = strawberry.field(description="The last day it covers: today, or later.")
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class RenewContractInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    contract: ID
    ends_on: str | None = strawberry.field(default=None, description="The new last day; else further notice.")
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Grant more than the contract does, at once and until the period's end.")
class TopUpInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    usage_type: str
    quantity: Quantity
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class NewGrantInput:
    usage_type: str
    quantity: Quantity = strawberry.field(description="Per whole period.")


@strawberry.input(description="Grant other quantities from now on; types that are not named keep theirs.")
class ChangeGrantsInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    contract: ID
    grants: list[NewGrantInput]
    prorate: bool = strawberry.field(
        default=False, description="In the running period only for what is left of it."
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(
    description="A type of the carrier's own: granted, rated, limited and charged like those built in."
)
class DefineUsageTypeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    name: str = strawberry.field(description="Small letters, digits and underscores: iot_event.")
    unit: str = strawberry.field(description='One of them: "message".')
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


# --- what is answered ------------------------------------------------------------------------


@strawberry.type(description="The contract stands, durably.")
class ContractDone:
    contract: Contract = strawberry.field(description="As it stands now.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="What a change of grants did to the period that runs.")
class GrantChange:
    usage_type: str
    before: Quantity
    after: Quantity
    change: str = strawberry.field(description="What has entered the enterprise's bucket, or left: -500.")
    share: str = strawberry.field(description="Of after - before, as a fraction; rounded towards nothing.")


@strawberry.type(description="Other quantities are granted, durably.")
class ChangeGrantsDone:
    contract: Contract = strawberry.field(description="As it stands now.")
    period: str
    changes: list[GrantChange]
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="More is granted, durably.")
class TopUpDone:
    node: Member = strawberry.field(description="The enterprise, as it stands now.")
    period: str
    quantity: Quantity
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="The tenant counts this from now on.")
class DefineUsageTypeDone:
    usage_type: UsageType
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


ContractPayload = Annotated[
    ContractDone | DryRun | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgain,
    strawberry.union("ContractPayload"),
]
ChangeGrantsPayload = Annotated[
    ChangeGrantsDone
    | DryRun
    | InsufficientAllowance
    | InvalidInput
    | NotPermitted
    | IdempotencyMismatch
    | TryAgain,
    strawberry.union("ChangeGrantsPayload"),
]
TopUpPayload = Annotated[
    TopUpDone | DryRun | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgain,
    strawberry.union("TopUpPayload"),
]
DefineUsageTypePayload = Annotated[
    DefineUsageTypeDone | DryRun | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgain,
    strawberry.union("DefineUsageTypePayload"),
]


async def sign_contract(info: Info, input: SignContractInput) -> ContractPayload:
    return await _agree(
        info,
        input,
        SignContract(
            *(str(input.contract), input.starts_on),
            *(tuple(Grant(one.usage_type, one.quantity) for one in input.grants), input.overage),
            *(_terms_of(input), input.note),
        ),
    )


async def end_contract(info: Info, input: EndContractInput) -> ContractPayload:
    return await _agree(info, input, EndContract(str(input.contract), input.ends_on, input.note))


async def renew_contract(info: Info, input: RenewContractInput) -> ContractPayload:
    return await _agree(info, input, RenewContract(str(input.contract), input.ends_on or "", input.note))


async def _agree(
    info: Info,
    input: SignContractInput | EndContractInput | RenewContractInput,
    command: SignContract | EndContract | RenewContract,
) -> ContractPayload:
    context = info.context
    answer = await change(context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | UnknownNode | OfAllocation)
        return answer
    return ContractDone(
        contract=await _stands(context, answer, str(input.contract)),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def change_grants(info: Info, input: ChangeGrantsInput) -> ChangeGrantsPayload:
    context = info.context
    grants = tuple(Grant(one.usage_type, one.quantity) for one in input.grants)
    command = ChangeGrants(str(input.contract), grants, input.prorate, input.note)
    answer = await change(context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, UnknownNode | OfAllocation)
        return answer
    changes = [event for event in answer.events if isinstance(event, GrantChanged)]
    return ChangeGrantsDone(
        contract=await _stands(context, answer, str(input.contract)),
        period=changes[0].period,
        changes=[
            GrantChange(
                usage_type=one.usage_type,
                before=Quantity(one.before),
                after=Quantity(one.after),
                change=str(one.change),
                share=f"{one.share[0]}/{one.share[1]}",
            )
            for one in changes
        ],
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def top_up(info: Info, input: TopUpInput) -> TopUpPayload:
    context = info.context
    command = TopUp(input.usage_type, input.quantity, input.period or "", input.note)
    answer = await change(context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | UnknownNode | OfAllocation)
        return answer
    topped = next(event for event in answer.events if isinstance(event, ToppedUp))
    (node,) = await changed(context, answer, [topped.node], topped.period, topped.usage_type)
    return TopUpDone(
        node=node,
        period=topped.period,
        quantity=Quantity(topped.quantity),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def define_usage_type(info: Info, input: DefineUsageTypeInput) -> DefineUsageTypePayload:
    command = DefineUsageType(input.name, input.unit, input.note)
    answer = await change(
        info.context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run
    )
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | UnknownNode | OfAllocation)
        return answer
    return DefineUsageTypeDone(
        usage_type=UsageType(name=input.name, unit=input.unit, built_in=False),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def _stands(context: Context, answer: Answer, contract: str) -> Contract:
    (found,) = await _contracts(context, contract, None, answer.last_seq)
    return found


def _terms_of(input: SignContractInput) -> Terms | None:
    asked, calendar = input.calendar, MONTHLY
    if asked is not None:
        calendar = Calendar(asked.kind.value, asked.number, tuple(asked.starts))
    terms = Terms(
        calendar=calendar,
        ends_on=input.ends_on or "",
        renews_months=input.renews_months,
        prorate=input.prorate,
        rollover=tuple(
            RollOverRule(one.usage_type, one.rollover.cycles, one.rollover.quantity, one.rollover.percent)
            for one in input.grants
            if one.rollover is not None
        ),
        rolls_to_enterprise=input.rolls_to_enterprise,
        settle_after_hours=input.settle_after_hours,
        commitment=input.commitment,
        overage_prices=tuple(
            OveragePrice(one.usage_type, one.price, one.per) for one in input.overage_prices
        ),
        over_commitment_percent=input.over_commitment_percent,
        expires=input.expires,
    )
    return None if terms == USUAL else terms
