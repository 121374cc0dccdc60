"""The one writer of a tenant's log: decide in memory, commit in groups, answer after the commit.

The next group is decided while the last one is on its way to the disk. Nobody is told anything
before the commit that their answer rests on: a refusal, too, may rest on an event that is not
stored yet. A failed commit promises nothing: the state is read back from the log and everything
unanswered is decided again; what had been stored after all is recognised by its key.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from ..domain.charging import ChargeUsage, SuspendUsage, UsageRejected, UsageSuspended
from ..domain.contract import OpenPeriod, PeriodNotOpen
from ..domain.events import encode
from ..domain.refusals import InvariantBroken, Refused
from ..domain.tenant import Command, Event, Tenant
from ..domain.usage import UnreadableRecord, UsageRecord
from ..tenants.onboarding import Enrol
from ..tenants.sealing import Sealer
from .intake.gate import checked
from .log import Fenced, Group, Head, KeyStored, Log, LogUnavailable, answer_of, follow, recorded
from .seen import (
    COMMANDS,
    DAY_BYTES,
    DIGEST_BYTES,
    NO_DAY,
    SeenKeys,
    day_of,
    digest_of,
    identity,
)

GROUP_MAX = 2_500
"""Events in one commit, about; more would make the ones who wait, wait longer."""
SLICE_MAX = 500
"""Records decided before the writer looks up: others get their turn in between."""
INBOX_MAX = 50_000
"""Records that may wait; who comes then is told to try again."""
RECOVERY_SECONDS_MAX = 30.0
RETRY_AFTER_MS = 200
KEYS_STORED_IN_A_ROW_MAX = 3

log = structlog.get_logger()
Clock = Callable[[], int]


class Busy(Exception):
    """The inbox is full. Nothing was taken; try again later."""

    def __init__(self, retry_after_ms: int = RETRY_AFTER_MS) -> None:
        super().__init__(f"too much at once: try again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class Unavailable(Exception):
    """The log could not be reached in time. It may be done or not: send it again, with its key."""


class Halted(Exception):
    """An invariant broke. The tenant takes no more until somebody has looked."""


class UsageOutcome(Struct, frozen=True, gc=False):
    status: str
    """charged, rejected, suspended, or duplicate."""
    reason: str = ""
    seq: int = 0


class Answer(Struct, frozen=True):
    """What a command led to, and where it stands in the log."""

    events: tuple[Event, ...]
    first_seq: int
    last_seq: int
    repeated: bool = False
    """The same command with the same key had been carried out before: this is its answer."""


Usage = UsageRecord | UnreadableRecord


class Writer:
    """Open it with `open_writer`; submit from the event loop that opened it."""

    def __init__(
        self,
        tenant_id: UUID,
        store: Log,
        load_sealer: Callable[[], Sealer],
        clock: Clock,
        executor: Executor | None = None,
        on_commit: Callable[[Group], None] | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self.store = store
        self._load_sealer = load_sealer
        self._clock = clock
        self._executor = executor
        self._on_commit = on_commit
        self._inbox: deque[_Request] = deque()
        self._again: deque[tuple[_Request, int, Any]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._open: _OpenGroup | None = None
        self._flying: tuple[_OpenGroup, asyncio.Future[None]] | None = None
        self._halted: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = Tenant()
        self._seen = SeenKeys()
        self._end = Head(0, 0, [])
        self._recorded_at = 0
        self._keys_stored_in_a_row = 0

    async def start(self) -> None:
        await self._recover()
        self._task = asyncio.create_task(self._work(), name=f"writer-{self.tenant_id}")

    async def close(self) -> None:
        """Finish what has been taken, then stop."""
        while self._waiting and not self._halted:  # noqa: ASYNC110  (rare, and nobody else waits)
            await asyncio.sleep(0.005)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def seq(self) -> int:
        """The end of the log as decided; what is stored may be a group behind."""
        return self._open.group.last if self._open else self._end.seq

    @property
    def waiting(self) -> int:
        """Records and commands taken and not answered yet."""
        return self._waiting

    # --- asking -----------------------------------------------------------------------------

    async def submit(self, command: Command | Enrol, key: bytes, actor: str) -> Answer:
        """Carry out a command once; raises Refused. The same key again gives the first answer."""
        digest = digest_of(msgspec.msgpack.encode([type(command).__name__, command]))
        answers = await self._ask([_Order(command, key, digest)], actor)
        answer = answers[0]
        if isinstance(answer, Refused):
            raise answer
        if isinstance(answer, _Repeated):
            return await self._repeat(answer.key)
        assert isinstance(answer, Answer)
        return answer

    async def submit_usage(self, records: Sequence[Usage], actor: str) -> list[UsageOutcome]:
        """Charge records in order; one outcome each, after the commit."""
        if not records:
            return []
        return await self._ask([checked(record) for record in records], actor)

    async def _ask(self, items: Sequence[Any], actor: str) -> list[Any]:
        if self._halted is not None:
            raise Halted(str(self._halted)) from self._halted
        if self._waiting and self._waiting + len(items) > INBOX_MAX:
            raise Busy
        request = _Request(items, actor, asyncio.get_running_loop().create_future())
        self._waiting += len(items)
        self._inbox.append(request)
        self._wake.set()
        return await request.answered

    async def _repeat(self, key: bytes) -> Answer:
        events = await self._in_thread(lambda: answer_of(self.store, key))
        return Answer(tuple(told.event for told in events), events[0].seq, events[-1].seq, repeated=True)

    # --- deciding and committing ------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._inbox or self._again or self._open is not None or self._flying is not None:
                    await self._turn()
        except asyncio.CancelledError:
            self._fail_all(Unavailable("the writer was closed"))
            raise
        except BaseException as error:  # noqa: BLE001  (whatever it is, stop and say so)
            log.critical("writer halted", tenant=str(self.tenant_id), error=str(error))
            self._halted = error
            self._fail_all(Halted(str(error)))

    async def _turn(self) -> None:
        if (self._inbox or self._again) and not self._is_full():
            await self._decide_slice()
        if self._flying is None:
            self._take_off()
        elif self._is_full() or not (self._inbox or self._again):
            await self._land()
            return
        await asyncio.sleep(0)

    def _is_full(self) -> bool:
        return self._open is not None and len(self._open.group.states) >= GROUP_MAX

    def _take_off(self) -> None:
        """Send the open group to the disk; one that stores nothing is answered at once."""
        opened = self._open
        if opened is None:
            return
        self._open = None
        if not opened.group.states:
            self._resolve(opened)
            return
        opened.group.subject_keys = self._sealer.take_unsaved()
        self._end = Head(opened.group.last, opened.group.epoch, opened.group.peaks)
        store, group = self.store, opened.group
        self._flying = (opened, self._in_thread(lambda: store.append(group)))

    async def _land(self) -> None:
        assert self._flying is not None
        opened, commit = self._flying
        try:
            await commit
        except (Fenced, LogUnavailable) as error:
            log.warning("commit failed, reading back", tenant=str(self.tenant_id), error=str(error))
            self._count_failure(error)
            self._put_back(opened)
            self._flying = None
            await self._recover()
            return
        self._flying = None
        self._keys_stored_in_a_row = 0
        if self._on_commit is not None:
            self._on_commit(opened.group)
        self._resolve(opened)

    def _count_failure(self, error: Exception) -> None:
        """A key may have been stored unseen once; again and again it is our own mistake."""
        self._keys_stored_in_a_row = self._keys_stored_in_a_row + 1 if isinstance(error, KeyStored) else 0
        if self._keys_stored_in_a_row > KEYS_STORED_IN_A_ROW_MAX:
            raise InvariantBroken("a stored key is recognised", error=str(error))

    def _put_back(self, flown: "_OpenGroup") -> None:
        """Everything decided since the last commit is decided again, in the same order."""
        undone = flown.answers + (self._open.answers if self._open else [])
        self._again.extendleft(reversed(undone))
        self._open = None

    async def _recover(self) -> None:
        """Take the log over and read the state back, until the database answers."""
        waited, pause = 0.0, 0.05
        while True:
            try:
                loaded = await self._in_thread(self._load)
                break
            except (Fenced, LogUnavailable) as error:
                if waited >= RECOVERY_SECONDS_MAX:
                    self._fail_all(Unavailable(f"the log cannot be reached: {error}"))
                    waited = 0.0
                    if self._task is None:
                        raise Unavailable(str(error)) from error
                await asyncio.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, 2.0)
        self.state, self._seen, self._end, self._recorded_at, self._sealer = loaded

    def _load(self) -> tuple[Tenant, SeenKeys, Head, int, Sealer]:
        head = self.store.claim()
        sealer = self._load_sealer()
        state, seen, recorded_at, seq = Tenant(), SeenKeys(), 0, 0
        for row in follow(self.store, upto=head.seq):
            told = recorded(row)
            state.apply(told.event)
            seq, recorded_at = told.seq, told.recorded_at
            if told.command_key is not None:
                seen.add(told.command_key, told.digest, _status_of(told.event))
        if seq != head.seq:
            raise InvariantBroken("the log has no holes", read=seq, head=head.seq)
        return state, seen, head, recorded_at, sealer

    async def _decide_slice(self) -> None:
        taken = self._take_slice()
        if self._seen.forgotten:
            await self._look_up([request.items[index] for request, index, _ in taken])
        now = self._clock()
        if self._open is None:
            self._recorded_at = max(self._recorded_at, now)
            self._open = _OpenGroup(Group(self.tenant_id, self._end, self._recorded_at))
        answers = self._open.answers
        for request, index, before in taken:
            item = request.items[index]
            outcome: Any
            if isinstance(item, _Order):
                outcome = self._decide_order(item, request.actor, now)
            else:
                outcome = self._decide_usage(item, request.actor, now, before)
            answers.append((request, index, outcome))

    def _take_slice(self) -> "list[tuple[_Request, int, Any]]":
        """What is decided next, with the answer it had before its commit failed, if it did."""
        if self._again:
            return [self._again.popleft() for _ in range(min(SLICE_MAX, len(self._again)))]
        taken: list[tuple[_Request, int, Any]] = []
        while self._inbox and len(taken) < SLICE_MAX:
            request = self._inbox[0]
            upto = min(len(request.items), request.next + SLICE_MAX - len(taken))
            taken += [(request, index, None) for index in range(request.next, upto)]
            request.next = upto
            if upto == len(request.items):
                self._inbox.popleft()
        return taken

    async def _look_up(self, items: list[Any]) -> None:
        """Ask the log, once for the whole slice, for keys that may have been seen long ago."""
        await self._ask_for([_hash_of(item) for item in items])
        conflicts = []
        for item in items:
            if not isinstance(item, _Order):
                hashed, digest = _hash_of(item), usage_digest(item)
                known = self._seen.recall(hashed)
                if known is not None and _digest(known) != digest:
                    conflicts.append(conflict_key(hashed, digest)[DAY_BYTES:])
        await self._ask_for(conflicts)

    async def _ask_for(self, hashes: list[bytes]) -> None:
        keys = [
            key for hashed in hashes if self._seen.must_ask(hashed) for key in self._seen.candidates(hashed)
        ]
        if keys:
            for row in await self._in_thread(lambda: self.store.find(keys)):
                told = recorded(row)
                assert told.command_key is not None
                self._seen.remember(told.command_key, told.digest, _status_of(told.event))

    def _decide_order(self, order: "_Order", actor: str, now: int) -> Any:
        known = self._seen.recall(order.key[DAY_BYTES:])
        if known is not None:
            if _digest(known) != order.digest:
                return Refused("idempotency_mismatch", remedy="use a new key for another command")
            return _Repeated(order.key)
        try:
            command = order.command
            if isinstance(command, Enrol):
                command = command.sealed_by(self._sealer)
            events = self._follow_from(command, now, actor)
        except Refused as refusal:
            return refusal
        first = self._add(events, order.key, order.digest, actor)
        return Answer(tuple(events), first, first + len(events) - 1)

    def _decide_usage(self, record: Usage, actor: str, now: int, before: UsageOutcome | None) -> UsageOutcome:
        hashed = usage_identity(record.source, record.record_id)
        digest = usage_digest(record)
        known = self._seen.recall(hashed)
        if known is not None:
            if _digest(known) == digest:
                # Decided before, and stored after all: the caller gets what it led to.
                stored = before is not None and before.status != "duplicate"
                return UsageOutcome(_STATUS[known[-1]] if stored else "duplicate")
            key = conflict_key(hashed, digest)
            if self._seen.recall(key[DAY_BYTES:]) is not None:
                return UsageOutcome("duplicate")
            command: ChargeUsage | SuspendUsage = self._conflicting(record, key)
        else:
            key = day_of(getattr(record, "started_at", 0)) + hashed
            command = self._prepare(record, key)
        events = self._follow_from(command, now, actor)
        seq = self._add(events, key, digest, actor)
        told = events[0]
        if isinstance(told, UsageRejected | UsageSuspended):
            status = "rejected" if isinstance(told, UsageRejected) else "suspended"
            return UsageOutcome(status, told.reason, seq)
        return UsageOutcome("charged", "", seq)

    def _prepare(self, record: Usage, key: bytes) -> ChargeUsage | SuspendUsage:
        """The command for a record: its line as a token, its personal part sealed."""
        if isinstance(record, UsageRecord):
            token = self._sealer.token(record.line)
            sealed = self._sealer.seal(token, _pack([record.line, record.counterpart]), key)
            return ChargeUsage(record, token, sealed)
        subject = self._sealer.token(f"raw:{record.source}:{record.record_id}")
        return SuspendUsage(
            record.source,
            record.record_id,
            record.reason,
            record.field,
            record.detail,
            record.position,
            self._sealer.seal(subject, record.raw.encode(), key),
        )

    def _conflicting(self, record: Usage, key: bytes) -> SuspendUsage:
        subject = self._sealer.token(f"raw:{record.source}:{record.record_id}")
        raw = record.raw.encode() if isinstance(record, UnreadableRecord) else msgspec.json.encode(record)
        return SuspendUsage(
            record.source,
            record.record_id,
            "conflicting_duplicate",
            "record_id",
            "a record with this id and other content came before: compare the two, correct the wrong one",
            getattr(record, "position", ""),
            self._sealer.seal(subject, raw, key),
            getattr(record, "started_at", 0),
        )

    def _follow_from(self, command: Command, now: int, actor: str) -> list[Event]:
        """The events of a command, applied; opens the period that it needs before."""
        try:
            events = self.state.decide(command, now)
        except PeriodNotOpen as needed:
            opening = self.state.decide(OpenPeriod(needed.period), now)
            for event in opening:
                self.state.apply(event)
            self._add(opening, period_key(needed.period), bytes(DIGEST_BYTES), actor)
            events = self.state.decide(command, now)
        for event in events:
            self.state.apply(event)
        return events

    def _add(self, events: Sequence[Event], key: bytes, digest: bytes, actor: str) -> int:
        assert self._open is not None
        group = self._open.group
        self._seen.add(key, digest, _status_of(events[0]))
        first = group.add(events[0].topic, encode(events[0], actor, digest), key)
        for event in events[1:]:
            group.add(event.topic, encode(event, actor, digest), None)
        return first

    # --- answering --------------------------------------------------------------------------

    def _resolve(self, opened: "_OpenGroup") -> None:
        for request, index, outcome in opened.answers:
            request.outcomes[index] = outcome
            request.left -= 1
            if not request.left and not request.answered.done():
                request.answered.set_result(request.outcomes)
        self._waiting -= len(opened.answers)

    def _fail_all(self, error: Exception) -> None:
        requests = {id(request): request for request in self._inbox}
        requests |= {id(request): request for request, _, _ in self._again}
        for opened in (self._open, self._flying[0] if self._flying else None):
            if opened is not None:
                requests |= {id(request): request for request, _, _ in opened.answers}
        for request in requests.values():
            if not request.answered.done():
                request.answered.set_exception(error)
        self._inbox.clear()
        self._again.clear()
        self._open = None
        self._waiting = 0

    def _in_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work)


class _Order(Struct, frozen=True):
    command: Command | Enrol
    key: bytes
    digest: bytes


class _Repeated(Struct, frozen=True):
    key: bytes


class _Request:
    """What one caller waits for."""

    __slots__ = ("actor", "answered", "items", "left", "next", "outcomes")

    def __init__(self, items: Sequence[Any], actor: str, answered: asyncio.Future[list[Any]]) -> None:
        self.items = items
        self.actor = actor
        self.answered = answered
        self.outcomes: list[Any] = [None] * len(items)
        self.left = len(items)
        self.next = 0


class _OpenGroup:
    """A group being decided, and who waits for it."""

    __slots__ = ("answers", "group")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.answers: list[tuple[_Request, int, Any]] = []


_STATUS = ("done", "charged", "rejected", "suspended")
_STATUS_BYTE = {"usage.charged": b"\x01", "usage.rejected": b"\x02", "usage.suspended": b"\x03"}
_pack = msgspec.msgpack.Encoder().encode


def usage_identity(source: str, record_id: str) -> bytes:
    """The identity of a usage record, for ever, whatever it says."""
    return identity("usage", source, record_id)


def usage_key(source: str, record_id: str, started_at: int) -> bytes:
    """The key under which a record is stored when it is the first of its identity."""
    return day_of(started_at) + usage_identity(source, record_id)


def conflict_key(hashed: bytes, digest: bytes) -> bytes:
    """Of a record that came under the identity of another: it is itself kept only once."""
    return NO_DAY + identity("conflict", hashed.hex(), digest.hex())


def period_key(period: str) -> bytes:
    return COMMANDS + identity("period", period)


def command_key(idempotency_key: str) -> bytes:
    return COMMANDS + identity("command", idempotency_key)


def usage_digest(record: Usage) -> bytes:
    if isinstance(record, UnreadableRecord):
        return digest_of(record.raw.encode())
    return digest_of(_pack(record))


def _hash_of(item: Any) -> bytes:
    key: bytes = (
        item.key[DAY_BYTES:] if isinstance(item, _Order) else usage_identity(item.source, item.record_id)
    )
    return key


def _digest(known: bytes) -> bytes:
    return known[DAY_BYTES : DAY_BYTES + DIGEST_BYTES]


def _status_of(event: Event) -> bytes:
    return _STATUS_BYTE.get(event.topic, b"\x00")
