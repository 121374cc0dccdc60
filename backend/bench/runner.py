"""The eventsourcing library's own ProjectionRunner, as its documentation shows it: one event per transaction.

Its view counts the usage of five nodes per charge and tracks its position with it: a part of what
our six views hold.
"""

import time
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from .baselines import Account, environment, moment_of

SECONDS_MAX = 120.0
SAVED_AT_ONCE = 200
"""The library waits for ever when it saves too much at once over a Unix socket."""


class Used(PostgresTrackingRecorder):
    """The view: how much each node has used."""

    def __init__(self, datastore: Any, **options: Any) -> None:
        super().__init__(datastore, **options)
        self.sql_create_statements.append(
            SQL("CREATE TABLE IF NOT EXISTS {} (node int PRIMARY KEY, used bigint NOT NULL)").format(
                Identifier("bench", "node_used")
            )
        )

    def count(self, path: list[int], quantity: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(
                "INSERT INTO bench.node_used AS held SELECT node, %s FROM unnest(%s::int[]) AS n (node) "
                "ON CONFLICT (node) DO UPDATE SET used = held.used + excluded.used",
                (quantity, path),
                prepare=True,
            )
            self._insert_tracking(cursor, tracking)


class Counting(Projection[Used]):
    name = "benchused"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        path = getattr(domain_event, "path", [])
        self.view.count(path, getattr(domain_event, "quantity", 0), tracking)


class Accounts(Application[UUID]):
    name = "benchaccounts"


def runner(database_url: str, count: int) -> float:
    """Events per second that the runner projects of a log that is there already."""
    settings = environment(database_url)
    accounts = Accounts(env=settings)
    try:
        before = accounts.recorder.max_notification_id() or 0
        account = Account(balance=1 << 50)
        for number in range(count):
            account.charge(uuid4(), [1, 2, 12, 112, 1112 + number], 3, moment_of(number), "+442071234567")
            if number % SAVED_AT_ONCE == 0:
                accounts.save(account)
        accounts.save(account)
        last = before + count + 1
    finally:
        accounts.close()
    return _timed(settings, last, count)


def _timed(settings: dict[str, str], last: int, count: int) -> float:
    started = time.perf_counter()
    with ProjectionRunner(
        application_class=Accounts, projection_class=Counting, view_class=Used, env=settings
    ) as running:
        running.wait(last, SECONDS_MAX)
        return count / (time.perf_counter() - started)
