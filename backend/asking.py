"""Asking: what callers want done and what they are told, and a slice of it, which is decided in one go."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..domain.contract import first_form
from ..domain.preparing import Prepared
from ..domain.refusals import Refused
from ..domain.rerated import RerateCharges
from ..domain.tariff import Tariffs
from ..domain.tenant import Command, Event
from ..domain.usage import UnreadableRecord, Usage, UsageRecord
from ..domain.versioning import About
from ..tenants.lines import Unsealed
from .authorising import AskUnits, StartSession, records_of
from .correcting import InClear, RecycleRecord
from .keys import IDENTITY_BYTES, recycled_identity, replacing_identity, usage_identity
from .native import using


class Order(Struct, frozen=True):
    """A command with the key under which it is carried out once."""

    command: Command | Unsealed | StartSession | AskUnits | InClear
    key: bytes
    dry: bool = False
    """Only tell what it would lead to: nothing is written, and the key is not used up."""
    ready: "Ready | None" = None


class Ready(Struct, frozen=True):
    """What was done for a large command beside the writer."""

    content: bytes
    """As `content_of` tells it."""
    versions: Prepared


class UsageOutcome(Struct, frozen=True, gc=False):
    status: str
    """charged, rejected, suspended, or duplicate."""
    reason: str = ""
    seq: int = 0
    detail: str = ""
    """What to do about it, or whose limit it was."""
    amount: int = 0
    """What was charged, or what it would cost where it waits, as far as this is known."""
    field: str = ""
    """Of the record, where it waits: what to look at."""


class Answer(Struct, frozen=True):
    """What a command led to, and where it stands in the log."""

    events: tuple[Event, ...]
    first_seq: int
    last_seq: int
    repeated: bool = False
    """The same command with the same key had been carried out before: this is its answer."""
    dry: bool = False
    """Nothing has happened: these events would have stood in the log."""


class Repeated(Struct, frozen=True):
    """The command was carried out before; its answer stands in the log under this key."""

    key: bytes


Outcome = UsageOutcome | Answer | Repeated | Refused


class Slice:
    """What is decided in one go, in order; a list for each thing known of every item."""

    __slots__ = ("_hashes", "_positions", "actors", "are_new", "before", "charged_by_commands", "items")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.actors: list[str] = []
        self.before: list[Any] = []
        """What it was decided to be before its commit failed."""
        self._positions: list[tuple[int, Sequence[str]]] = []
        """With the place of the first item that they speak of."""
        self._hashes: list[bytes] = []
        self.charged_by_commands: list[bytes] = []
        """The identities of the records that commands among them may charge."""
        self.are_new = False
        """Whether it is known that none of them was ever seen, but for what stands in it twice."""

    def add(
        self,
        items: Sequence[Usage | Order],
        actor: str,
        before: Sequence[Any] = (),
        positions: Sequence[str] = (),
    ) -> None:
        """Items of one caller, records or commands; `before` and `positions` one for each, or none."""
        self.add_run(items, [actor] * len(items), before, positions)

    def add_run(
        self,
        items: Sequence[Usage | Order],
        actors: Sequence[str],
        before: Sequence[Any],
        positions: Sequence[str],
    ) -> None:
        """Items of a caller each; `before` one for each, or none."""
        if positions:
            self._positions.append((len(self.items), positions))
        self.items += items
        self.actors += actors
        self.before += before or [None] * len(items)
        self.charged_by_commands += [
            one for item in items if type(item) is Order for one in _charged_by(item.command)
        ]

    def position(self, place: int) -> str:
        """Where a record stood: "calls.csv:12"; "" where nobody said."""
        for first, positions in reversed(self._positions):
            if first <= place:
                return positions[place - first] if place - first < len(positions) else ""
        return ""

    def charge_also(self, identities: Iterable[bytes]) -> None:
        self.charged_by_commands += [one for one in identities if one not in self.charged_by_commands]

    @property
    def hashes(self) -> list[bytes]:
        """The identity of each item. Made for all at once, when the slice is whole."""
        if len(self._hashes) != len(self.items):
            self._hashes = _hashes_of(self.items)
        return self._hashes

    @property
    def repeated(self) -> set[bytes]:
        """The identities of records that stand in it twice, or that a command of it may charge."""
        every = self.hashes + self.charged_by_commands
        native = using.native()
        if native is not None and native.all_different(every):
            return set()
        if len(set(every)) == len(every):
            return set()
        return {hashed for hashed, times in Counter(every).items() if times > 1}


def content_of(item: Usage | Order) -> bytes:
    """What makes the same key another command: the whole of what was asked."""
    if type(item) is UsageRecord:
        return _pack(item)
    if isinstance(item, Order):
        asked = item.command
        if item.ready is not None:
            return item.ready.content
        return _pack([type(asked).__name__, first_form(asked)])
    return _raw(item)


def made_ready(order: Order, seen: Tariffs, about: About, now: int) -> Order:
    """A large command, decided on a copy of what it is about; in a thread."""
    command: Any = order.command
    return msgspec.structs.replace(order, ready=Ready(content_of(order), Prepared(command, about, seen, now)))


def _raw(record: Usage) -> bytes:
    return record.raw.encode() if isinstance(record, UnreadableRecord) else msgspec.json.encode(record)


def _hashes_of(items: Sequence[Any]) -> list[bytes]:
    """The identity of each record, or the hash of each command's key."""
    native = using.native()
    made = native.identities(items) if native is not None and isinstance(items, list) else None
    return made or [
        item.key[-IDENTITY_BYTES:] if type(item) is Order else usage_identity(item.source, item.record_id)
        for item in items
    ]


def _charged_by(command: object) -> list[bytes]:
    """The identities of the records that a command may charge."""
    if isinstance(command, RerateCharges):
        return [replacing_identity(one.seq) for one in command.charges]
    try:
        if isinstance(command, RecycleRecord):
            named = command.record.source, command.record.record_id
            return [usage_identity(*named), recycled_identity(*named)]
        return [usage_identity(*one) for one in records_of(command)]
    except UnicodeEncodeError:
        # No text, so no record: it is refused when it is decided.
        return []


_pack = msgspec.msgpack.Encoder().encode
