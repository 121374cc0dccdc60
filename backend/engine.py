"""The engine: one writer per tenant in use, who keeps its views up, and who is told of a commit.

Everything that changes a tenant goes through here, whatever door it came in by.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog

from ..domain.bucket import Allocate
from ..domain.charging import UsageRejected, UsageSuspended
from ..domain.contract import SignContract
from ..domain.events import Recorded
from ..domain.inventory_dated import AnyCorrection
from ..domain.limit import SetLimit
from ..domain.limits_at_once import at_once
from ..domain.policy import SetPolicy
from ..domain.preparing import cold, is_worth_while
from ..domain.rating_job import StartRating
from ..domain.refusals import Refused
from ..domain.session import ReleaseSession, UpdateSession
from ..domain.tenant import Command, OpenTenant, Tenant
from ..domain.usage import Usage, UsageRecord
from ..projections.trees import Trees
from ..tenants.definition import DefinitionError
from ..tenants.isolation import SMALL_POOLS, Isolation
from ..tenants.lines import Unsealed
from ..tenants.onboarding import Definition, Step, TenantEntry, check_slug, enter, make_key, steps
from ..tenants.sealing import RootKey, Sealer, load_sealer
from .asking import Answer, Order, UsageOutcome, made_ready
from .authorising import AskUnits, StartSession
from .in_force import is_limited, is_ruled, turn_of
from .intake.numbers import is_region, normal_number
from .intake.tallying import Tallies
from .keeping_up import Follower, Keeper, Watcher
from .keys import command_key, session_key, usage_keys
from .leases import LeasedLog
from .log import Group, NotHeld, PostgresLog, answer_of
from .rating_jobs import RatingJobs
from .replica import Replicas
from .rerating import start_key
from .sharing import Sharing
from .snapshots import SnapshottedLog, snapshots_of
from .stopping import cancelled
from .stops import stop_told
from .timekeeping import Timekeeping
from .writer import Clock, Moved, Writer

THREADS_MAX = 16
COMMITS_MAX = SMALL_POOLS["appending"]
"""Large groups that are stored at once: as many as there are connections to copy them on."""
STEPS_AT_ONCE = 500
EXTENSION_DIGITS_MAX = 6
IDLE_SECONDS = 600.0
"""A tenant unused for so long leaves memory; its next use opens it again, from its snapshot."""
SWEEPS_PER_IDLE_TIME = 10

log = structlog.get_logger()
R = TypeVar("R")


def wall_clock() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


class Engine:
    """Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        isolation: Isolation,
        root: RootKey,
        *,
        clock: Clock = wall_clock,
        on_commit: Callable[[Group], None] | None = None,
        following: bool = True,
        projected_elsewhere: bool = False,
        idle_seconds: float = IDLE_SECONDS,
        sharing: Sharing | None = None,
    ) -> None:
        self.isolation = isolation
        self.root = root
        self.clock = clock
        self.on_commit = on_commit
        self.sharing = sharing
        """The other workers; None where this engine serves every tenant by itself."""
        self.on_leaving: Callable[[UUID], None] | None = None
        """Told of each tenant that is not served here any more."""
        self._following = following
        self._projected_elsewhere = projected_elsewhere
        self._executor = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="allotment")
        self._committing = ThreadPoolExecutor(COMMITS_MAX, thread_name_prefix="committing")
        """For commits alone: much else waits in threads, and snapshots do for commits."""
        self._writers: dict[UUID, asyncio.Task[Writer]] = {}
        self._followers: dict[UUID, Keeper] = {}
        self._starting: dict[UUID, asyncio.Future[None]] = {}
        self._idle_seconds = idle_seconds
        self._uses: dict[UUID, _Use] = {}
        self._looked_at: dict[UUID, float] = {}
        """When a tenant's follower was last asked for."""
        self._leaving: dict[UUID, asyncio.Task[None]] = {}
        self._abandoning: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self.time = Timekeeping(self)
        self.rating = RatingJobs(self)
        self.tallies = Tallies(self)
        self.trees = Trees()
        """Parts of hierarchies, for readers."""
        self._replicas = Replicas(isolation, self._executor)

    async def __aenter__(self) -> "Engine":
        if self.sharing is not None:
            await self.sharing.start(self)
        self._sweeping = asyncio.create_task(self._sweep(), name="idle-tenants")
        self.time.start()
        self.rating.start()
        self.tallies.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tallies.stop()
        await self.time.stop()
        await self.rating.stop()
        if self._sweeping is not None:
            await cancelled([self._sweeping])
        await asyncio.gather(*self._leaving.values(), *self._abandoning, return_exceptions=True)
        if self.sharing is not None:
            # Nobody finds the way back here.
            self.sharing.placement.takes_tenants = False
        for tenant, writer in self.open_writers().items():
            await self._close(writer)
            await self.time.leave_at_the_end(tenant, writer)
            if self.sharing is not None:
                await self.sharing.let_go_at_the_end(tenant)
        for opening in self._writers.values():
            opening.cancel()
        if self.sharing is not None:
            await self.sharing.stop()
        for follower in self._followers.values():
            await follower.close()
        self._executor.shutdown()
        self._committing.shutdown()

    # --- changing ---------------------------------------------------------------------------

    async def submit(
        self,
        tenant: UUID,
        command: Command | Unsealed,
        idempotency_key: str,
        actor: str,
        *,
        dry: bool = False,
    ) -> Answer:
        """Carry out a command once, durably; raises Refused, Busy, Unavailable or Halted.

        `dry`: only tell what it would lead to.
        """
        return await self.carry_out(tenant, Order(command, command_key(idempotency_key), dry), actor)

    async def carry_out(self, tenant: UUID, order: Order, actor: str) -> Answer:
        """The same, for a command whose key is made already."""
        if self.sharing is None:
            return await self.carry_out_here(tenant, order, actor)
        return await self.sharing.carry_out(tenant, order, actor)

    async def begin_rating(self, tenant: UUID, command: StartRating | AnyCorrection, actor: str) -> Answer:
        """Begin to rate charges again, once for each name of a job; it is carried on by itself."""
        return await self.carry_out(tenant, Order(command, start_key(command.job)), actor)

    async def charge(
        self,
        tenant: UUID,
        records: Sequence[Usage],
        actor: str,
        positions: Sequence[str] = (),
        *,
        first: bool = False,
    ) -> list[UsageOutcome]:
        """Charge records, each once for ever; one outcome each, after the commit.

        `first`: somebody waits for leave to go on; they go before bulk usage.
        """
        if len(records) == 1 and (writer := self._open_here(tenant)) is not None:
            # Who comes with one record pays for each step on the way: there are none but these.
            try:
                return await writer.submit_one(
                    records[0], actor, positions[0] if positions else "", first=first
                )
            except Moved:
                self._drop_lost(tenant, writer)
                if self.sharing is None:
                    raise
        if self.sharing is None:
            return await self.charge_here(tenant, records, actor, positions, first=first)
        if self.sharing.holds(tenant):
            with contextlib.suppress(Moved):
                return await self.charge_here(tenant, records, actor, positions, first=first)
        return await self.sharing.charge(tenant, records, actor, positions, first=first)

    def _open_here(self, tenant: UUID) -> Writer | None:
        """The tenant's writer, where it is open and this engine's to use."""
        if self.sharing is not None and not self.sharing.holds(tenant):
            return None
        opening = self._writers.get(tenant)
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        return opening.result()

    async def carry_out_here(self, tenant: UUID, order: Order, actor: str) -> Answer:
        """By the writer of this engine; raises Moved where the tenant is another's."""
        with self._use(tenant):
            writer = await self.writer(tenant)
            if is_worth_while(order.command, writer.state.tariffs):
                order = await self._made_ready(writer, order)
            try:
                return await writer.carry_out(order, actor)
            except Moved:
                self._drop_lost(tenant, writer)
                raise

    async def _made_ready(self, writer: Writer, order: Order) -> Order:
        state, now = writer.state, self.clock()
        seen, about = state.tariffs.copied(), state.about_tariffs()
        return await self.in_thread(lambda: made_ready(order, seen, about, now))

    async def charge_here(
        self,
        tenant: UUID,
        records: Sequence[Usage],
        actor: str,
        positions: Sequence[str] = (),
        *,
        first: bool = False,
    ) -> list[UsageOutcome]:
        """By the writer of this engine; raises Moved where the tenant is another's."""
        with self._use(tenant):
            writer = await self.writer(tenant)
            try:
                return await writer.submit_usage(records, actor, positions, first=first)
            except Moved:
                self._drop_lost(tenant, writer)
                raise

    async def authorise(
        self, tenant: UUID, command: StartSession | AskUnits | UpdateSession | ReleaseSession, actor: str
    ) -> Answer:
        """Open a session, report on it or end it; once for each of its numbers. Raises as `submit`."""
        if isinstance(command, StartSession):
            source, session = command.record.source, command.record.record_id
        else:
            source, session = command.source, command.session
        key = session_key(source, session, command.number, self.clock())
        return await self.carry_out(tenant, Order(command, key), actor)

    async def charge_now(self, tenant: UUID, record: UsageRecord, actor: str) -> UsageOutcome:
        """Charge one record for which somebody waits, before bulk usage; sent again, the first answer."""
        outcome = (await self.charge(tenant, [record], actor, first=True))[0]
        if outcome.status != "duplicate":
            return outcome
        if outcome.reason:
            return msgspec.structs.replace(outcome, status="suspended")
        keys = usage_keys(record.source, record.record_id, record.started_at)
        told = await self.in_thread(lambda: answer_of(PostgresLog(self.isolation, tenant), *keys))
        return _outcome_of(told[0], await self.state(tenant)) if told else outcome

    @contextmanager
    def using(self, tenant: UUID) -> Iterator[None]:
        """While this lasts the tenant's writer is not taken for idle."""
        with self._use(tenant):
            yield

    async def create_tenant(self, entry: TenantEntry, actor: str) -> None:
        """Open a tenant's log and enter it in the directory; raises Refused, or SlugTaken.

        Interrupted in between it leaves a log that nobody can name, and the slug free.
        """
        opened = OpenTenant(entry.name, entry.time_zone, entry.currency, entry.carrier)
        Tenant().decide(opened, self.clock())
        await self.in_thread(lambda: check_slug(self.isolation, entry.slug))
        await self.in_thread(lambda: make_key(self.isolation, self.root, entry.tenant_id))
        await self.submit(entry.tenant_id, opened, "open", actor)
        await self.in_thread(lambda: enter(self.isolation, entry))

    async def apply_definition(self, tenant: UUID, definition: Definition, actor: str) -> int:
        """Carry out a definition; how many of its steps were new. Raises the first refusal.

        Steps go out together: those beside a refused one may have been carried out.
        """
        state = await self.state(tenant)
        todo = list(steps(definition, state.contracts.zone, normal_line))
        new = 0
        for together in _together(todo):
            # What the running period is called follows from the contract.
            state = await self.state(tenant)
            todo_now = [step for step in together if not _is_done(step, state, self.clock())]
            new += await self._limit_at_once(tenant, todo_now, state, actor)
            asked = [self._carry_out_step(tenant, step, state, actor) for step in todo_now]
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer
                new += not answer.repeated
        return new

    async def _limit_at_once(self, tenant: UUID, todo: list[Step], state: Tenant, actor: str) -> int:
        """Set the limits among some steps in one command, and strike them off; how many were new.

        Where that is refused they stay, and each is asked by itself: so the one that is wrong is told.
        """
        limiting = [step for step in todo if isinstance(step.command, SetLimit)]
        if len(limiting) < 2:
            return 0
        keys = "\x1f".join(_key_of(step, state, self.clock()) for step in limiting)
        command = at_once(step.command for step in limiting if isinstance(step.command, SetLimit))
        key = command_key(f"definition:limits:{sha256(keys.encode()).hexdigest()}")
        try:
            answer = await self.carry_out(tenant, Order(command, key), actor)
        except Refused:
            return 0
        todo[:] = [step for step in todo if not isinstance(step.command, SetLimit)]
        return 0 if answer.repeated else len(limiting)

    async def _carry_out_step(self, tenant: UUID, step: Step, state: Tenant, actor: str) -> Answer:
        key = command_key(_key_of(step, state, self.clock()))
        try:
            return await self.carry_out(tenant, Order(step.command, key), actor)
        except Refused as refusal:
            raise Refused(refusal.code, step=step.about, **refusal.facts) from None

    async def writer(self, tenant: UUID) -> Writer:
        """The tenant's writer, opened at first use. Ask for it again after a pause: it may have left.

        Moved where another worker serves the tenant: use `charge` and `submit`, which find the way there.
        """
        self._use(tenant).last = time.monotonic()
        opening = self._writers.get(tenant)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._writers[tenant] = asyncio.create_task(self._open_writer(tenant))
        # The task of an open writer is done: to wait for it would cost more than deciding a charge.
        return opening.result() if opening.done() else await asyncio.shield(opening)

    def open_writers(self) -> dict[UUID, Writer]:
        """The tenants in use now."""
        return {
            tenant: opening.result()
            for tenant, opening in self._writers.items()
            if opening.done() and not opening.cancelled() and opening.exception() is None
        }

    async def state(self, tenant: UUID) -> Tenant:
        """The state decisions are made on, for a look. It may be a group ahead of the disk.

        Where another worker serves the tenant: who exists and what is agreed, and no balances.
        """
        if self.sharing is None or self.sharing.holds(tenant):
            with contextlib.suppress(Moved):
                return (await self.writer(tenant)).state
        return await self._replicas.state(tenant)

    async def _open_writer(self, tenant: UUID) -> Writer:
        leaving = self._leaving.get(tenant)
        if leaving is not None:
            await asyncio.wait([leaving])
        if self.sharing is not None:
            await self.sharing.be_there(tenant)
        writer = Writer(
            tenant,
            self._log_of(tenant),
            lambda: load_sealer(self.isolation, self.root, tenant),
            self.clock,
            self._executor,
            self._committed,
            self.sharing.placement.is_safe if self.sharing is not None else None,
            self._committing,
        )
        try:
            await writer.start()
        except NotHeld as error:
            self._not_ours(tenant)
            raise Moved(str(error)) from error
        await self._warm(writer)
        self._replicas.drop(tenant)
        self.follower(tenant)
        return writer

    def _log_of(self, tenant: UUID) -> SnapshottedLog:
        if self.sharing is None:
            return SnapshottedLog(self.isolation, tenant, self._executor)
        leased = LeasedLog(self.isolation, tenant, self._executor)
        leased.worker_id = self.sharing.placement.me
        return leased

    def reading_log(self, tenant: UUID) -> SnapshottedLog:
        """The tenant's log, for whoever only reads it, with its snapshots beside it."""
        return SnapshottedLog(self.isolation, tenant, self._executor)

    def _tell_leaving(self, tenant: UUID) -> None:
        if self.on_leaving is not None:
            self.on_leaving(tenant)

    # --- among other workers ------------------------------------------------------------------

    def adopt(self, tenant: UUID) -> None:
        """Serve a tenant whose worker is gone."""
        assert self.sharing is not None
        self.sharing.adopt(tenant)

    async def hand_over(self, tenant: UUID, successor: UUID) -> None:
        """Finish what has been taken, and let another worker serve the tenant from here on."""
        assert self.sharing is not None
        opening = self._writers.get(tenant)
        if opening is not None:
            writer = await asyncio.shield(opening)
            if self._writers.pop(tenant, None) is not None:
                leaving = self._leaving[tenant] = asyncio.create_task(self._leave(tenant, writer, successor))
                await asyncio.shield(leaving)
                return
        await self.sharing.give(tenant, successor)

    def abandon(self, tenant: UUID) -> None:
        """Another worker has the lease: stop at once, and send whoever waits there."""
        opening = self._writers.pop(tenant, None)
        self._uses.pop(tenant, None)
        if opening is not None:
            self._tell_leaving(tenant)
            task = asyncio.create_task(self._abandoned(opening))
            self._abandoning.add(task)
            task.add_done_callback(self._abandoning.discard)

    async def _abandoned(self, opening: "asyncio.Task[Writer]") -> None:
        try:
            writer = await asyncio.shield(opening)
        except Exception:  # noqa: BLE001  (whoever waits for it has been told)
            return
        await writer.abandon()

    def _drop_lost(self, tenant: UUID, writer: Writer) -> None:
        """A writer that found its log taken over is of no more use."""
        opening = self._writers.get(tenant)
        if writer.lost and opening is not None and opening.done() and opening.result() is writer:
            del self._writers[tenant]
            self._not_ours(tenant)
            self._tell_leaving(tenant)

    def _not_ours(self, tenant: UUID) -> None:
        if self.sharing is not None:
            self.sharing.placement.drop(tenant)

    # --- leaving memory -----------------------------------------------------------------------

    async def close_idle(self) -> None:
        """Let go of what nobody has used for a while: writers with a snapshot, then followers."""
        before = time.monotonic() - self._idle_seconds
        for tenant, writer in self.open_writers().items():
            if self._use(tenant).is_over(writer, before) and not self._is_due_soon(writer):
                # From here to the next use nobody can be handed this writer.
                del self._writers[tenant], self._uses[tenant]
                self._leaving[tenant] = asyncio.create_task(self._leave(tenant, writer))
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        for tenant, follower in list(self._followers.items()):
            if tenant not in self._writers and self._looked_at[tenant] < before and not follower.is_busy:
                del self._followers[tenant], self._looked_at[tenant]
                self._starting.pop(tenant, None)
                await follower.close()

    def _is_due_soon(self, writer: Writer) -> bool:
        """Whether it would be woken at once again."""
        if writer.state.sessions.open:
            return True
        due = writer.state.next_due()
        return due is not None and due < self.clock() + int(self._idle_seconds * 1_000_000)

    async def _leave(self, tenant: UUID, writer: Writer, successor: UUID | None = None) -> None:
        try:
            self._tell_leaving(tenant)
            await self._close(writer)
            await self.time.leave(tenant, writer)
            if self.sharing is not None:
                await self.sharing.let_go(tenant, successor)
        except Exception:
            log.exception("an idle tenant did not leave as it should", tenant=str(tenant))
        finally:
            del self._leaving[tenant]

    async def _close(self, writer: Writer) -> None:
        await writer.close()
        snapshots = snapshots_of(writer.store)
        if snapshots is not None:
            await self.in_thread(snapshots.close)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._idle_seconds / SWEEPS_PER_IDLE_TIME)
            await self.close_idle()
            for writer in self.open_writers().values():
                await self._warm(writer)

    async def _warm(self, writer: Writer) -> None:
        """Compile large tariffs that hold, or begin to before the next look: usage should not wait for it."""
        for tariff in cold(writer.state.tariffs, self.clock(), int(self._idle_seconds * 1_000_000)):
            await self.in_thread(tariff.compile)

    def _use(self, tenant: UUID) -> "_Use":
        use = self._uses.get(tenant)
        if use is None:
            use = self._uses[tenant] = _Use()
        return use

    # --- reading ----------------------------------------------------------------------------

    def follower(self, tenant: UUID) -> Keeper:
        """Keeps the tenant's views up to date from the first look on, or knows how far a projector is."""
        self._looked_at[tenant] = time.monotonic()
        follower = self._followers.get(tenant)
        if follower is None:
            kind = Watcher if self._projected_elsewhere else Follower
            follower = self._followers[tenant] = kind(self.isolation, tenant, executor=self._executor)
            if self._following and not self._projected_elsewhere:
                self._starting[tenant] = asyncio.ensure_future(follower.start())
        return follower

    def shown(self, tenant: UUID, seq: int) -> None:
        """A projector says how far this tenant's views are: who waits for that need not look."""
        follower = self._followers.get(tenant)
        if isinstance(follower, Watcher):
            follower.shown(seq)

    async def sealer(self, tenant: UUID) -> Sealer:
        """For reading personal fields: with the keys stored now, so that who was erased stays erased."""
        return await self.in_thread(lambda: load_sealer(self.isolation, self.root, tenant))

    async def in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _committed(self, group: Group) -> None:
        follower = self._followers.get(group.tenant)
        if follower is not None:
            follower.notify(group.last)
        if self.on_commit is not None:
            self.on_commit(group)


class _Use:
    """How many requests hold a tenant's writer now, and when it was last used."""

    __slots__ = ("asked", "last", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.last = time.monotonic()
        self.asked = 0
        """Of the writer, when it was last looked at."""

    def __enter__(self) -> None:
        self.requests += 1

    def __exit__(self, *_: object) -> None:
        self.requests -= 1
        self.last = time.monotonic()

    def is_over(self, writer: Writer, before: float) -> bool:
        """Whether nobody has used the writer since; one that halted waits for somebody to look."""
        if writer.asked != self.asked:
            self.asked, self.last = writer.asked, time.monotonic()
        return not self.requests and not writer.waiting and self.last < before and not writer.halted


def _outcome_of(told: Recorded, state: Tenant) -> UsageOutcome:
    """What became of a record, as its event tells."""
    match told.event:
        case UsageRejected() as event:
            return UsageOutcome("rejected", event.reason, told.seq, stop_told(event, state))
        case UsageSuspended() as event:
            return UsageOutcome("suspended", event.reason, told.seq, event.detail, field=event.field)
    return UsageOutcome("charged", "", told.seq)


def _together(todo: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Steps that may go out at once: contracts, and what comes before them, go first."""
    agreed = max(
        (at + 1 for at, step in enumerate(todo) if isinstance(step.command, SignContract)), default=0
    )
    for part in (todo[:agreed], todo[agreed:]):
        for first in range(0, len(part), STEPS_AT_ONCE):
            yield part[first : first + STEPS_AT_ONCE]


def _is_done(step: Step, state: Tenant, now: int) -> bool:
    """Whether a limit or policy asks for what is in force: a file may be applied again."""
    match step.command:
        case SetPolicy():
            return is_ruled(step.command, state, now)
        case SetLimit():
            return is_limited(step.command, state, now)
    return False


def _key_of(step: Step, state: Tenant, now: int) -> str:
    """A limit may be set back to what it was; an allocation of the running period comes each month."""
    match step.command:
        case SetLimit() | SetPolicy():
            return f"{step.key}:{turn_of(step.command, state)}"
        case Allocate(period=""):
            return f"{step.key}:{state.contracts.name_at(now)}"
        case _:
            return step.key


def normal_line(line: str, region: str) -> str:
    """A line as intake would write it, so that usage finds its resource."""
    if region and not is_region(region):
        raise DefinitionError(f'region: {region!r} is no country such as "GB"')
    return normal_number(line, region, EXTENSION_DIGITS_MAX)


def moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
