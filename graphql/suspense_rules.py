"""Rules of suspense: from which age on usage is held, and what one person may write off alone.

They hold for the whole enterprise: the carrier sets them, and whoever sees all of it may read them.
"""

from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.lateness import EVERY_SOURCE, LateRuleSet, SetLateRule
from ..domain.tenant import Command
from ..domain.writing_off import DismissalRuleSet, SetDismissalRule
from ..projections import rules
from .asking import AsOf, looking, permit, reach_of
from .changing import DryRun, change, seqs_of
from .context import Info
from .problems import InsufficientAllowance, OfAllocation, ProblemType, UsualProblem
from .refusals import invalid
from .scalars import Moment, Money, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED

LEFT_OUT = "say how much, or give an explicit null to lift the rule"


@strawberry.type(description="Usage of a source that comes later than this is held in suspense.")
class LateRule:
    source: str | None = strawberry.field(description="Null: all that have no rule of their own.")
    after_hours: int
    note: str
    seq: Seq
    recorded_at: Moment


@strawberry.type(description="What one person may write off alone.")
class DismissalRule:
    above: Money = strawberry.field(
        description="Beyond this in a day, and for what nobody can value, it takes two persons."
    )
    note: str
    seq: Seq
    recorded_at: Moment


@strawberry.type
class SuspenseRules:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    late: list[LateRule] = strawberry.field(description="By source; none: nothing is held for its age.")
    dismissal: DismissalRule | None = strawberry.field(description="Null: one person may write off anything.")


@strawberry.input(
    description="From which age on usage is held; recycle it with `acceptLate`, or write it off."
)
class SetLateRuleInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    source: str = strawberry.field(
        default=EVERY_SOURCE, description="A network element; empty: all that have no rule of their own."
    )
    after_hours: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="Used more hours than this before it came; an explicit null lifts the rule.",
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="From which amount on writing off takes two persons.")
class SetDismissalRuleInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    above: Money | None = strawberry.field(
        default=strawberry.UNSET,
        description="What a person may write off alone in a day; an explicit null lifts the rule.",
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The rule is set, durably; it holds for what comes from now on.")
class SetSuspenseRuleDone:
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


SetSuspenseRulePayload = Annotated[
    SetSuspenseRuleDone | DryRun | UsualProblem,
    strawberry.union("SetSuspenseRulePayload"),
]


async def set_late_rule(info: Info, input: SetLateRuleInput) -> SetSuspenseRulePayload:
    if input.after_hours is strawberry.UNSET:
        return invalid("afterHours", LEFT_OUT)
    command = SetLateRule(input.source, input.after_hours, input.note)
    return await _set(info, command, input.idempotency_key, dry_run=input.dry_run)


async def set_dismissal_rule(info: Info, input: SetDismissalRuleInput) -> SetSuspenseRulePayload:
    if input.above is strawberry.UNSET:
        return invalid("above", LEFT_OUT)
    command = SetDismissalRule(input.above, input.note)
    return await _set(info, command, input.idempotency_key, dry_run=input.dry_run)


async def suspense_rules(info: Info, as_of: AsOf | None = None) -> SuspenseRules | None:
    """Null for who sees a part of the enterprise only."""
    context = info.context
    permit(context, "read")
    if not (await reach_of(context)).whole:
        return None
    where = await looking(context, as_of)
    seq, (dismissal, late) = await context.read(rules.suspense_rules, ("rules",), as_of=where.seq)
    return SuspenseRules(
        seq=Seq(seq),
        late=[_late(told) for told in late],
        dismissal=_dismissal(dismissal) if dismissal is not None else None,
    )


async def _set(info: Info, command: Command, key: str, *, dry_run: bool) -> SetSuspenseRulePayload:
    answer = await change(info.context, "configure", command, key, {}, dry_run=dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    return SetSuspenseRuleDone(event_seqs=seqs_of(answer), repeated=answer.repeated)


def _late(told: rules.ToldOfAll) -> LateRule:
    event = told.event
    assert isinstance(event, LateRuleSet)
    assert event.after_hours is not None
    return LateRule(
        source=event.source or None,
        after_hours=event.after_hours,
        note=event.note,
        seq=Seq(told.seq),
        recorded_at=Moment(told.recorded_at),
    )


def _dismissal(told: rules.ToldOfAll) -> DismissalRule:
    event = told.event
    assert isinstance(event, DismissalRuleSet)
    assert event.above is not None
    return DismissalRule(
        above=Money(event.above),
        note=event.note,
        seq=Seq(told.seq),
        recorded_at=Moment(told.recorded_at),
    )
