"""Sessions seen by readers: what runs, how the others ended, and what is reserved, as of any moment."""

import asyncio

import pytest
from fixtures_writer import NOON, Store, call, furnish, submit

from allotment.backend.authorising import StartSession
from allotment.backend.following import catch_up
from allotment.backend.keys import session_key
from allotment.backend.log import recorded
from allotment.backend.looking_back import past
from allotment.domain.limit import SetLimit
from allotment.domain.session import (
    VALIDITY_SECONDS,
    ExpireSession,
    ReleaseSession,
    Report,
    SessionEvent,
    UpdateSession,
)
from allotment.domain.tenant import Tenant
from allotment.projections.balances import balances_under
from allotment.projections.sessions import sessions_page

PERIOD = "2026-11"


@pytest.fixture
def lived(isolation):
    """A tenant with sessions of every fate: a runs, b was denied, c released, d expired, e overran."""
    store, clock = Store(isolation), [NOON]

    async def script():
        async with store.opened(clock=lambda: clock[0]) as writer:
            await furnish(writer, voice=400)

            async def ask(command):
                ident = (
                    (command.record.source, command.record.record_id)
                    if isinstance(command, StartSession)
                    else (command.source, command.session)
                )
                number = getattr(command, "number", "silent")
                await writer.submit(command, session_key(*ident, number, NOON), "m")

            await ask(StartSession(call("d", 1, 60), 0))
            await ask(UpdateSession("switch", "call-d", 1, Report(60), 60))
            clock[0] += VALIDITY_SECONDS * 1_000_000
            await ask(ExpireSession("switch", "call-d"))
            await ask(StartSession(call("a", 0, 0), 0))
            await ask(UpdateSession("switch", "call-a", 1, Report(30), 120))
            await ask(StartSession(call("c", 2, 300), 0))
            await ask(ReleaseSession("switch", "call-c", 1, Report(61)))
            await ask(StartSession(call("e", 2, 60), 0))
            await submit(writer, SetLimit("sales", "voice", 1), "limit")
            await ask(StartSession(call("b", 3, 60), 0))
            await ask(ReleaseSession("switch", "call-e", 1, Report(100)))

    asyncio.run(script())
    return store


def test_each_session_is_told_as_it_stands(lived):
    catch_up(lived.isolation, lived.tenant, chunk=3)
    with lived.isolation.transaction(lived.tenant, "auditor") as db:
        rows = sessions_page(db, 10)
        told = [(row.session, row.status, row.used, row.held, row.overrun, row.resource_id) for row in rows]
        assert told == [
            ("call-e", "released", 100, 0, 40, "r2"),
            ("call-b", "denied", 0, 0, 0, "r3"),
            ("call-c", "released", 61, 0, 0, "r2"),
            ("call-a", "open", 30, 180, 0, "r0"),
            ("call-d", "expired", 60, 0, 0, "r1"),
        ]
        assert (rows[1].reason, rows[1].stopped_by_id, rows[1].node_id) == (
            "limit_exceeded",
            "sales",
            "sales",
        )
        assert [row.session for row in sessions_page(db, 2, before=rows[1].seq)] == ["call-c", "call-a"]
        assert [row.session for row in sessions_page(db, 9, under="r2")] == ["call-e", "call-c"]
        assert len(sessions_page(db, 9, under="acme")) == len(sessions_page(db, 9, under="sales")) == 5
        assert sessions_page(db, 9, under="nobody") == sessions_page(db, 9, status="other") == []
        assert [row.session for row in sessions_page(db, 9, status="open")] == ["call-a"]


def test_at_every_seq_the_balances_tell_what_the_writer_held(lived):
    state = Tenant()
    for row in lived.rows():
        told = recorded(row)
        state.apply(told.event)
        if not isinstance(told.event, SessionEvent):
            continue
        with past(lived.isolation, lived.tenant, row.seq) as db:
            running = {one.session: one.held for one in sessions_page(db, 10, status="open")}
            assert running == {one.session: one.hold.billed for one in state.sessions.open.values()}
            for balance in balances_under(db, None, None, PERIOD, ("voice", "money"), resources=True):
                family = state.families[balance.usage_type, PERIOD]
                assert balance.bucket.reserved == family.reserved[balance.ordinal]
                assert balance.used == family.used[balance.ordinal]
