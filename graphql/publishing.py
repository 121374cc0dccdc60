"""Publishing tariffs: the same JSON as in a file, checked as a file is, and tried first where one likes."""

from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.tariff import TariffPublished
from ..tenants.definition import DefinitionError
from ..tenants.tariff_file import parse_tariff, tariff_command
from .changing import DryRun, change, seqs_of
from .context import Info
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
from .refusals import invalid
from .scalars import Moment, Seq
from .wording import DRY, EVENTS, KEY, REPEATED

BYTES_MAX = 8_000_000
"""Of a definition; larger ones come as rate decks."""


@strawberry.input(description="A tariff version, as JSON: docs/tariffs.md explains each key.")
class PublishTariffInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    definition: str = strawberry.field(
        description='{"id": "standard", "valid_from": "2026-12-01", "currency": "EUR", "rates": [...]}'
    )
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The version holds from its moment on, durably.")
class PublishTariffDone:
    tariff: str
    version: int
    valid_from: Moment
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


PublishTariffPayload = Annotated[
    PublishTariffDone | DryRun | InvalidInput | NotPermitted | IdempotencyMismatch | TryAgain,
    strawberry.union("PublishTariffPayload"),
]


async def publish_tariff(info: Info, input: PublishTariffInput) -> PublishTariffPayload:
    context = info.context
    if len(input.definition) > BYTES_MAX:
        return invalid("definition", f"at most {BYTES_MAX} characters", "bad_tariff")
    try:
        zone = (await context.state()).contracts.zone
        command = tariff_command(parse_tariff(input.definition.encode()), zone)
    except DefinitionError as error:
        return invalid("definition", str(error), "bad_tariff")
    answer = await change(context, "configure", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | UnknownNode | OfAllocation)
        return answer
    told = next(event for event in answer.events if isinstance(event, TariffPublished))
    return PublishTariffDone(
        tariff=told.tariff,
        version=told.version,
        valid_from=Moment(told.valid_from),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )
