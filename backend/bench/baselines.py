"""What ours is compared with, on the same server, in the same run.

- the physical limit: our own rows, prebuilt, into a like table with the same indexes by binary COPY;
- what one would write instead: a transaction per record with row locks on the balance and its
  ancestors' limits, driven by pgbench (a C client, so generous), and as one statement;
- the strongest SQL we know: one set-based call per batch, which neither steers, rates nor hashes;
- the eventsourcing library's stock application with its aggregate held in memory.
"""

import contextlib
import os
import random
import re
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import psycopg
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from ...projections.tables import COPY_HEADER, COPY_TRAILER
from ..copying import SINCE_2000
from ..embedded import installed_postgres_program
from ..log import Row

NODES = 11_111
"""1 enterprise, 10 divisions, 100 cost centres, 1,000 groups, 10,000 devices."""
DEVICES = 10_000
COPY_ROWS = 2_500

TABLES = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.balance (id int PRIMARY KEY, remaining bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO bench.balance VALUES (1, 1000000000000000);
CREATE TABLE bench.limits (node int PRIMARY KEY, used bigint NOT NULL, lim bigint NOT NULL)
    WITH (fillfactor = 50);
INSERT INTO bench.limits SELECT node, 0, 1000000000000000 FROM generate_series(1, 11111) node;
CREATE TABLE bench.cdr (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), device int NOT NULL, service smallint NOT NULL,
    qty bigint NOT NULL, amount numeric(14, 6) NOT NULL, account smallint NOT NULL,
    started timestamptz NOT NULL, recorded timestamptz NOT NULL DEFAULT now(), dest text);
CREATE TABLE bench.events (LIKE allotment.events INCLUDING ALL);
CREATE FUNCTION bench.charge_batch(ids uuid[], devs int[], qtys bigint[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE bad int; n int;
BEGIN
    PERFORM 1 FROM bench.balance WHERE id = 1 FOR UPDATE;
    WITH u AS (SELECT * FROM unnest(devs, qtys) AS x (d, q)),
         p AS (SELECT 1112 + d AS node, q FROM u UNION ALL SELECT 112 + d / 10, q FROM u
               UNION ALL SELECT 12 + d / 100, q FROM u UNION ALL SELECT 2 + d / 1000, q FROM u
               UNION ALL SELECT 1, q FROM u),
         s AS (SELECT node, sum(q) AS q FROM p GROUP BY node),
         w AS (UPDATE bench.limits l SET used = l.used + s.q FROM s WHERE l.node = s.node
               RETURNING l.used > l.lim AS over)
    SELECT count(*) FILTER (WHERE over) INTO bad FROM w;
    IF bad > 0 THEN RAISE EXCEPTION 'limit'; END IF;
    UPDATE bench.balance SET remaining = remaining - (SELECT sum(q) FROM unnest(qtys) q) WHERE id = 1;
    INSERT INTO bench.cdr (id, device, service, qty, amount, account, started, dest)
    SELECT id, 1112 + d, 1, q, q * 0.0012, 0, now(), '+442071234567'
    FROM unnest(ids, devs, qtys) AS y (id, d, q);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
"""

ROW_LOCK = r"""
\set d random(0,9999)
\set n5 1112+:d
\set n4 112+:d/10
\set n3 12+:d/100
\set n2 2+:d/1000
BEGIN;
UPDATE bench.balance SET remaining=remaining-3 WHERE id=1 AND remaining>=3;
UPDATE bench.limits SET used=used+3 WHERE node IN (1,:n2,:n3,:n4,:n5) AND used+3<=lim;
INSERT INTO bench.cdr(device,service,qty,amount,account,started,dest)
  VALUES (:d,1,3,0.0123,0,now(),'+442071234567');
END;
"""
"""Row locks on the balance and on the limits of the five members on the path."""

ONE_STATEMENT = r"""
\set d random(1112,11111)
WITH b AS (UPDATE bench.balance SET remaining=remaining-3 WHERE id=1 AND remaining>=3 RETURNING remaining)
INSERT INTO bench.cdr(device,service,qty,amount,account,started,dest)
  SELECT :d,1,3,0.0123,0,now(),'+442071234567' FROM b;
"""
"""The balance alone, without ancestors, in one round trip: less than is needed, and its best case."""


def prepare(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)


def row_lock(database_url: str, script: str, clients: int, seconds: float) -> float:
    """Transactions per second of a pgbench script."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.sql"
        file.write_text(script)
        address = urlsplit(database_url)
        query = parse_qs(address.query)
        command = [installed_postgres_program("pgbench"), "-n", "-M", "prepared"]
        command += ["-c", str(clients), "-j", str(min(clients, 2))]
        command += ["-T", str(max(1, round(seconds))), "-f", str(file), address.path.lstrip("/")]
        environment = {
            **os.environ,
            "PGHOST": query.get("host", [address.hostname or ""])[0],
            "PGPORT": query.get("port", [str(address.port or 5432)])[0],
            "PGUSER": address.username or "postgres",
            "PGPASSWORD": address.password or "",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = re.search(r"tps = ([\d.]+)", done.stdout)
    if told is None:
        raise RuntimeError(f"pgbench did not answer: {done.stderr.strip()[-500:]}")
    return float(told[1])


def set_based(database_url: str, batch: int, batches: int, clients: int) -> float:
    """Records per second of one set-based call per batch, of devices by chance as in our workload."""
    chance = random.Random(batches)  # noqa: S311  (a benchmark, not a secret)
    given = [
        ([uuid4() for _ in range(batch)], chance.choices(range(DEVICES), k=batch), [3] * batch)
        for _ in range(batches + clients)
    ]
    statement = "SELECT bench.charge_batch(%b::uuid[], %b::int4[], %b::int8[])"

    def call(connection: psycopg.Connection[Any]) -> None:
        with contextlib.suppress(IndexError):
            while True:
                connection.execute(statement, given.pop(), prepare=True)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(clients) as threads:
        connections = [
            stack.enter_context(psycopg.connect(database_url, autocommit=True)) for _ in range(clients)
        ]
        for connection in connections:
            connection.execute(statement, given.pop(), prepare=True)
        started = time.perf_counter()
        deque(threads.map(call, connections), maxlen=0)
        return batch * batches / (time.perf_counter() - started)


def copy_limit(database_url: str, rows: Sequence[Row]) -> float:
    """Rows per second by binary COPY, encoded beforehand, 2,500 rows a transaction."""
    tenant = uuid4()
    buffers = [_copy_buffer(tenant, rows[at : at + COPY_ROWS]) for at in range(0, len(rows), COPY_ROWS)]
    statement = (
        "COPY bench.events (tenant_id, seq, topic, state, recorded_at, command_key, leaf_hash) "
        "FROM STDIN (FORMAT binary)"
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        started = time.perf_counter()
        for buffer in buffers:
            with connection.cursor().copy(statement) as copy:
                copy.write(buffer)
        return len(rows) / (time.perf_counter() - started)


def _copy_buffer(tenant: UUID, rows: Sequence[Row]) -> bytes:
    parts = [COPY_HEADER]
    for row in rows:
        topic = row.topic.encode()
        parts += [
            struct.pack("!hi16siqi", 7, 16, tenant.bytes, 8, row.seq, len(topic)),
            topic,
            struct.pack("!i", len(row.state)),
            row.state,
            struct.pack("!iq", 8, row.recorded_at - SINCE_2000),
            struct.pack("!i", -1) if row.command_key is None else struct.pack("!i16s", 16, row.command_key),
            struct.pack("!i32s", 32, row.leaf_hash),
        ]
    parts.append(COPY_TRAILER)
    return b"".join(parts)


class Account(Aggregate):
    """The stock library's way: an aggregate whose every charge is an event."""

    @event("Opened")
    def __init__(self, balance: int) -> None:
        self.balance = balance
        self.used: dict[int, int] = {}

    @event("UsageCharged")
    def charge(self, usage_id: UUID, path: list[int], quantity: int, started: datetime, dest: str) -> None:
        self.balance -= quantity
        for node in path:
            self.used[node] = self.used.get(node, 0) + quantity


def environment(database_url: str) -> dict[str, str]:
    """What the library wants to know of our server."""
    address = urlsplit(database_url)
    query = parse_qs(address.query)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": address.path.lstrip("/"),
        "POSTGRES_HOST": query.get("host", [address.hostname or ""])[0],
        "POSTGRES_PORT": query.get("port", [str(address.port or 5432)])[0],
        "POSTGRES_USER": address.username or "postgres",
        "POSTGRES_PASSWORD": address.password or "none",
        "POSTGRES_SCHEMA": "bench",
    }


def stock(database_url: str, count: int, per_save: int) -> float:
    """Records per second of the library's application, the aggregate held in memory."""
    application: Application[UUID] = Application(env=environment(database_url))
    try:
        account = Account(balance=1 << 50)
        application.save(account)
        now = datetime.now(UTC)
        started = time.perf_counter()
        for _ in range(count // per_save):
            for number in range(per_save):
                account.charge(uuid4(), [1, 2, 12, 112, 1112 + number], 3, now, "+442071234567")
            application.save(account)
        return count / (time.perf_counter() - started)
    finally:
        application.close()


def moment_of(number: int) -> datetime:
    return datetime.fromtimestamp(1_790_000_000 + number, UTC)
