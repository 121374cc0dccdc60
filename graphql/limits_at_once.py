"""Many limits at once: as lines or as a sheet, all of them or none."""

from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.limit import THRESHOLDS, LimitSet, SetAnyLimit, ThresholdCrossed
from ..domain.limit_sheet import NONE, limits_of, together
from ..domain.refusals import Refused
from ..domain.window import PERIOD
from ..tenants.access import NotPermitted as NotPermittedHere
from ..tenants.access import require
from .asking import reach_of
from .changing import DryRun, change, check_reach_of_lines, of_lines, roles_of, seqs_of
from .context import Info
from .limits import KINDS, WINDOWS, LimitKind
from .problems import BadLines, ProblemType, UsualProblem
from .refusals import invalid, problem_of
from .scalars import Quantity, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD


@strawberry.input(description="One of many limits. Who may raise it stays as it is.")
class LimitLineInput:
    node: ID
    usage_type: str
    quantity: Quantity | None = strawberry.field(
        default=strawberry.UNSET,
        description="Per window; 0 stops all usage, an explicit null lifts the limit.",
    )
    thresholds: list[int] = strawberry.field(default_factory=lambda: list(THRESHOLDS))
    from_period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    window: str = strawberry.field(default=PERIOD, description=WINDOWS)
    kind: LimitKind | None = strawberry.field(default=None, description="Hard, where nothing is said.")
    quantities: list[Quantity] = strawberry.field(
        default_factory=list, description="Further thresholds, as quantities."
    )
    note: str = ""

    def limit(self, note: str) -> SetAnyLimit:
        return SetAnyLimit(
            *(self.node, self.usage_type, self.quantity, tuple(self.thresholds), self.from_period or ""),
            *(self.window, KINDS[self.kind or LimitKind.HARD], tuple(self.quantities)),
            note=self.note or note,
        )


@strawberry.input(description="Many limits, all of them or none. No two lines speak of one limit.")
class SetLimitsInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    csv: str | None = strawberry.field(
        default=None,
        description="With a heading: node,usage_type,quantity,window,kind,thresholds,from_period,note; "
        f"a quantity `{NONE}` lifts a limit. Or `lines`.",
    )
    lines: list[LimitLineInput] | None = None
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The limits hold, durably.")
class SetLimitsDone:
    limits: int = strawberry.field(description="How many were set or lifted.")
    crossed: int = strawberry.field(description="How many thresholds usage had reached already.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


SetLimitsPayload = Annotated[
    SetLimitsDone | DryRun | BadLines | UsualProblem, strawberry.union("SetLimitsPayload")
]


async def set_limits(info: Info, input: SetLimitsInput) -> SetLimitsPayload:
    context = info.context
    if (input.csv is None) == (input.lines is None):
        return invalid("csv", "give either csv or lines")
    if any(line.quantity is strawberry.UNSET for line in input.lines or ()):
        # Left out by mistake it must not lift a limit.
        return invalid("lines", "give each line a quantity, or an explicit null to lift the limit")
    try:
        require(context.principal, "set_limit")
        limits = _limits(input)
        check_reach_of_lines(await reach_of(context), [(limit.node,) for limit in limits])
    except (Refused, NotPermittedHere) as refusal:
        return of_lines(problem_of(refusal))
    command = together(limits, await context.state(), context.now(), roles_of(context))
    answer = await change(context, "set_limit", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun):
        return answer
    if isinstance(answer, ProblemType):
        return of_lines(answer)
    return SetLimitsDone(
        limits=sum(isinstance(event, LimitSet) for event in answer.events),
        crossed=sum(isinstance(event, ThresholdCrossed) for event in answer.events),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


def _limits(input: SetLimitsInput) -> tuple[SetAnyLimit, ...]:
    if input.csv is not None:
        return limits_of(input.csv, input.note)
    return tuple(line.limit(input.note) for line in input.lines or ())
