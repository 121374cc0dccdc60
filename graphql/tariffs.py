"""Tariffs: the versions there are, what changes between any two, rate sheets, and a customer's own rates."""

import asyncio
import functools
from collections.abc import Sequence
from datetime import date
from enum import Enum
from hashlib import sha256
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import strawberry
from strawberry import ID

from ..domain.calendar import midnight
from ..domain.decks import importing
from ..domain.decks.comparing import KINDS, ZoneChange
from ..domain.decks.composing import Past, Terms
from ..domain.decks.layout import USUAL, Layout, parse_layout
from ..domain.decks.reading import read_sheet
from ..domain.decks.report import Moved, Report, StepReport, Taken, take
from ..domain.rating.amending import AmendTariff, WithdrawTariff
from ..domain.rating.language import Rate
from ..domain.refusals import Refused
from ..domain.tariff import Tariffs
from ..domain.tenant import Tenant
from ..projections import invoices
from ..projections import tariffs as views
from ..tenants.access import NotPermitted as NotPermittedHere
from ..tenants.access import require
from ..tenants.definition import DefinitionError
from ..tenants.own_rates_file import own_rates_command, parse_own_rates
from .asking import PAGE_USUAL, AsOf, PageInfo, looking, page_size, permit
from .changing import DryRun, change, seqs_of
from .context import Answer, Context, Info, TryAgain
from .problems import (
    BadLines,
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    NotPermitted,
    OfAllocation,
    ProblemType,
    UnknownNode,
)
from .problems import TryAgain as TryAgainProblem
from .refusals import QueryRefused, invalid, problem_of
from .scalars import Moment, Money, Quantity, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED

VIEWS = ("tariffs",)


# --- what is read -------------------------------------------------------------------------------


@strawberry.enum(description="How a version was made.")
class TariffMade(Enum):
    PUBLISHED = "published"
    AMENDED = strawberry.enum_value("amended", description="Of its base, by what changes.")
    OVERRIDDEN = strawberry.enum_value("overridden", description="Of its base, with rates of one's own.")


@strawberry.type(description="A tariff version. Of those that begin at one moment the latest holds.")
class TariffVersion:
    version: int
    tariff: str
    made: TariffMade
    base: int | None = strawberry.field(description="The version it was made of.")
    valid_from: Moment
    own_rates_since: Moment | None = strawberry.field(
        description="From when on the own rates hold that are laid over the base."
    )
    currency: str
    note: str
    withdrawn: bool = strawberry.field(description="Before it held.")
    withdrawn_note: str
    recorded_at: Moment
    event_seq: Seq


@strawberry.type
class TariffConnection:
    nodes: list[TariffVersion]
    page_info: PageInfo


@strawberry.enum(description="What becomes of prefixes.")
class RateChangeKind(Enum):
    NEW = "new"
    RAISED = "raised"
    LOWERED = "lowered"
    CHANGED = strawberry.enum_value("changed", description="The same price, but other terms or zone.")
    BLOCKED = "blocked"
    REMOVED = "removed"
    UNCHANGED = "unchanged"


@strawberry.type(description="What a rate says.")
class RateTerms:
    price: str = strawberry.field(description="Of `per` units, in the tariff's currency; exact.")
    per: Quantity
    minimum: Quantity
    increment: Quantity
    connect_fee: str
    blocked: bool = strawberry.field(description="Nothing is offered there.")


@strawberry.type(description="Prefixes of a zone with which the same happens.")
class RateChange:
    kind: RateChangeKind
    zone: str
    usage_type: str
    direction: str
    prefixes: list[str]
    before: RateTerms | None
    after: RateTerms | None
    percent: str | None = strawberry.field(description='How much dearer, "+12.5", or cheaper, "-3.33".')


@strawberry.type
class RateChangeConnection:
    nodes: list[RateChange]
    page_info: PageInfo


@strawberry.type(description="How many prefixes there are of a kind.")
class RateChangeCount:
    kind: RateChangeKind
    prefixes: int


@strawberry.type(description="What changes at one moment, against what held just before or was scheduled.")
class DeckVersion:
    valid_from: Moment
    counts: list[RateChangeCount]
    changes: list[RateChange]


@strawberry.type(description="A row whose status says otherwise than the prices in force.")
class DeckSurprise:
    line: int
    status: str
    told: str


@strawberry.type(description="What a zone's usage of a period would have cost otherwise.")
class MoneyMoved:
    zone: str
    records: int
    overage: Quantity = strawberry.field(description="Units that no allowance covered.")
    amount: Money = strawberry.field(description="As charged.")
    difference: str = strawberry.field(
        description="In micro-units, before rounding, as an exact fraction: what would have come in addition."
    )
    exact: bool
    because: list[str] = strawberry.field(description="Why it is only near.")


@strawberry.type(description="What a rate sheet changes.")
class DeckReport:
    rows: int
    prefixes: int
    versions: list[DeckVersion]
    surprises: list[DeckSurprise]
    period: str | None = strawberry.field(description="Whose usage the money is of.")
    money: list[MoneyMoved]


async def tariffs(
    info: Info, first: int = PAGE_USUAL, after: str | None = None, as_of: AsOf | None = None
) -> TariffConnection:
    """The newest version first."""
    context = info.context
    permit(context, "read")
    size, before = page_size(first), _place(after)
    from_where = await looking(context, as_of)
    query = functools.partial(views.versions_page, first=size + 1, before=before)
    _, found = await context.read(query, VIEWS, as_of=from_where.seq)
    nodes = [_version(one) for one in found[:size]]
    end = str(nodes[-1].version) if nodes else None
    return TariffConnection(nodes=nodes, page_info=PageInfo(has_next_page=len(found) > size, end_cursor=end))


async def tariff_changes(
    info: Info,
    before: Annotated[int, strawberry.argument(description="A version.")],
    after: Annotated[int, strawberry.argument(description="Another one.")],
    first: int = PAGE_USUAL,
    cursor: str | None = None,
) -> RateChangeConnection | None:
    """What changes from one version to another, by zone; null where there is no such version."""
    context = info.context
    permit(context, "read")
    size, place = page_size(first), _place(cursor) or 0
    found = (await context.state()).tariffs
    if not all(1 <= number <= len(found.versions) for number in (before, after)):
        return None
    changes = await asyncio.to_thread(importing.differences, found, before, after)
    page = changes[place : place + size]
    more = len(changes) > place + size
    return RateChangeConnection(
        nodes=[_change(one) for one in page],
        page_info=PageInfo(has_next_page=more, end_cursor=str(place + len(page)) if page else None),
    )


def _place(after: str | None) -> int | None:
    if after is None:
        return None
    if not (after.isascii() and after.isdigit() and len(after) <= 9):
        raise QueryRefused("bad_cursor", "after: give the endCursor of the page before, unchanged")
    return int(after)


def _version(one: views.TariffVersion) -> TariffVersion:
    return TariffVersion(
        version=one.version,
        tariff=one.tariff,
        made=TariffMade(one.made),
        base=one.base or None,
        valid_from=Moment(one.valid_from),
        own_rates_since=Moment(one.since) if one.made == views.OVERRIDDEN else None,
        currency=one.currency,
        note=one.note,
        withdrawn=one.withdrawn,
        withdrawn_note=one.withdrawn_note,
        recorded_at=Moment(one.recorded_at),
        event_seq=Seq(one.seq),
    )


def _change(one: ZoneChange) -> RateChange:
    return RateChange(
        kind=RateChangeKind(one.kind),
        zone=one.zone,
        usage_type=one.usage_type,
        direction=one.direction,
        prefixes=list(one.prefixes),
        before=_terms(one.before),
        after=_terms(one.after),
        percent=one.percent or None,
    )


def _terms(rate: Rate | None) -> RateTerms | None:
    if rate is None:
        return None
    return RateTerms(
        price=rate.price,
        per=Quantity(rate.per),
        minimum=Quantity(rate.minimum),
        increment=Quantity(rate.increment),
        connect_fee=rate.connect_fee,
        blocked=rate.blocked,
    )


# --- rate sheets --------------------------------------------------------------------------------


@strawberry.enum(description="What becomes of rows that begin in the past with another price.")
class DeckPast(Enum):
    REFUSE = "refuse"
    FROM_NOW_ON = "from_now_on"
    SUPERSEDE = strawberry.enum_value(
        "supersede", description="Versions of the past; usage that was charged is to be rated again."
    )


@strawberry.input(description="A rate sheet, taken over as tariff versions: all of it, or nothing.")
class ImportRateDeckInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    csv: str = strawberry.field(description="With a heading that names its columns.")
    layout: str | None = strawberry.field(
        default=None, description="How it is laid out, in TOML; else columns are found by usual names."
    )
    valid_from: str | None = strawberry.field(
        default=None, description="The day on which it begins to hold, for what has no date: 2026-12-01."
    )
    part: bool = strawberry.field(default=False, description="What it does not name stays as it is.")
    past: DeckPast | None = strawberry.field(default=None, description="Else REFUSE.")
    period: str | None = strawberry.field(
        default=None, description="Also tell what the usage of this period would have cost."
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The sheet holds as its versions say; or, for a dry run, would.")
class ImportRateDeckDone:
    report: DeckReport = strawberry.field(description="Of what was repeated: what it would change now.")
    dry_run: bool
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


ImportRateDeckPayload = Annotated[
    ImportRateDeckDone | BadLines | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgainProblem,
    strawberry.union("ImportRateDeckPayload"),
]


async def import_rate_deck(info: Info, input: ImportRateDeckInput) -> ImportRateDeckPayload:
    context = info.context
    try:
        # First of all: reading a sheet is work.
        require(context.principal, "configure")
        return await _imported(context, input)
    except (NotPermittedHere, Refused, TryAgain) as refusal:
        told = problem_of(refusal)
        assert isinstance(told, BadLines | InvalidInput | NotPermitted | TryAgainProblem)
        return told


async def _imported(context: Context, input: ImportRateDeckInput) -> ImportRateDeckPayload:
    digest = _digest(input)
    state = await context.state()
    terms = _deck_terms(state, context.now(), input)
    if isinstance(terms, InvalidInput):
        return terms
    layout = _layout(input)
    taken = await asyncio.to_thread(
        _taken, input.csv, layout, state.opened.currency if state.opened else "", state.tariffs, terms
    )
    command = importing.command_of(state.tariffs, taken, terms, input.note, digest)
    key, dry = input.idempotency_key, input.dry_run
    # Nothing to change: perhaps because it was done before under this key.
    answer = await change(
        context, "configure", command or AmendTariff((), 0, sheet=digest), key, {}, dry_run=dry
    )
    nothing = command is None and isinstance(answer, InvalidInput) and answer.code == "tariffs_changed"
    if isinstance(answer, ProblemType) and not nothing:
        assert isinstance(
            answer, BadLines | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgainProblem
        )
        return answer
    report = await _report(context, state, taken, input.period)
    if isinstance(answer, DryRun | ProblemType):
        return ImportRateDeckDone(report=report, dry_run=dry, event_seqs=[], repeated=False)
    return ImportRateDeckDone(
        report=report, dry_run=False, event_seqs=seqs_of(answer), repeated=answer.repeated
    )


def _taken(csv: str, layout: Layout, currency: str, found: Tariffs, terms: Terms) -> Taken:
    sheet = read_sheet(csv, layout, currency)
    return take(sheet, importing.givens(found), terms, len(found.versions))


def _digest(input: ImportRateDeckInput) -> str:
    past = input.past.value if input.past else DeckPast.REFUSE.value
    said = (input.csv, input.layout, input.valid_from, input.part, past)
    return sha256(repr(said).encode()).hexdigest()


def _layout(input: ImportRateDeckInput) -> Layout:
    layout = USUAL if input.layout is None else parse_layout(input.layout)
    return Layout(**{**_fields(layout), "whole": False}) if input.part else layout


def _fields(layout: Layout) -> dict[str, Any]:
    return {name: getattr(layout, name) for name in layout.__struct_fields__}


def _deck_terms(state: Tenant, now: int, input: ImportRateDeckInput) -> Terms | InvalidInput:
    zone = _zone(state)
    starts_at = None
    if input.valid_from is not None:
        try:
            starts_at = midnight(date.fromisoformat(input.valid_from), zone)
        except ValueError:
            return invalid("validFrom", "give a day such as 2026-12-01")
    past: Past = "refuse"
    if input.past is not None and input.past is not DeckPast.REFUSE:
        past = "supersede" if input.past is DeckPast.SUPERSEDE else "from_now_on"
    return Terms(now, lambda day: midnight(day, zone), starts_at, past)


def _zone(state: Tenant) -> ZoneInfo:
    return ZoneInfo(state.opened.time_zone if state.opened else "UTC")


async def _report(context: Context, state: Tenant, taken: Taken, period: str | None) -> DeckReport:
    layout = taken.layout
    money: list[Moved] = []
    if period is not None:
        query = functools.partial(
            invoices.rates_charged, period=period, usage_type=layout.usage_type, direction=layout.of_rates
        )
        _, charged = await context.read(query, ("invoices",))
        used = [
            importing.Used(one.tariff, one.rate, one.records, one.billed, one.overage, one.amount)
            for one in charged
        ]
        money = importing.what_it_costs(state.tariffs, taken, used)
    return _report_told(taken.report, period, money)


def _report_told(report: Report, period: str | None, money: Sequence[Moved]) -> DeckReport:
    return DeckReport(
        rows=report.rows,
        prefixes=report.prefixes,
        versions=[_step(step) for step in report.steps],
        surprises=[DeckSurprise(line=one.line, status=one.status, told=one.told) for one in report.surprises],
        period=period,
        money=[_moved(one) for one in money],
    )


def _step(step: StepReport) -> DeckVersion:
    counts = [
        RateChangeCount(kind=RateChangeKind(kind), prefixes=step.counts[kind])
        for kind in KINDS
        if step.counts[kind]
    ]
    changes = [_change(one) for one in step.zones]
    return DeckVersion(valid_from=Moment(step.at), counts=counts, changes=changes)


def _moved(one: Moved) -> MoneyMoved:
    return MoneyMoved(
        zone=one.zone,
        records=one.records,
        overage=Quantity(one.overage),
        amount=Money(one.amount),
        difference=f"{one.difference[0]}/{one.difference[1]}",
        exact=one.exact,
        because=list(one.because),
    )


# --- own rates, and withdrawing -----------------------------------------------------------------


@strawberry.input(description="Let a customer's own rates hold from a day on, over whatever is the base.")
class OverrideRatesInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    own_rates: str = strawberry.field(
        description="As JSON: valid_from, rates, discounts and zones; docs/decks.md explains each key."
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Let a version never hold: only before it does.")
class WithdrawTariffInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    version: int
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The tariffs stand so, durably.")
class TariffDone:
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


TariffPayload = Annotated[
    TariffDone | DryRun | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgainProblem,
    strawberry.union("TariffPayload"),
]


async def override_rates(info: Info, input: OverrideRatesInput) -> TariffPayload:
    context = info.context
    try:
        told = parse_own_rates(input.own_rates.encode())
        command = own_rates_command(told, _zone(await context.state()), input.note)
    except DefinitionError as error:
        return invalid("ownRates", str(error))
    answer = await change(context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run)
    return _done(answer)


async def withdraw_tariff(info: Info, input: WithdrawTariffInput) -> TariffPayload:
    command = WithdrawTariff(input.version, input.note)
    key, dry = input.idempotency_key, input.dry_run
    return _done(await change(info.context, "configure", command, key, {}, dry_run=dry))


def _done(answer: Answer | DryRun | ProblemType) -> TariffPayload:
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | UnknownNode | OfAllocation)
        return answer
    return TariffDone(event_seqs=seqs_of(answer), repeated=answer.repeated)
