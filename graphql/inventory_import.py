"""The inventory as a sheet: carried out as a whole, from now on or dated back; each line within reach."""

from collections import Counter
from collections.abc import Collection
from typing import Annotated

import strawberry
from msgspec import Struct
from strawberry import ID

from ..domain.inventory import FIELDS, REMEDIES
from ..domain.rating_job import Scope
from ..domain.refusals import Refused
from ..tenants.access import NotPermitted as NotPermittedHere
from ..tenants.access import require
from ..tenants.definition import DefinitionError
from ..tenants.inventory_sheet import READ, read_lines
from ..tenants.lines import InventoryLine, TakeStock
from .asking import Reach, reach_of
from .backdating import BackdateShown, check_reach
from .changing import DryRun, bad_key, carried_out, of_lines, seqs_of
from .context import Context, Info, TryAgain
from .correction_runs import CorrectionRuns, correction_runs
from .problems import BadLines, InvalidInput, UnknownNode, UsualProblem
from .refusals import invalid, problem_of
from .rerating import ChangedSinceShown, RerateDone, confirmed, shown_difference
from .scalars import Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED

SHEET = (
    f"With a heading: {','.join(READ)}. A line says how its resource shall be; an empty cell leaves that "
    "as it is. Columns that only an export has are passed over."
)
REGION = 'The country of numbers without "+": GB.'


@strawberry.input
class _Sheet:
    """What both take."""

    csv: str = strawberry.field(description=SHEET)
    region: str = strawberry.field(default="", description=REGION)
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="How resources shall be, from now on or later: all of the lines, or none.")
class ImportInventoryInput(_Sheet):
    idempotency_key: ID = strawberry.field(description=KEY)


@strawberry.input(
    description="The same with lines about moments that are over, in periods that are not closed: what was "
    "used since is charged again, once that was shown."
)
class CorrectInventoryInput(_Sheet):
    idempotency_key: ID = strawberry.field(description="Also the name of the job, for ever.")
    shown: str = strawberry.field(
        default="", description="The digest of the difference that was confirmed; needed, but for a dry run."
    )


@strawberry.type(description="So many events of a kind.")
class TopicCount:
    topic: str
    count: int


@strawberry.type(description="The inventory is as the sheet says, durably.")
class ImportInventoryDone:
    count: int = strawberry.field(description="Of lines.")
    events: list[TopicCount]
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


ImportInventoryPayload = Annotated[
    ImportInventoryDone | DryRun | BadLines | UsualProblem, strawberry.union("ImportInventoryPayload")
]
CorrectInventoryPayload = Annotated[
    RerateDone | BackdateShown | ChangedSinceShown | CorrectionRuns | BadLines | UsualProblem,
    strawberry.union("CorrectInventoryPayload"),
]


async def import_inventory(info: Info, input: ImportInventoryInput) -> ImportInventoryPayload:
    context = info.context
    try:
        asked = (await _read(context, input)).stock
        answer = await carried_out(
            context, "organise", asked, input.idempotency_key, {}, dry_run=input.dry_run
        )
    except (NotPermittedHere, Refused, TryAgain, DefinitionError) as refusal:
        return _problem(refusal)
    if isinstance(answer, DryRun | InvalidInput | UnknownNode):
        return answer
    counts = Counter(event.topic for event in answer.events)
    return ImportInventoryDone(
        count=len(asked.lines),
        events=[TopicCount(topic=topic, count=count) for topic, count in sorted(counts.items())],
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def correct_inventory(info: Info, input: CorrectInventoryInput) -> CorrectInventoryPayload:
    context = info.context
    try:
        return await _corrected(context, input)
    except (NotPermittedHere, Refused, TryAgain, DefinitionError) as refusal:
        if isinstance(refusal, Refused) and refusal.code == "correction_runs":
            return await correction_runs(context, refusal)
        return _problem(refusal)


async def _corrected(context: Context, input: CorrectInventoryInput) -> CorrectInventoryPayload:
    read = await _read(context, input)
    if (problem := bad_key(input.idempotency_key)) is not None:
        return problem
    command = await context.dated(read.stock, input.idempotency_key, input.shown)
    if not input.dry_run:
        if not await context.was_begun(input.idempotency_key):
            await check_reach(context, command, read.reach)
        return await confirmed(context, command)
    events = await check_reach(context, command, read.reach)
    return BackdateShown(
        events=events, difference=await shown_difference(context, Scope(), command), leaves=[]
    )


class _Read(Struct, frozen=True):
    """What a sheet asks for, and how far whoever asks may reach."""

    stock: TakeStock
    reach: Reach


async def _read(context: Context, input: _Sheet) -> _Read:
    require(context.principal, "organise")
    lines = read_lines(input.csv, lambda line: context.normal(line, input.region))
    reach = await reach_of(context)
    known = (await context.state()).hierarchy.by_id
    refused = [told for line in lines if (told := _out_of_reach(line, reach, known)) is not None]
    if refused:
        raise Refused("lines_refused", lines=refused, refused=len(refused))
    return _Read(TakeStock(lines, input.note), reach)


def _out_of_reach(line: InventoryLine, reach: Reach, known: Collection[str]) -> dict[str, object] | None:
    """Of many lines each is told by itself; who is out of reach does not exist, but for its id."""
    if line.resource in known and not reach.sees_id(line.resource):
        code = "exists_already" if line.node is not None else "unknown_resource"
    elif line.node is not None and not reach.sees_id(line.node):
        code = "unknown_node"
    else:
        return None
    about = {"field": FIELDS.get(code, "resource"), "code": code, "remedy": REMEDIES[code]}
    return {"line": line.number, "resource": line.resource, **about}


def _problem(
    refusal: NotPermittedHere | Refused | TryAgain | DefinitionError,
) -> BadLines | UsualProblem:
    if isinstance(refusal, DefinitionError):
        return invalid("region", str(refusal))
    problem = of_lines(problem_of(refusal))
    if isinstance(problem, BadLines):
        # A sheet counts its heading, as who edits it sees it; lines are counted without.
        for line in problem.lines:
            line.line -= 1
        problem.path = ["input", "csv"]
    return problem
