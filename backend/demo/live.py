"""The demonstration, live: the API with logins, usage that flows in, and a line now and then.

Usage takes the way of a carrier's: published to NATS, charged by the messenger, seen by the
views. What is narrated was committed.
"""

import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import nats
from msgspec import Struct
from nats.aio.client import Client
from nats.errors import Error as NatsError

from ...domain.charging import UsageRejected
from ...domain.limit import ThresholdCrossed
from ...tenants.issuer import DevelopmentClient, DevelopmentIssuer
from ...tenants.onboarding import TenantEntry
from ..app import create_app
from ..believing import development_issuer, issuer_address, verifier_for
from ..commands.output import amount, note, say, table
from ..engine import Engine
from ..log import Group, recorded
from ..messaging import Messenger, usage_subject
from ..notifying.notifying import notifying
from ..running import Product
from ..serving import serve_until, serving
from ..stopping import until_told
from . import story, traffic
from .enterprises import CARRIER, POOL
from .stage import Stage, costs, onboard, play_history, pool_left

TICK_SECONDS = 0.5
NARRATE_SECONDS = 10.0
TOLD_AT_ONCE_MAX = 3
"""Events told one by one per tick; at a high speed the rest would only scroll by."""
TOLD_TOPICS = ("limit.threshold_crossed", "usage.rejected")
TOKEN_SECONDS = 24 * 3600

QUERY = "{ hierarchy(depth: 2) { nodes { id name balances { usageType own remaining subtree { used } } } } }"


class Login(Struct, frozen=True):
    """Somebody of the story who may ask for tokens."""

    who: str
    client_id: str
    entry: TenantEntry
    role: str
    nodes: tuple[str, ...] = ()


class Pace:
    """How many records flow in a second; whoever types a number changes it."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second

    @contextmanager
    def from_keyboard(self) -> Iterator[None]:
        """Where somebody sits at a terminal, what they type sets the pace."""
        if not sys.stdin or not sys.stdin.isatty():
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, self._read)
        try:
            yield
        finally:
            loop.remove_reader(sys.stdin)

    def _read(self) -> None:
        typed = sys.stdin.readline()
        if not typed:
            asyncio.get_running_loop().remove_reader(sys.stdin)
            return
        try:
            self.per_second = min(10_000.0, max(0.0, float(typed)))
        except ValueError:
            note("Type a number of records per second, and Enter.")
        else:
            note(f"Usage flows with {self.per_second:g} records per second.")


async def present(product: Product, started: float, *, speed: float, keep: bool) -> None:
    """Set the stage, open the doors, and let usage flow until somebody says stop."""
    async with product.engine(serves=True) as engine:
        narrator = Narrator()
        messenger = Messenger(engine, product.nats_url)
        stage, again = await onboard(product, engine, reuse=keep, tell=note)
        if again:
            note("Found the enterprises of an earlier demo, and goes on with them.")
        else:
            await play_history(engine, stage, note)
            await story.play(product, engine, stage, note)

        def committed(group: Group) -> None:
            messenger.committed(group)
            narrator.committed(group)

        engine.on_commit = committed
        issuer = development_issuer(product.settings)
        verifier = verifier_for(product.settings, issuer)
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=product.settings)
        settings = product.settings
        async with (
            messenger,
            notifying(product, engine),
            serving(app, settings.host, settings.port) as server,
        ):
            _say_where(product, stage, issuer, time.monotonic() - started)
            flowing = asyncio.create_task(
                _flow(product, engine, stage, narrator, Pace(speed)), name="live usage"
            )
            try:
                await serve_until(until_told(), server, flowing)
            finally:
                flowing.cancel()
                await asyncio.gather(flowing, return_exceptions=True)
        note("\nStopping ...")


# --- who may come in, and where ------------------------------------------------------------------


def _logins(stage: Stage) -> list[Login]:
    acme, globex = stage.entries
    return [
        Login(f"carrier ({CARRIER})", "carrier", acme, "carrier"),
        Login("telecoms manager", "manager", acme, "telecoms_manager"),
        Login("cost-centre manager, London", "london", acme, "telecoms_manager", ("london",)),
        Login("auditor", "auditor", acme, "auditor"),
        Login("telecoms manager", "globex-manager", globex, "telecoms_manager"),
    ]


def _say_where(product: Product, stage: Stage, issuer: DevelopmentIssuer | None, seconds: float) -> None:
    address = issuer_address(product.settings)
    say()
    say(f"Allotment is up after {seconds:.0f} s.")
    say()
    say(table(("what", "where"), _addresses(product, address)))
    say()
    if issuer is None:
        say("Tokens come from your identity provider: ALLOTMENT_ISSUER is set.")
    else:
        _say_logins(stage, issuer, address)
    say("Ctrl-C stops everything." + (" Type a number to change the speed." if sys.stdin.isatty() else ""))
    say()
    sys.stdout.flush()


def _addresses(product: Product, address: str) -> list[tuple[str, str]]:
    return [
        ("GraphQL, and GraphiQL in a browser", f"{address}/graphql"),
        ("usage, as NDJSON", f"{address}/v1/usage"),
        ("tokens, for the logins below", f"{address}/oauth/token"),
        ("health, and figures", f"{address}/healthz  {address}/metrics"),
        ("PostgreSQL", _without_password(product.database_url)),
        ("NATS", product.nats_url),
    ]


def _say_logins(stage: Stage, issuer: DevelopmentIssuer, address: str) -> None:
    logins = _logins(stage)
    rows = []
    for login in logins:
        secret = secrets.token_urlsafe(9)
        issuer.register(
            DevelopmentClient(login.client_id, secret, login.entry.tenant_id, (login.role,), login.nodes)
        )
        rows.append((login.who, login.entry.slug, login.client_id, secret))
    say(table(("login", "tenant", "client id", "secret"), rows))
    manager = next(row for row in rows if row[2] == "manager")
    say()
    say("A token for any of them:")
    say(f"  curl -s {address}/oauth/token -u {manager[2]}:{manager[3]} -d grant_type=client_credentials")
    say()
    say("What the telecoms manager sees, to paste:")
    say(f"  {curl(address, _token(issuer, logins[1]), QUERY)}")
    say()


def _token(issuer: DevelopmentIssuer, login: Login) -> str:
    return issuer.mint(
        login.client_id, login.entry.tenant_id, (login.role,), login.nodes, lifetime_seconds=TOKEN_SECONDS
    )


def curl(address: str, token: str, query: str) -> str:
    """A command that works when pasted."""
    body = json.dumps({"query": query})
    return (
        f"curl -s {address}/graphql -H 'Authorization: Bearer {token}'"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    credentials, at, where = rest.rpartition("@")
    user = credentials.partition(":")[0] if ":" in credentials else ("" if scheme == "nats" else credentials)
    return f"{scheme}{separator}{user}{at if user else ''}{where}"


# --- usage that flows ----------------------------------------------------------------------------


async def _flow(product: Product, engine: Engine, stage: Stage, narrator: "Narrator", pace: Pace) -> None:
    client = await nats.connect(product.nats_url, max_reconnect_attempts=-1, error_cb=_quiet)
    chance = random.Random()  # noqa: S311  (live usage need not be repeatable)
    owed, last = 0.0, time.monotonic()
    try:
        with pace.from_keyboard():
            while True:
                await asyncio.sleep(TICK_SECONDS)
                now = time.monotonic()
                owed += pace.per_second * (now - last)
                last = now
                count, owed = int(owed), owed % 1
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await _publish(client, engine, stage, chance, count)
                await narrator.tell(engine, stage)
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await client.close()


async def _publish(client: Client, engine: Engine, stage: Stage, chance: random.Random, count: int) -> None:
    """So many records, two of three Acme's, one message for each tenant."""
    now = datetime.fromtimestamp(engine.clock() // 1_000_000, UTC)
    lines: tuple[list[bytes], list[bytes]] = ([], [])
    for _ in range(count):
        which = int(chance.random() < 1 / 3)
        told = traffic.record(stage.cast[which], chance, f"live-{uuid4()}", now)
        lines[which].append(traffic.encoded(told))
    for entry, records in zip(stage.entries, lines, strict=True):
        if records:
            await client.jetstream().publish(usage_subject(entry.tenant_id), b"\n".join(records) + b"\n")


async def _quiet(_: Exception) -> None:
    """The messenger logs what is wrong with NATS."""


class Narrator:
    """Tells in a line what was committed: at once what matters, and now and then where it stands."""

    def __init__(self) -> None:
        self._records = 0
        self._refused = 0
        self._stoppers: set[tuple[UUID, str, int]] = set()
        self._waiting: list[tuple[Group, object]] = []
        self._next = time.monotonic() + NARRATE_SECONDS / 2

    def committed(self, group: Group) -> None:
        for row in group.rows():
            self._records += row.topic.startswith("usage.")
            self._refused += row.topic == "usage.rejected"
            if row.topic in TOLD_TOPICS and len(self._waiting) < TOLD_AT_ONCE_MAX:
                self._waiting.append((group, recorded(row).event))

    async def tell(self, engine: Engine, stage: Stage) -> None:
        waiting, self._waiting = self._waiting, []
        names = {entry.tenant_id: entry for entry in stage.entries}
        for group, event in waiting:
            if group.tenant in names:
                await self._event(engine, names[group.tenant], event)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + NARRATE_SECONDS
            await self._standing(engine, stage)

    async def _event(self, engine: Engine, entry: TenantEntry, event: object) -> None:
        members = (await engine.state(entry.tenant_id)).hierarchy.members
        if isinstance(event, ThresholdCrossed):
            used, limit = (amount(q, event.usage_type, entry.currency) for q in (event.used, event.limit))
            _line(f"{entry.slug}: {event.node} is at {event.percent} %: {used} of {limit} in {event.period}")
        elif isinstance(event, UsageRejected):
            stop = (entry.tenant_id, event.period, event.stopped_by)
            if stop in self._stoppers:
                return
            # Whatever follows is refused as well: once is news, the rest is counted.
            self._stoppers.add(stop)
            used, limit = (amount(q, event.counted, entry.currency) for q in (event.used, event.limit))
            stopper, user = members[event.stopped_by].id, members[event.path[0]].id
            _line(f"{entry.slug}: {user} was refused, stopped by {stopper} ({used} of {limit} used)")

    async def _standing(self, engine: Engine, stage: Stage) -> None:
        records, self._records = self._records, 0
        refused, self._refused = self._refused, 0
        left = await pool_left(engine, stage, POOL)
        states = [(entry, await engine.state(entry.tenant_id)) for entry in stage.entries]
        told = ", ".join(f"{entry.slug} {costs(state, entry, stage.period)}" for entry, state in states)
        _line(
            f"{records:,} records in {NARRATE_SECONDS:.0f} s, {refused:,} refused;"
            f" {POOL} has {amount(left, 'data')} left; this month costs {told} so far"
        )


def _line(text: str) -> None:
    say(f"{datetime.now(UTC):%H:%M:%S}  {text}")
    sys.stdout.flush()
