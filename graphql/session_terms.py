"""Session terms: how much is granted at a time, and what the network does when the last units are used."""

from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.session_conditions import TERMINATE
from ..domain.session_terms import EVERY_TYPE, SessionTermsSet, SetSessionTerms
from ..domain.session_terms import SessionTerms as Terms
from ..projections import rules
from ..tenants.isolation import Connection
from .asking import PAGE_USUAL, AsOf, PageInfo, cursor_of, looking, page_size, permit, reach_of, seq_before
from .changing import DryRun, change, seqs_of
from .context import Info
from .problems import (
    InsufficientAllowance,
    ProblemType,
    UsualProblem,
)
from .problems import OfAllocation as _OfAllocation
from .scalars import Moment, Quantity, Seq
from .wording import DRY


@strawberry.enum(description="What the network does when the last units are used.")
class FinalAction(Enum):
    TERMINATE = "TERMINATE"
    REDIRECT = strawberry.enum_value("REDIRECT", description="Send the user to `address`.")
    RESTRICT_ACCESS = strawberry.enum_value(
        "RESTRICT_ACCESS", description="Let the user reach only what `filterId` lets through."
    )


@strawberry.input(description="What holds for sessions. What is left out is as usual.")
class SessionTermsInput:
    final_action: FinalAction | None = strawberry.field(default=None, description="Null: TERMINATE.")
    address: str = strawberry.field(default="", description="A web or SIP address, for REDIRECT.")
    filter_id: str = strawberry.field(default="", description="A name the network knows.")
    usual_slice: Quantity | None = None
    least_slice: Quantity | None = None
    validity_seconds: int = strawberry.field(default=0, description="Of a slice: at most 600, the usual.")
    threshold_percent: int = strawberry.field(
        default=0, description="The network reports when so much of a slice is left."
    )
    holding_seconds: int = strawberry.field(
        default=0, description="It gives a slice back that was not touched for so long."
    )
    pooled: bool = strawberry.field(
        default=False, description="Services of one session share what money was reserved for them."
    )


@strawberry.input(description="Terms for sessions at and below a node; without `terms` those above hold.")
class SetSessionTermsInput:
    idempotency_key: ID
    node: ID
    usage_type: str = strawberry.field(default=EVERY_TYPE, description="Empty: all that have none there.")
    terms: SessionTermsInput | None = None
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The terms are set, durably.")
class SetSessionTermsDone:
    node: ID
    usage_type: str
    event_seqs: list[Seq]
    repeated: bool


SetSessionTermsPayload = Annotated[
    SetSessionTermsDone | DryRun | UsualProblem,
    strawberry.union("SetSessionTermsPayload"),
]


async def set_session_terms(info: Info, input: SetSessionTermsInput) -> SetSessionTermsPayload:
    terms = _terms(input.terms) if input.terms is not None else None
    command = SetSessionTerms(input.node, input.usage_type, terms, input.note)
    nodes = {"node": str(input.node)}
    answer = await change(
        info.context, "configure", command, input.idempotency_key, nodes, dry_run=input.dry_run
    )
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | _OfAllocation)
        return answer
    return SetSessionTermsDone(
        node=input.node,
        usage_type=input.usage_type,
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


def _terms(given: SessionTermsInput) -> Terms:
    return Terms(
        given.final_action.value if given.final_action is not None else TERMINATE,
        given.address,
        given.filter_id,
        given.usual_slice or 0,
        given.least_slice or 0,
        given.validity_seconds,
        given.threshold_percent,
        given.holding_seconds,
        given.pooled,
    )


# --- asked -----------------------------------------------------------------------------------


@strawberry.type(description="What is laid down for sessions at and below a node.")
class SessionTerms:
    node_id: ID
    usage_type: str | None = strawberry.field(description="Null: all that have no terms of their own there.")
    final_action: FinalAction
    address: str | None
    filter_id: str | None
    usual_slice: Quantity | None = strawberry.field(description="Null in all of these: as usual.")
    least_slice: Quantity | None
    validity_seconds: int | None
    threshold_percent: int | None
    holding_seconds: int | None
    pooled: bool
    note: str
    seq: Seq
    recorded_at: Moment


@strawberry.type
class SessionTermsConnection:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    nodes: list[SessionTerms]
    page_info: PageInfo


async def session_terms(
    info: Info, first: int = PAGE_USUAL, after: str | None = None, as_of: AsOf | None = None
) -> SessionTermsConnection:
    """Those in reach, set last first."""
    context = info.context
    permit(context, "read")
    size, before, where = page_size(first), seq_before(after), await looking(context, as_of)
    seq, found = await context.read(_in_force, ("members", "rules"), as_of=where.seq)
    reach = await reach_of(context)
    wanted = [told for told in found if reach.sees(told.ordinal) and (before is None or told.seq < before)]
    page = wanted[:size]
    return SessionTermsConnection(
        seq=Seq(seq),
        nodes=[_told(told) for told in page],
        page_info=PageInfo(
            has_next_page=len(wanted) > size, end_cursor=cursor_of(page[-1].seq) if page else None
        ),
    )


def _in_force(db: Connection) -> list[rules.Told]:
    return rules.session_terms(db)


def _told(told: rules.Told) -> SessionTerms:
    event = told.event
    assert isinstance(event, SessionTermsSet)
    assert event.terms is not None
    terms = event.terms
    return SessionTerms(
        node_id=ID(event.node),
        usage_type=event.usage_type or None,
        final_action=FinalAction(terms.action),
        address=terms.address or None,
        filter_id=terms.filter_id or None,
        usual_slice=Quantity(terms.usual) if terms.usual else None,
        least_slice=Quantity(terms.least) if terms.least else None,
        validity_seconds=terms.validity_seconds or None,
        threshold_percent=terms.threshold_percent or None,
        holding_seconds=terms.holding_seconds or None,
        pooled=terms.pooled,
        note=event.note,
        seq=Seq(told.seq),
        recorded_at=Moment(told.recorded_at),
    )
