"""The wire: what one worker asks another, and the answer, as bytes.

Numbers and names of people travel in clear here, as they do on their way in: the network between workers
must be one that may see them (docs/decisions/0009-one-worker-per-tenant.md).
"""

from collections.abc import Sequence
from typing import Any, get_args
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from ..domain.events import TOPICS
from ..domain.refusals import Refused
from ..domain.tenant import Command
from ..domain.usage import UnreadableRecord, Usage, UsageRecord
from ..tenants.lines import Unsealed
from .asking import Answer, Order, UsageOutcome
from .authorising import AskUnits, StartSession
from .correcting import InClear
from .intake.gate import checked
from .log import LogUnavailable
from .parcels import Fetching, Kept, Lost, Parcel, Part, Piece
from .writer import Busy, Halted, Moved, Unavailable


class Charging(Struct, frozen=True, array_like=True, tag="charge"):
    """Charge these records, in this order."""

    tenant: UUID
    seconds: float
    """How long an answer is waited for."""
    actor: str
    records: list[UsageRecord]
    unreadable: list[tuple[int, UnreadableRecord]]
    """With their places among all."""
    positions: Sequence[str]
    first: bool = False
    """Whether they go before bulk usage."""

    def all_records(self) -> list[Usage]:
        records: list[Usage] = list(self.records)
        for place, record in self.unreadable:
            records.insert(place, record)
        return records


class Ordering(Struct, frozen=True, array_like=True, tag="order"):
    """Carry out a command once."""

    tenant: UUID
    seconds: float
    actor: str
    key: bytes
    command: str
    """Its name, and what it says."""
    said: bytes
    dry: bool = False


class Adopting(Struct, frozen=True, array_like=True, tag="adopt"):
    """The lease is yours now: be ready."""

    tenant: UUID
    seconds: float = 5.0


class Counting(Struct, frozen=True, array_like=True, tag="count"):
    """How are you doing?"""

    seconds: float = 1.0


Asked = Charging | Ordering | Adopting | Counting | Piece | Fetching


class Charged(Struct, frozen=True, array_like=True, tag="charged"):
    outcomes: list[UsageOutcome]


class Done(Struct, frozen=True, array_like=True, tag="done"):
    first_seq: int
    last_seq: int
    repeated: bool
    events: list[tuple[str, msgspec.Raw]]
    """Topic and fields."""
    dry: bool = False


class Refusal(Struct, frozen=True, array_like=True, tag="refused"):
    code: str
    facts: bytes


class Trouble(Struct, frozen=True, array_like=True, tag="trouble"):
    kind: str
    """busy, unavailable, halted, elsewhere, or failed."""
    told: str = ""
    retry_after_ms: int = 0
    place: UUID | None = None
    """Where it is, as far as the one asked knows."""


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    figures: bytes


class Adopted(Struct, frozen=True, array_like=True, tag="adopted"):
    pass


Told = Charged | Done | Refusal | Trouble | Counted | Adopted | Kept | Parcel | Part

COMMANDS: dict[str, type[Struct]] = {
    kind.__name__: kind
    for kind in (*get_args(Command), *get_args(Unsealed), *get_args(InClear), StartSession, AskUnits)
}

pack = msgspec.msgpack.Encoder().encode
unpack_asked = msgspec.msgpack.Decoder(Asked).decode
unpack_told = msgspec.msgpack.Decoder(Told).decode
log = structlog.get_logger()
_orders = {name: msgspec.json.Decoder(kind) for name, kind in COMMANDS.items()}
_events = {topic: msgspec.msgpack.Decoder(kind) for topic, kind in TOPICS.items()}


class Failed(Exception):
    """The worker that serves the tenant met an error of its own, which is in its log."""


class Elsewhere(Moved):
    """The one asked does not serve the tenant; it may know who does."""

    def __init__(self, place: UUID | None = None) -> None:
        super().__init__("another worker serves the tenant")
        self.place = place


def charging(
    tenant: UUID,
    records: Sequence[Usage],
    actor: str,
    positions: Sequence[str],
    seconds: float,
    *,
    first: bool = False,
) -> Charging:
    """Checked at the gate first: what passes it can be packed."""
    passed = [checked(record) for record in records]
    return Charging(
        tenant,
        seconds,
        actor,
        [record for record in passed if isinstance(record, UsageRecord)],
        [(place, record) for place, record in enumerate(passed) if isinstance(record, UnreadableRecord)],
        [*positions],
        first,
    )


def ordering(tenant: UUID, order: Order, actor: str, seconds: float) -> Ordering:
    name = type(order.command).__name__
    return Ordering(tenant, seconds, actor, order.key, name, msgspec.json.encode(order.command), order.dry)


def order_of(asked: Ordering) -> Order:
    command: Any = _orders[asked.command].decode(asked.said)
    return Order(command, asked.key, asked.dry)


def done(answer: Answer) -> Done:
    events = [(event.topic, msgspec.Raw(pack(event))) for event in answer.events]
    return Done(answer.first_seq, answer.last_seq, answer.repeated, events, answer.dry)


def answer_of(told: Done) -> Answer:
    events: Any = tuple(_events[topic].decode(fields) for topic, fields in told.events)
    return Answer(events, told.first_seq, told.last_seq, told.repeated, told.dry)


def trouble_of(error: Exception) -> Refusal | Trouble:
    """How it went wrong, for the one who asked."""
    match error:
        case Refused():
            return Refusal(error.code, msgspec.json.encode(error.facts))
        case Busy():
            return Trouble("busy", retry_after_ms=error.retry_after_ms)
        case Halted():
            return Trouble("halted", str(error))
        case Elsewhere():
            return Trouble("elsewhere", place=error.place)
        case Moved():
            return Trouble("elsewhere")
        case Lost():
            return Trouble("unavailable", "a piece of what was asked, or of its answer, was lost")
        case Unavailable() | LogUnavailable():
            return Trouble("unavailable", str(error))
    log.error("a request of another worker failed", exc_info=error)
    return Trouble("failed", type(error).__name__)


def raised(told: Refusal | Trouble) -> Exception:
    """The same trouble, on this side."""
    if isinstance(told, Refusal):
        return Refused(told.code, **msgspec.json.decode(told.facts))
    match told.kind:
        case "busy":
            return Busy(told.retry_after_ms)
        case "halted":
            return Halted(told.told)
        case "elsewhere":
            return Elsewhere(told.place)
        case "failed":
            return Failed(told.told)
    return Unavailable(told.told)
