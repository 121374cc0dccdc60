"""Matching: from the log to what is to be delivered, a chunk at a time, each event exactly once.

A chunk is one transaction: the tenant's position is locked, the events after it are compared with what
somebody wants to know, and rows and position are committed together. It does not matter who does it, nor
how many try. A tenant of which nobody wants to know anything has no position, and costs nothing.
"""

from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from uuid import UUID
from zoneinfo import ZoneInfo

from ...domain.events import Recorded
from ...domain.limit import ThresholdCrossed
from ...domain.notice import RecipientSet, WebhookCreated, WebhookDisabled, WebhookReplayed, is_urgent
from ...domain.quiet import told_at
from ...domain.tenant import Tenant
from ...tenants.isolation import Connection, Isolation
from ..log import COLUMNS, Row, recorded
from ..replica import STRUCTURE
from ..snapshots import Snapshots
from . import queue
from .queue import Place, Wanted

CHUNK = 5_000
"""Seqs looked at in one transaction."""
ANNOUNCED = (ThresholdCrossed.topic, WebhookDisabled.topic)
"""Told on the tenant's NATS subject, whoever else wants to know."""


class Known:
    """Who exists in a tenant and who is told of what, as of a seq. Use it from one thread at a time."""

    def __init__(self, isolation: Isolation, tenant: UUID, executor: Executor) -> None:
        self.tenant = tenant
        self.state = Tenant()
        self._snapshots = Snapshots(isolation, tenant, executor)
        self._seq = -1

    @property
    def begun(self) -> bool:
        return self._seq >= 0

    def begin(self) -> None:
        """With the newest snapshot, once. It takes a connection: who has one in hand already might wait for
        another that never comes free."""
        if not self.begun:
            self._seq, self.state = self._snapshots.structure() or (0, Tenant())

    def advance(self, db: Connection, upto: int) -> None:
        """To at least this seq, which is committed."""
        assert self.begun, "begin first"
        if upto <= self._seq:
            return
        for row in db.execute(_STRUCTURE, (self._seq, upto, STRUCTURE), binary=True).fetchall():
            self.state.apply(recorded(Row(*row)).event)
        self._seq = upto

    @property
    def zone(self) -> ZoneInfo:
        return self.state.contracts.zone


def state_now(isolation: Isolation, tenant: UUID) -> Tenant:
    """Who exists and who is told, as committed now; without balances."""
    with ThreadPoolExecutor(1) as executor:
        known = Known(isolation, tenant, executor)
    known.begin()
    with isolation.transaction(tenant) as db:
        head = db.execute("SELECT seq FROM log_heads").fetchone()
        known.advance(db, head[0] if head else 0)
        return known.state


def follow_from_now_on(db: Connection) -> None:
    """Let the tenant's log be looked at from here on, if it is not yet."""
    db.execute(
        "INSERT INTO notice_positions (seq) SELECT coalesce(max(seq), 0) FROM log_heads "
        "ON CONFLICT DO NOTHING"
    )


def follow_from(db: Connection, seq: int) -> None:
    db.execute("INSERT INTO notice_positions (seq) VALUES (%s) ON CONFLICT DO NOTHING", (max(0, seq),))


def behind(isolation: Isolation, limit: int) -> list[UUID]:
    """Tenants with events that were not looked at, or that are to be told again."""
    with isolation.directory() as db:
        found = db.execute(_BEHIND, (limit,))
        return [row[0] for row in found.fetchall()]


def _is_followed(isolation: Isolation, tenant: UUID) -> bool:
    with isolation.transaction(tenant) as db:
        return db.execute("SELECT FROM notice_positions").fetchone() is not None


def step(isolation: Isolation, known: Known, now: int) -> tuple[set[Place], bool]:
    """Look at one chunk, and at one of each replay; which places are to be told, and whether to go on."""
    if not known.begun:
        if not _is_followed(isolation, known.tenant):
            return set(), False
        known.begin()
    with isolation.transaction(known.tenant) as db:
        # Lost in a crash it is done again: nobody needs to wait for the disk.
        db.execute("SET LOCAL synchronous_commit = off")
        held = db.execute("SELECT seq FROM notice_positions FOR UPDATE SKIP LOCKED").fetchone()
        head = db.execute("SELECT seq FROM log_heads").fetchone()
        if held is None or head is None:
            return set(), False
        start, end = held[0], min(head[0], held[0] + CHUNK)
        known.advance(db, head[0])
        events = _events(db, start, end, _topics(known.state)) if end > start else []
        wanted = _wanted(known, events)
        queue.add(db, wanted, now)
        for one in events:
            if isinstance(one.event, WebhookReplayed):
                # With the position: whoever asked under one key is told again once.
                _ask_for_replay(db, one.event, one.seq - 1)
        if end > start:
            db.execute("UPDATE notice_positions SET seq = %s", (end,))
        again, more = _replay(db, known, now)
    told = {Place(known.tenant, one.channel, one.endpoint) for one in [*wanted, *again]}
    return told, end < head[0] or more


def _topics(state: Tenant) -> list[str]:
    """What somebody wants to know, or has just begun to."""
    notices = state.notices
    asked = [one.wants for one in notices.recipients.values()]
    asked += [one.wants for one in notices.webhooks.values()]
    named = (topic for wants in asked for topic in wants.topics)
    return sorted({*ANNOUNCED, WebhookReplayed.topic, *named})


def _events(db: Connection, after: int, upto: int, topics: list[str]) -> list[Recorded]:
    rows = db.execute(_EVENTS, (after, upto, topics), binary=True).fetchall()
    return [recorded(Row(*row)) for row in rows]


def events_at(db: Connection, seqs: list[int]) -> dict[int, Recorded]:
    """Events by seq."""
    statement = f"SELECT {COLUMNS} FROM events WHERE seq = ANY(%s)"
    rows = db.execute(statement, (seqs,), binary=True).fetchall()
    return {row[0]: recorded(Row(*row)) for row in rows}


def _wanted(known: Known, events: Iterable[Recorded]) -> list[Wanted]:
    wanted = []
    notices, hierarchy = known.state.notices, known.state.hierarchy
    for told in events:
        at, topic = told.recorded_at, told.topic
        if topic in ANNOUNCED:
            wanted.append(Wanted("nats", queue.SUBJECT_OF_ALL, told.seq, topic, 0, at))
        wanted += [
            Wanted("webhook", webhook.id, told.seq, topic, 0, at)
            for webhook in notices.webhooks_of(told.event, hierarchy)
        ]
        for recipient in notices.recipients_of(told.event, hierarchy):
            due = _due(recipient, told, known.zone)
            slot = due if due > at else 0
            wanted.append(Wanted("email", recipient.recipient, told.seq, topic, slot, due))
    return wanted


def _due(recipient: RecipientSet, told: Recorded, zone: ZoneInfo) -> int:
    if recipient.urgent_at_once and is_urgent(told.event):
        return told.recorded_at
    return told_at(told.recorded_at, recipient.quiet, recipient.digest, zone)


# --- replays ---------------------------------------------------------------------------------------


def _ask_for_replay(db: Connection, asked: WebhookReplayed, upto: int) -> None:
    db.execute(
        "INSERT INTO outlets AS held (channel, endpoint, replay_after, replay_upto) "
        "VALUES ('webhook', %s, %s, %s) ON CONFLICT (tenant_id, channel, endpoint) DO UPDATE SET "
        "replay_after = least(excluded.replay_after, held.replay_after), replay_upto = excluded.replay_upto",
        (asked.webhook, asked.after, upto),
    )


def _replay(db: Connection, known: Known, now: int) -> tuple[list[Wanted], bool]:
    """One chunk of each replay that is asked for; what was found, and whether to go on."""
    asked = db.execute(
        "SELECT endpoint, replay_after, replay_upto FROM outlets WHERE replay_after IS NOT NULL FOR UPDATE"
    ).fetchall()
    found: list[Wanted] = []
    more = False
    for endpoint, after, upto in asked:
        webhook = known.state.notices.webhooks.get(endpoint)
        end = min(upto, after + CHUNK)
        if webhook is not None and not webhook.disabled:
            told = _events(db, after, end, [*webhook.wants.topics])
            again = _again(known, webhook.created, told, now)
            queue.add_again(db, again, now)
            found += again
        more = more or end < upto
        db.execute(
            "UPDATE outlets SET replay_after = %s WHERE channel = 'webhook' AND endpoint = %s",
            (end if end < upto else None, endpoint),
        )
    return found, more


def _again(known: Known, webhook: WebhookCreated, events: list[Recorded], now: int) -> list[Wanted]:
    notices, hierarchy = known.state.notices, known.state.hierarchy
    return [
        Wanted("webhook", webhook.webhook, told.seq, told.topic, 0, now)
        for told in events
        if any(one.id == webhook.webhook for one in notices.webhooks_of(told.event, hierarchy))
    ]


_EVENTS = f"SELECT {COLUMNS} FROM events WHERE seq > %s AND seq <= %s AND topic = ANY(%s) ORDER BY seq"
_STRUCTURE = _EVENTS
_BEHIND = """
SELECT p.tenant_id FROM notice_positions p JOIN log_heads h USING (tenant_id) WHERE h.seq > p.seq
UNION
SELECT tenant_id FROM outlets WHERE replay_after IS NOT NULL
LIMIT %s
"""
