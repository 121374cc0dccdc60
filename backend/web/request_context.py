"""What a GraphQL request can do: the engine, bound to one principal and the tenant of its token."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TypeVar
from uuid import UUID

import psycopg

from ...domain.difference import Difference
from ...domain.events import Recorded
from ...domain.inventory import CorrectInventory
from ...domain.inventory_dated import AnyCorrection
from ...domain.limit import SetLimit
from ...domain.policy import SetPolicy
from ...domain.rating_job import Scope, StartRating
from ...domain.tenant import Command, Tenant
from ...domain.trying import Trial
from ...graphql.context import CorrectionStanding, TryAgain, Unreadable
from ...projections.trees import Trees
from ...tenants.access import NotPermitted
from ...tenants.identity import Principal
from ...tenants.isolation import Connection
from ...tenants.lines import LINES_IN_CLEAR, TakeStock, Unsealed, label_token
from ..asking import Answer, Order
from ..engine import Engine, normal_line
from ..feeding import Feeds
from ..keys import command_key
from ..log import COLUMNS, LogUnavailable, PostgresLog, Row, answer_of, recorded
from ..looking_back import past, seq_at
from ..notifying.queue import notice_id
from ..rating_jobs import elsewhere
from ..rerating import start_key
from ..trying_out import TooLong, limits_of, policy_of, rules_for, try_out
from ..writer import Busy, Halted, Unavailable
from .corrections import TenantCorrections
from .outlets import TenantOutlets

VIEWS_SECONDS_MAX = 5.0
"""How long an answer waits for the views to show a write."""
RETRY_AFTER_MS = 500
HALTED_RETRY_AFTER_MS = 60_000

PRESENT_AT_ONCE = 8
PAST_AT_ONCE = 2
"""Readings in threads. Commits need threads too, and looking far back takes long."""

TRIED_EVENTS_MAX = 200_000
"""A longer log is tried on the command line, which tells how far it is."""

R = TypeVar("R")


class Turns:
    """Who may read now: made once for an app."""

    def __init__(self) -> None:
        self.present = asyncio.Semaphore(PRESENT_AT_ONCE)
        self.past = asyncio.Semaphore(PAST_AT_ONCE)


class Surroundings:
    """What of the app a request needs besides the engine: made once for an app."""

    def __init__(self, feeds: Feeds, *, private_webhooks: bool) -> None:
        self.feeds = feeds
        self.private_webhooks = private_webhooks


class RequestContext:
    """One request's `allotment.graphql.context.Context`."""

    def __init__(
        self, engine: Engine, principal: Principal, turns: Turns, around: "Surroundings | None" = None
    ) -> None:
        self._engine = engine
        self._principal = principal
        self._turns = turns
        self._around = around

    @property
    def outlets(self) -> TenantOutlets:
        return TenantOutlets(
            self._engine,
            self.tenant_id,
            self._in_thread,
            private=self._around is not None and self._around.private_webhooks,
        )

    @property
    def corrections(self) -> TenantCorrections:
        return TenantCorrections(self._engine, self.tenant_id, self._principal.actor, self._visible)

    @property
    def principal(self) -> Principal:
        return self._principal

    @property
    def trees(self) -> Trees:
        return self._engine.trees

    @property
    def tenant_id(self) -> UUID:
        tenant_id = self._principal.tenant_id
        if tenant_id is None:
            raise NotPermitted("read", "none", "use a token that names a tenant")
        return tenant_id

    def now(self) -> int:
        return self._engine.clock()

    async def state(self) -> Tenant:
        try:
            return await self._engine.state(self.tenant_id)
        except (Unavailable, LogUnavailable) as error:
            raise _unavailable() from error

    async def submit(self, command: Command | Unsealed, idempotency_key: str, *, dry: bool = False) -> Answer:
        if isinstance(command, LINES_IN_CLEAR):
            command = command.normalised(lambda line: normal_line(line, ""))
        # Under a prefix: no caller's key can be one that we give to commands of our own.
        return await self._carry_out(Order(command, command_key(f"api:{idempotency_key}"), dry))

    async def _carry_out(self, order: Order) -> Answer:
        try:
            answer = await self._engine.carry_out(self.tenant_id, order, self._principal.actor)
        except Busy as busy:
            raise TryAgain("busy", str(busy), busy.retry_after_ms) from None
        except (Unavailable, LogUnavailable) as error:
            raise _unavailable() from error
        except Halted as error:
            raise TryAgain(
                "halted", "the tenant takes no changes until its operator has looked", HALTED_RETRY_AFTER_MS
            ) from error
        await self._visible(answer.last_seq)
        return answer

    async def read(
        self,
        query: Callable[[Connection], R],
        views: Sequence[str],
        *,
        as_of: int | None = None,
        at_least: int = 0,
    ) -> tuple[int, R]:
        if as_of is None:
            await self._visible(at_least)
            return await self._in_thread(lambda: self._present(query, views))
        return await self._in_thread(lambda: self._past(query, views, as_of), self._turns.past)

    def _present(self, query: Callable[[Connection], R], views: Sequence[str]) -> tuple[int, R]:
        with self._engine.isolation.snapshot(self.tenant_id) as db:
            found = db.execute(
                "SELECT min(seq) FROM projection_positions WHERE projection = ANY(%s)", (list(views),)
            ).fetchone()
            seq = found[0] if found and found[0] is not None else 0
            return seq, query(db)

    def _past(self, query: Callable[[Connection], R], views: Sequence[str], seq: int) -> tuple[int, R]:
        try:
            with past(self._engine.isolation, self.tenant_id, seq, views) as db:
                return seq, query(db)
        except LookupError as error:
            raise Unreadable(str(error)) from error

    async def try_policy(
        self, policy: SetPolicy, limits: Sequence[SetLimit], starts_at: int, ends_at: int
    ) -> tuple[int, Trial]:
        state, now = await self.state(), self.now()
        along = limits_of(state, limits, now)
        trial = Trial(policy_of(state, policy, now), rules_for(state, along, now), starts_at, ends_at)
        sealer = await self._engine.sealer(self.tenant_id)
        isolation, tenant = self._engine.isolation, self.tenant_id
        try:
            seq = await self._in_thread(
                lambda: try_out(isolation, tenant, sealer, trial, events_max=TRIED_EVENTS_MAX),
                self._turns.past,
            )
        except TooLong as error:
            raise Unreadable(str(error)) from error
        return seq, trial

    def normal(self, line: str, region: str) -> str:
        return normal_line(line, region)

    async def dated(self, stock: TakeStock, job: str, shown: str) -> CorrectInventory:
        return stock.corrected_by(await self._engine.sealer(self.tenant_id), job, shown)

    async def preview_rating(
        self, scope: Scope, correction: AnyCorrection | None = None
    ) -> tuple[int, Difference]:
        if await self._in_thread(self._head) > TRIED_EVENTS_MAX:
            raise Unreadable(f"the log has more than {TRIED_EVENTS_MAX} events: `allotment rerate --dry-run`")
        async with self._turns.past:
            return await self._engine.rating.preview(self.tenant_id, scope, correction=correction)

    def _head(self) -> int:
        return PostgresLog(self._engine.isolation, self.tenant_id).head().seq

    async def start_rating(self, command: StartRating | AnyCorrection, *, dry: bool = False) -> Answer:
        return await self._carry_out(Order(command, start_key(command.job), dry))

    async def was_begun(self, job: str) -> bool:
        return bool(await self.answer_to(start_key(job)))

    async def correction_standing(self, job: str) -> CorrectionStanding:
        reached = self._engine.rating.reached.get((self.tenant_id, job))
        state = await self.state()
        runs = state.rerating.jobs.get(job)
        sessions = 0 if runs is None else sum(1 for _ in elsewhere(state, runs.started.scope))
        if reached is None:
            return CorrectionStanding(None, None, sessions)
        return CorrectionStanding(reached.seq, reached.of, sessions)

    def rating_reached(self, job: str) -> int | None:
        reached = self._engine.rating.reached.get((self.tenant_id, job))
        return reached.seq if reached is not None else None

    async def seq_at(self, recorded_at: int) -> int:
        return await self._in_thread(lambda: seq_at(self._engine.isolation, self.tenant_id, recorded_at))

    def follow(self, topics: Collection[str], after: int | None) -> AsyncIterator[Sequence[Recorded]]:
        assert self._around is not None, "an app has feeds"
        return self._around.feeds.follow(self.tenant_id, topics, after)

    def notice_id(self, seq: int) -> str:
        return notice_id(self.tenant_id, seq)

    async def events(self, seqs: Sequence[int]) -> list[Recorded]:
        if not seqs:
            return []
        return await self._in_thread(lambda: self._events(seqs))

    def _events(self, seqs: Sequence[int]) -> list[Recorded]:
        with self._engine.isolation.transaction(self.tenant_id) as db:
            found = db.execute(_EVENTS, (list(seqs),), binary=True).fetchall()
        return [recorded(Row(*row)) for row in found]

    async def answer_to(self, command_key: bytes) -> list[Recorded]:
        log = PostgresLog(self._engine.isolation, self.tenant_id)
        return await self._in_thread(lambda: answer_of(log, command_key))

    async def opened(self, subjects: Sequence[bytes], sealed: bytes, context: bytes) -> bytes | None:
        sealer = await self._engine.sealer(self.tenant_id)
        for subject in subjects:
            plain = sealer.open(subject, sealed, context)
            if plain is not None:
                return plain
        return None

    async def label_token(self, label: str) -> bytes:
        return label_token(label, await self._engine.sealer(self.tenant_id))

    async def _visible(self, seq: int) -> None:
        follower = self._engine.follower(self.tenant_id)
        try:
            await follower.wait_for(seq, VIEWS_SECONDS_MAX)
        except TimeoutError:
            raise TryAgain(
                "not_visible_yet", f"the views have not reached event {seq} yet: ask again", RETRY_AFTER_MS
            ) from None

    async def _in_thread(self, work: Callable[[], R], turn: asyncio.Semaphore | None = None) -> R:
        async def taken() -> R:
            async with turn or self._turns.present:
                return await self._engine.in_thread(work)

        try:
            # A thread cannot be stopped: whoever gives up waiting leaves its turn taken until it ends.
            return await asyncio.shield(taken())
        except (LogUnavailable, psycopg.OperationalError) as error:
            raise _unavailable() from error


def _unavailable() -> TryAgain:
    return TryAgain("unavailable", "the log cannot be reached: send the same again", RETRY_AFTER_MS)


_EVENTS = f"SELECT {COLUMNS} FROM events WHERE seq = ANY(%s) ORDER BY seq"
