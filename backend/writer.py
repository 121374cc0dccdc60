"""The one writer of a tenant's log: decide in memory, commit in groups, answer after the commit.

The next group is decided while the last one is on its way to the disk, and sent before those of the
last one are answered. A large one is sent sooner still, once the store has all of the last one, and
is stored after it or not at all. Nobody is told anything before the commit that their answer rests
on: a refusal, too, may rest on an event that is not stored yet. A failed commit promises nothing:
the state is read back from the log and everything unanswered is decided again; what had been stored
after all is recognised by its key.

There are two lanes. Sessions, immediate events and commands go before bulk usage, which is cut
into slices: whoever authorises waits for the slice at hand and the commit under way. Of each
slice a part is kept for bulk usage, so that it goes on however much there is to authorise.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from ..domain.refusals import InvariantBroken, Refused
from ..domain.tenant import Command, Tenant
from ..domain.usage import Usage, UsageRecord
from ..tenants.lines import Unsealed
from ..tenants.sealing import Sealer
from .asking import Answer, Order, Repeated, Slice, UsageOutcome
from .authorising import AskUnits, StartSession
from .deciding import Decider
from .intake.gate import checked
from .lanes import Answered, Lane, Share
from .log import Fenced, Group, Head, KeyStored, Log, LogClosed, LogUnavailable, NotHeld, Sends, answer_of
from .native import using
from .suspending import pseudonymous

GROUP_MAX = 5_000
"""Events in one commit, about; more would make the ones who wait, wait longer."""
GROUP_USUAL = 2_500
"""The same while no more wait than four groups have: what a commit costs beside its rows is little then."""
GROUPS_AT_ONCE = 4
"""Of all who wait, in equal parts: two on their way, one to follow, one by those who were answered last."""
SLICE_MAX = 500
"""Records decided before the writer looks up: others get their turn in between."""
SLICE_BESIDE = 100
"""Records of bulk usage in a slice while somebody authorises: about a millisecond or two."""
BESIDE_SECONDS = 0.25
"""How long after the last that came first bulk usage is still cut so small."""
GROUP_BESIDE = 300
"""Events in one commit, about, while somebody authorises: a large one takes long, for nobody's good."""
SEND_MAX = 300
"""Events that the loop sends by itself: above that a COPY is cheaper, and a thread to say it."""
SEND_BYTES_MAX = 1_000_000
"""The same of their content: the loop has other things to do than to copy what is large."""
SECOND_MIN = 300
"""Events that make a group worth sending while the one before is being committed."""
LOOKING_SECONDS = 0.001
"""How often the writer looks whether a full group may go."""
BULK_SHARE = 100
"""Of each full slice, what is kept for bulk usage that waits: a fifth."""
INBOX_MAX = 50_000
"""Records that may wait; who comes then is told to try again."""
FIRST_MAX = 10_000
"""The same for those that go first, counted apart: a full inbox of records turns nobody away here."""
RECOVERY_SECONDS_MAX = 30.0
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.02, 2.0
LOUD_PAUSE_SECONDS = 0.25
"""A log that is not reached for so long is told of; what passes sooner is not worth a line."""
RETRY_AFTER_MS = 200
KEYS_STORED_IN_A_ROW_MAX = 3
LEASE_PAUSE_SECONDS = 0.05

log = structlog.get_logger()
Clock = Callable[[], int]


class Busy(Exception):
    """The inbox is full. Nothing was taken; try again later."""

    def __init__(self, retry_after_ms: int = RETRY_AFTER_MS) -> None:
        super().__init__(f"too much at once: try again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class Unavailable(Exception):
    """The log could not be reached in time. It may be done or not: send it again, with its key."""


class Moved(Unavailable):
    """Another worker serves the tenant, or soon will. Ask again: it finds the way."""


class Halted(Exception):
    """An invariant broke. The tenant takes no more until somebody has looked."""


class Writer:
    """Start it, then submit from the event loop that started it."""

    def __init__(
        self,
        tenant_id: UUID,
        store: Log,
        load_sealer: Callable[[], Sealer],
        clock: Clock,
        executor: Executor | None = None,
        on_commit: Callable[[Group], None] | None = None,
        may_decide: Callable[[], bool] | None = None,
        committing: Executor | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self.store = store
        self._sends = store if isinstance(store, Sends) else None
        self._load_sealer = load_sealer
        self._clock = clock
        self._executor = executor
        self._committing = committing or executor
        """Where large groups are stored, in their order: one may wait there for the one it follows."""
        self._on_commit = on_commit
        self._may_decide = may_decide
        """Whether the lease holds: while it does not, nothing is decided, and all wait."""
        self._first = Lane(goes_first=True)
        self._inbox = Lane(goes_first=False)
        self._again: deque[Share] = deque()
        self.asked = 0
        """Requests taken since it was opened: who looks again sees whether anybody came."""
        self._waiting = 0
        self._first_waiting = 0
        """Of those waiting: what goes first."""
        self._first_came = 0.0
        self._wake = asyncio.Event()
        self._decider: Decider | None = None
        self._open: _OpenGroup | None = None
        self._flying: deque[_Flight] = deque()
        """The groups on their way to the disk, oldest first: one, or a second that follows it."""
        self._halted: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._lost = False
        self._in_hand: list[Share] = []
        """What is being decided: neither in the inbox nor in a group."""
        self._failing_since: float | None = None
        self._failures_in_a_row = 0
        self._keys_stored_in_a_row = 0
        self._was_full_slice = False

    async def start(self) -> None:
        await self._recover()
        self._task = asyncio.create_task(self._work(), name=f"writer-{self.tenant_id}")

    async def close(self) -> None:
        """Finish what has been taken, take no more, then stop."""
        self._closing = True
        while self._waiting and not self._halted:  # noqa: ASYNC110  (rare, and nobody else waits)
            await asyncio.sleep(0.005)
        await self._stop()

    async def abandon(self) -> None:
        """Stop at once: another worker has the tenant. Whoever waits is sent there."""
        self._closing = self._lost = True
        await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for flight in self._flying:
            if flight.by_loop:
                # Nobody is left to be told, and the loop may end: a thread comes to an end by itself.
                flight.commit.cancel()

    @property
    def state(self) -> Tenant:
        """As decided; what is stored may be a group behind."""
        return self._deciding().state

    @property
    def seq(self) -> int:
        """The end of the log as decided; what is stored may be a group behind."""
        return self._open.group.last if self._open else self._deciding().head.seq

    @property
    def halted(self) -> bool:
        """Whether it takes no more, because an invariant broke."""
        return self._halted is not None

    @property
    def lost(self) -> bool:
        """Whether it takes no more, because another worker has the tenant."""
        return self._lost

    @property
    def waiting(self) -> int:
        """Records and commands taken and not answered yet."""
        return self._waiting

    # --- asking -----------------------------------------------------------------------------

    async def submit(
        self, command: Command | Unsealed | StartSession | AskUnits, key: bytes, actor: str
    ) -> Answer:
        """Carry out a command once; raises Refused. The same key again gives the first answer."""
        return await self.carry_out(Order(command, key), actor)

    async def carry_out(self, order: Order, actor: str) -> Answer:
        answer = (await self._ask_one(order, actor, "", first=True))[0]
        if isinstance(answer, Refused):
            raise answer
        if isinstance(answer, Repeated):
            return await self._repeat(answer.key)
        assert isinstance(answer, Answer)
        return answer

    async def submit_usage(
        self, records: Sequence[Usage], actor: str, positions: Sequence[str] = (), *, first: bool = False
    ) -> list[UsageOutcome]:
        """Charge records in order; one outcome each, after the commit. Positions say where each stood.

        `first`: somebody waits for leave to go on; they go before bulk usage.
        """
        if len(records) == 1:
            return await self.submit_one(records[0], actor, positions[0] if positions else "", first=first)
        if not records:
            return []
        self._check_room(len(records), first=first)
        return await self._ask(self._checked(list(records)), actor, positions, first=first)

    def submit_one(
        self, record: Usage, actor: str, position: str = "", *, first: bool = False
    ) -> asyncio.Future[list[UsageOutcome]]:
        """The same for one record. No coroutine: of what single records cost, callers are most."""
        return self._ask_one(self._checked([record])[0], actor, position, first=first)

    def _checked(self, items: list[Usage]) -> list[Usage]:
        native = using.native()
        if native is not None and native.all_sound(items):
            return items
        sealer = self._deciding().sealer
        items = [checked(record) for record in items]
        if all(type(item) is UsageRecord for item in items):
            return items
        return [pseudonymous(item, sealer) for item in items]

    def _ask(self, items: list[Any], actor: str, positions: Sequence[str], *, first: bool) -> Answered:
        """Let them wait for their turn."""
        answered = self._enter(len(items), first=first)
        (self._first if first else self._inbox).add(items, actor, positions, answered)
        return answered

    def _ask_one(self, item: Any, actor: str, position: str, *, first: bool) -> Answered:
        answered = self._enter(1, first=first)
        (self._first if first else self._inbox).add_one(item, actor, position, answered)
        return answered

    def _enter(self, count: int, *, first: bool) -> Answered:
        """Take so many in, and wake up; raises what keeps them out."""
        if self._halted is not None:
            raise Halted(str(self._halted)) from self._halted
        if self._closing:
            raise Moved("the writer is closing: send it again")
        self._check_room(count, first=first)
        self.asked += 1
        self._waiting += count
        if first:
            self._first_waiting += count
            self._first_came = time.monotonic()
        self._wake.set()
        return asyncio.get_running_loop().create_future()

    def _check_room(self, count: int, *, first: bool) -> None:
        waiting = self._first_waiting if first else self._waiting - self._first_waiting
        if waiting and waiting + count > (FIRST_MAX if first else INBOX_MAX):
            raise Busy

    async def _repeat(self, key: bytes) -> Answer:
        try:
            told = await self._in_thread(lambda: answer_of(self.store, key))
        except LogUnavailable as error:
            raise Unavailable(f"it was carried out, its answer cannot be read now: {error}") from error
        return Answer(tuple(one.event for one in told), told[0].seq, told[-1].seq, repeated=True)

    # --- deciding and committing ------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._has_more() or self._open is not None or self._flying:
                    await self._turn()
        except asyncio.CancelledError:
            self._fail_all((Moved if self._lost else Unavailable)("the writer was closed"))
            raise
        except NotHeld as error:
            self._closing = self._lost = True
            self._fail_all(Moved(str(error)))
        except BaseException as error:  # noqa: BLE001  (whatever it is, stop and say so)
            log.critical("writer halted", tenant=str(self.tenant_id), error=str(error))
            self._halted = error
            self._fail_all(Halted(str(error)))

    async def _turn(self) -> None:
        if self._may_decide is not None and not self._may_decide():
            await self._wait_for_lease(self._may_decide)
        if self._has_more() and not self._is_full():
            await self._decide_slice()
        if self._may_take_off():
            self._take_off()
        elif self._flying[0].commit.done() and not self._has_bulk():
            await self._land(then_next=True)
        elif self._is_full():
            timeout = LOOKING_SECONDS if self._is_being_sent() else None
            await asyncio.wait([self._flying[0].commit], timeout=timeout)
        elif not self._has_more():
            await self._wait_for_more()
            return
        await asyncio.sleep(0)

    def _has_bulk(self) -> bool:
        """Whether so much waits that it is worth filling the group before the disk gets its next one."""
        return self._was_full_slice and self._has_more() and not self._is_full() and not self._first_waiting

    async def _wait_for_more(self) -> None:
        """Wait for a commit, or for somebody to decide about meanwhile."""
        if not self._flying[0].commit.done():
            self._wake.clear()
            await self._wake.wait()

    def _may_take_off(self) -> bool:
        """Whether nothing is in the way; a second group goes when the first is only waited for."""
        if not self._flying:
            return True
        opened, ahead = self._open, self._flying[0].opened.group
        return (
            opened is not None
            and len(self._flying) == 1
            and ahead.sent
            and len(opened.group.states) >= SECOND_MIN
        )

    def _is_being_sent(self) -> bool:
        """Whether a second group might go before what became of the first is known."""
        flight = self._flying[0]
        return len(self._flying) == 1 and not (flight.opened.group.sent or flight.commit.done())

    def _has_more(self) -> bool:
        return bool(self._first or self._inbox or self._again)

    async def _wait_for_lease(self, may_decide: Callable[[], bool]) -> None:
        """Decide nothing until the lease is renewed. Whoever takes it has this writer abandoned."""
        while self._flying:
            await self._land()
        began, undone = time.monotonic(), False
        while not may_decide():
            if self._closing or time.monotonic() - began > RECOVERY_SECONDS_MAX:
                undone = undone or self._open is not None
                # Who closes does not wait for a lease that another may have by now.
                self._fail_all((Moved if self._closing else Unavailable)("the lease cannot be renewed"))
                began = time.monotonic()
            await asyncio.sleep(LEASE_PAUSE_SECONDS)
        if undone:
            # What was decided and not sent is undone with the state it was decided on.
            await self._recover()

    def _is_full(self) -> bool:
        return self._open is not None and len(self._open.group.states) >= self._group_size()

    def _group_size(self) -> int:
        """Events that fill a group: the more wait, the more, for a commit costs something by itself."""
        if self._first_waiting:
            return GROUP_BESIDE
        return max(GROUP_USUAL, min(GROUP_MAX, self._waiting // GROUPS_AT_ONCE))

    async def _decide_slice(self) -> None:
        decider = self._deciding()
        taken = self._in_hand = self._take_slice()
        slice = Slice()
        for share in taken:
            share.enter(slice)
        if not await self._look_up(decider, slice):
            return
        now = self._clock()
        if self._open is None:
            decider.recorded_at = max(decider.recorded_at, now)
            self._open = _OpenGroup(Group(self.tenant_id, decider.head, decider.recorded_at))
        outcomes = decider.decide(slice, self._open.group, now)
        at = 0
        for share in taken:
            share.outcomes = outcomes[at : at + share.size]
            at += share.size
        self._open.shares += taken
        self._in_hand = []
        self._was_full_slice = len(slice.items) >= SLICE_MAX

    async def _look_up(self, decider: Decider, slice: Slice) -> bool:
        """Know what may have been seen long ago; False when the log does not answer."""
        keys = decider.to_look_up(slice)
        if not keys:
            return True
        try:
            found = await self._in_thread(lambda: decider.look_up(self.store, keys))
        except LogUnavailable as error:
            self._again.extendleft(reversed(self._in_hand))
            self._in_hand = []
            while self._flying:
                await self._land()
            # What was decided and not sent is undone with the state it was decided on.
            self._put_back([], unheard=False)
            await self._pause_after(error)
            await self._recover()
            return False
        for key, digest, status in found:
            decider.seen.remember(key, digest, status)
        return True

    def _take_slice(self) -> list[Share]:
        """What is decided next: first what was decided before its commit failed."""
        taken: list[Share] = []
        size = 0
        while self._again and (not taken or size + self._again[0].size <= SLICE_MAX):
            taken.append(self._again.popleft())
            size += taken[-1].size
        if taken:
            return taken
        taken = self._first.take(SLICE_MAX - BULK_SHARE if self._inbox else SLICE_MAX)
        room = SLICE_MAX - sum(share.size for share in taken)
        if self._inbox and time.monotonic() - self._first_came < BESIDE_SECONDS:
            room = min(room, SLICE_BESIDE)
        return taken + self._inbox.take(room)

    def _take_off(self) -> None:
        """Send the open group to the disk; one that stores nothing is answered at once."""
        opened = self._open
        if opened is None:
            return
        self._open = None
        if not opened.group.states:
            self._resolve(opened)
            return
        decider, store, group = self._deciding(), self.store, opened.group
        group.subject_keys = decider.sealer.take_unsaved()
        decider.head = Head(group.last, group.epoch, group.peaks)
        group.follows = self._flying[-1].stored if self._flying else None
        stored: Future[bool] = Future()
        sent = self._send(group, stored)
        loop = asyncio.get_running_loop()
        commit = sent or loop.run_in_executor(self._committing, lambda: _append(store, group, stored))
        commit.add_done_callback(self._hear)
        self._flying.append(_Flight(opened, commit, stored, by_loop=sent is not None))

    def _send(self, group: Group, stored: Future[bool]) -> asyncio.Future[None] | None:
        """A small group, by the loop itself, where the store knows how and nothing is on its way."""
        if self._sends is None or self._flying or not _is_small(group):
            return None
        commit = self._sends.send(group)
        if commit is not None:
            commit.add_done_callback(lambda commit: stored.set_result(_went_well(commit)))
        return commit

    def _hear(self, commit: asyncio.Future[None]) -> None:
        """What became of a commit is known to whom it concerns: where nobody asks, that is no mistake."""
        if not commit.cancelled():
            commit.exception()
        self._wake.set()

    async def _land(self, *, then_next: bool = False) -> None:
        """Wait for the oldest commit. Where it failed, none behind it was stored either.

        `then_next`: what was decided meanwhile is sent before those who waited are answered: the
        disk has nothing to do as long.
        """
        flight = self._flying[0]
        try:
            await flight.commit
        except (Fenced, LogUnavailable) as error:
            log.warning("commit failed, reading back", tenant=str(self.tenant_id), error=str(error))
            await asyncio.wait([behind.commit for behind in self._flying])
            flown = [flight.opened for flight in self._flying]
            self._flying.clear()
            self._put_back(flown, unheard=not isinstance(error, Fenced | KeyStored))
            self._count_failure(error)
            await self._pause_after(error)
            await self._recover()
            return
        self._flying.popleft()
        self._failing_since, self._failures_in_a_row, self._keys_stored_in_a_row = None, 0, 0
        try:
            if then_next and self._open is not None and self._open.group.states and self._may_take_off():
                self._take_off()
        finally:
            self._resolve(flight.opened)
        self._tell(flight.opened.group)

    def _tell(self, group: Group) -> None:
        """Whoever wants to know of a commit does not get to spoil it."""
        if self._on_commit is not None:
            try:
                self._on_commit(group)
            except Exception:
                log.exception("an observer of commits failed", tenant=str(self.tenant_id))

    async def _pause_after(self, error: Exception) -> None:
        """Wait a little longer after each failure; after too many, say so to all who wait."""
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        elif time.monotonic() - self._failing_since > RECOVERY_SECONDS_MAX:
            self._fail_all(Unavailable(f"the log takes nothing: {error}"))
            self._failing_since = None
        await asyncio.sleep(min(PAUSE_SECONDS * 2**self._failures_in_a_row, PAUSE_SECONDS_MAX))
        self._failures_in_a_row = min(self._failures_in_a_row + 1, 20)

    def _count_failure(self, error: Exception) -> None:
        """A key may have been stored unseen once; again and again it is our own mistake."""
        self._keys_stored_in_a_row = self._keys_stored_in_a_row + 1 if isinstance(error, KeyStored) else 0
        if self._keys_stored_in_a_row > KEYS_STORED_IN_A_ROW_MAX:
            raise InvariantBroken("a stored key is recognised", error=str(error))

    def _put_back(self, flown: "list[_OpenGroup]", *, unheard: bool) -> None:
        """Everything decided since the last commit is decided again, in the same order.

        Only where the answer went unheard may what was decided before have been stored: the oldest
        group, for one that follows another says its last word after that is stored.
        """
        groups = [*flown, self._open] if self._open is not None else flown
        shares = [share for group in groups for share in group.shares]
        oldest = len(flown[0].shares) if flown else 0
        for place, share in enumerate(shares):
            share.take_back(unheard=unheard and place < oldest)
        self._again.extendleft(reversed(shares))
        self._open = None

    async def _recover(self) -> None:
        """Take the log over and read the state back, until the database answers."""
        began, pause = time.monotonic(), PAUSE_SECONDS
        while True:
            try:
                self._decider = await self._in_thread(lambda: Decider.load(self.store, self._load_sealer))
                return
            except (Fenced, LogUnavailable) as error:
                closed = isinstance(error, LogClosed)
                if closed or time.monotonic() - began > RECOVERY_SECONDS_MAX:
                    self._fail_all(Unavailable(f"the log cannot be reached: {error}"))
                    began = time.monotonic()
                    if self._task is None:
                        raise Unavailable(str(error)) from error
                if pause > LOUD_PAUSE_SECONDS and not closed:
                    log.warning("the log is not reached", tenant=str(self.tenant_id), error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _deciding(self) -> Decider:
        assert self._decider is not None, "start the writer first"
        return self._decider

    # --- answering --------------------------------------------------------------------------

    def _resolve(self, opened: "_OpenGroup") -> None:
        for share in opened.shares:
            self._waiting -= share.size
            if share.goes_first:
                self._first_waiting -= share.size
            share.answer()

    def _fail_all(self, error: Exception) -> None:
        groups = [self._open] if self._open is not None else []
        groups += [flight.opened for flight in self._flying]
        decided = [share for group in groups for share in group.shares]
        for share in [*self._again, *self._in_hand, *decided]:
            share.fail(error)
        self._first.fail(error)
        self._inbox.fail(error)
        self._again.clear()
        self._in_hand = []
        self._open = None
        self._waiting = self._first_waiting = 0

    def _in_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work)


class _OpenGroup:
    """A group being decided, and whose shares wait for it."""

    __slots__ = ("group", "shares")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.shares: list[Share] = []


class _Flight(NamedTuple):
    """A group on its way to the disk."""

    opened: _OpenGroup
    commit: asyncio.Future[None]
    stored: Future[bool]
    """Whether it was, for the group that follows it: known in the thread that commits, before the loop."""
    by_loop: bool
    """Sent by the event loop itself, not by a thread."""


def _append(store: Log, group: Group, stored: Future[bool]) -> None:
    try:
        store.append(group)
    except BaseException:
        stored.set_result(False)
        raise
    stored.set_result(True)


def _is_small(group: Group) -> bool:
    return len(group.states) <= SEND_MAX and sum(map(len, group.states)) <= SEND_BYTES_MAX


def _went_well(commit: asyncio.Future[None]) -> bool:
    return not commit.cancelled() and commit.exception() is None
