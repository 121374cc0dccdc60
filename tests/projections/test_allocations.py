"""Allocations seen by readers: the same as the rules count, built again from any cut of the log."""

import asyncio

from fixtures_writer import NOON, Store, call, furnish, submit

from allotment.backend.authorising import StartSession
from allotment.backend.following import catch_up
from allotment.backend.keys import session_key
from allotment.backend.log import recorded
from allotment.backend.looking_back import past
from allotment.backend.verifying import verify
from allotment.domain.allocation import TransferMany
from allotment.domain.cap import SetCap
from allotment.domain.freeze import FreezeNode, ThawNode
from allotment.domain.hierarchy import AddNode
from allotment.domain.life import CloseNode
from allotment.domain.running import Line
from allotment.domain.schedule import CancelSchedule, CarryOutSchedule, ScheduleAllocation
from allotment.domain.session import ReleaseSession, Report, UpdateSession
from allotment.domain.template import DefineTemplate, Rule
from allotment.domain.tenant import Tenant
from allotment.projections import allocations
from allotment.projections.members import tree

PERIOD = "2026-11"
HOUR = 3_600_000_000


def lived(isolation):
    """A tenant whose Sales has a cap, with sessions opened before and after it."""
    store, clock = Store(isolation), [NOON]

    async def script():
        async with store.opened(clock=lambda: clock[0]) as writer:
            await furnish(writer, voice=4000)

            async def ask(command, session):
                await writer.submit(command, session_key("switch", session, command.number, NOON), "m")

            await ask(StartSession(call("a", 0, 600), 0), "call-a")
            await submit(writer, SetCap("sales", "voice", 900), "cap")
            await ask(UpdateSession("switch", "call-a", 1, Report(60), 600), "call-a")
            await writer.submit_usage([call(f"{number}", 0, 61) for number in range(9)], "m")
            await ask(StartSession(call("b", 0, 600), 0), "call-b")
            await ask(ReleaseSession("switch", "call-a", 2, Report(61)), "call-a")
            await submit(writer, SetCap("sales", "voice", 800), "cap 2")
            await writer.submit_usage([call(f"{number}", 0, 61) for number in range(10, 14)], "m")
            await submit(writer, FreezeNode("sales", "a theft"), "freeze")
            await submit(writer, ThawNode("sales"), "thaw")
            await submit(writer, DefineTemplate("five", "voice", Rule("percent", 500)), "template")
            line = Line("cap", "", "sales", "voice", 50)
            await submit(writer, ScheduleAllocation("s", (line,), "day", NOON + HOUR), "schedule")
            await submit(writer, ScheduleAllocation("t", (line,), "week", NOON + HOUR), "other schedule")
            await submit(writer, CancelSchedule("t"), "cancel")
            clock[0] += HOUR
            await submit(writer, CarryOutSchedule("s", NOON + HOUR), "due")
            await submit(writer, TransferMany((Line("allocate", "acme", "sales", "voice", 30),)), "many")

    asyncio.run(script())
    return store


def test_views_tell_what_the_rules_count_all_along(isolation):
    store = lived(isolation)
    catch_up(isolation, store.tenant)
    report = verify(isolation, store.tenant)
    assert report.ok, report.problem
    state, ordinal = Tenant(), None
    for row in store.rows():
        state.apply(recorded(row).event)
        ordinal = state.hierarchy.by_id["sales"].ordinal if "sales" in state.hierarchy.by_id else None
        if ordinal is None or row.topic.startswith(("hierarchy", "tariff", "contract")) or row.seq % 3:
            continue
        family = state.families.get(("voice", PERIOD))
        caps = family.caps if family is not None else None
        with past(isolation, store.tenant, row.seq) as db:
            told = allocations.standings(db, tree(db), PERIOD, ["voice"])
        if caps is None:
            assert told == {}
            continue
        caps.refresh(family.own)
        assert (told[ordinal, "voice"].cap, told[ordinal, "voice"].drawn) == (
            caps.quantity[ordinal],
            caps.drawn[ordinal],
        )
        assert told[0, "voice"].committed == caps.committed[0]


def test_settings_are_shown_as_they_are(isolation):
    store = lived(isolation)
    catch_up(isolation, store.tenant)
    with isolation.transaction(store.tenant) as db:
        daily, weekly = allocations.schedules(db, status=None, after="", first=10)
        assert allocations.schedules(db, status="waiting", after="", first=10) == [daily]
        assert allocations.schedules(db, status=None, after="s", first=10) == [weekly]
        assert (daily.status, daily.outcome, daily.next_at, daily.count) == (
            "waiting",
            "carried_out",
            NOON + 25 * HOUR,
            1,
        )
        assert (weekly.status, weekly.next_at) == ("cancelled", 0)
        assert [(one.template, one.share, one.amount) for one in allocations.templates(db)] == [
            ("five", "percent", 500)
        ]
        assert allocations.frozen(db) == []
        assert allocations.as_lines(db, PERIOD)[-2:] == [
            Line("allocate", "acme", "sales", "voice", 30),
            Line("cap", "", "sales", "voice", 50),
        ]


def test_the_cap_of_a_closed_node_is_told_no_more(isolation):
    store = Store(isolation)

    async def script():
        async with store.opened() as writer:
            await furnish(writer, voice=4000)
            await submit(writer, AddNode("team", "emea", "", "group"), "team")
            await submit(writer, SetCap("team", "voice", 900), "cap")
            await submit(writer, CloseNode("team"), "close")

    asyncio.run(script())
    catch_up(isolation, store.tenant)
    with isolation.transaction(store.tenant) as db:
        told = allocations.standings(db, tree(db), PERIOD, ["voice"])
        assert all(one.cap is None and not one.committed for one in told.values()), told
        assert [line for line in allocations.as_lines(db, PERIOD) if line.action == "cap"] == []
