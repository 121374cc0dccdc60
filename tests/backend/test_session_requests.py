"""Requests about several rating groups through the writer: once each, also after it was opened anew."""

import asyncio

import pytest
from fixtures_writer import NOON, SECOND, charge, furnish, in_time, line, statuses
from msgspec.structs import replace

from allotment.backend.authorising import AskUnits
from allotment.backend.keys import session_key
from allotment.backend.log import recorded
from allotment.domain import canonical
from allotment.domain.charging import UsageCharged, UsageSuspended
from allotment.domain.contract import PeriodOpened
from allotment.domain.refusals import Refused
from allotment.domain.session import SessionReleased, SessionUpdated
from allotment.domain.session_request import GroupReport
from allotment.domain.usage import UsageRecord

DAY = 86_400_000_000
RECORD = UsageRecord("gate", "s", line(0), "", 0, NOON, "outbound", "+442071838750")
CALL, DATA = GroupReport(1, "voice", 0, 60), GroupReport(2, "data", 0, 5_000)


def opening(*groups, number=0):
    return AskUnits("gate", "s", number, groups or (CALL, DATA), RECORD)


def report(number, *groups, ends=False):
    return AskUnits("gate", "s", number, groups, ends=ends)


ASKED = (
    opening(),
    report(1, GroupReport(2, "data", 4_000, 5_000), GroupReport(1, "voice", 50, 60)),
    report(2, GroupReport(1, "voice", 5), GroupReport(3, "messaging", 0, 1)),
    report(3, GroupReport(1, "voice", 6), GroupReport(2, "data", 10), ends=True),
)


async def ask(writer, command, now=NOON):
    key = session_key(
        command.source, command.session.encode("ascii", "replace").decode(), command.number, now
    )
    try:
        return await in_time(writer.submit(command, key, "mediation:test"))
    except Refused as refusal:
        return refusal.code


def told(store, kind):
    return [one.event for one in map(recorded, store.rows()) if isinstance(one.event, kind)]


def test_a_request_is_answered_again_as_the_first_time_by_whoever_serves_later(store):
    async def first():
        async with store.opened() as writer:
            await furnish(writer, voice=1_000)
            return [await ask(writer, one) for one in ASKED], [*canonical.lines(writer.state)]

    async def again():
        async with store.opened(clock=lambda: NOON + 2 * DAY) as writer:
            answers = [await ask(writer, one, NOON + 2 * DAY) for one in ASKED]
            other = report(2, GroupReport(1, "voice", 7))
            assert await ask(writer, other) == "idempotency_mismatch"
            return answers, [*canonical.lines(writer.state)]

    (answers, state), (repeated, restored) = asyncio.run(first()), asyncio.run(again())
    assert all(answer.repeated for answer in repeated)
    for before, after in zip(answers, repeated, strict=True):
        assert before.events == after.events
        assert (before.first_seq, before.last_seq) == (after.first_seq, after.last_seq)
    assert restored == state
    assert {charge.record_id for charge in told(store, UsageCharged)} == {"s", "s+2"}


def test_the_charge_of_each_group_opens_under_its_own_key(store):
    async def script():
        async with store.opened() as writer:
            await furnish(writer, voice=1_000)
            for one in ASKED:
                await ask(writer, one)

    asyncio.run(script())
    sealer = store.load_sealer()
    for one in map(recorded, store.rows()):
        if isinstance(one.event, UsageCharged):
            assert sealer.open(sealer.token(line(0)), one.event.sealed, one.command_key)


@pytest.mark.parametrize("group", ["s", "s+2", "s+3"])
def test_a_group_whose_record_came_meanwhile_is_not_charged_again(store, group):
    """Also one that the release is silent about, or that joined later."""

    async def script():
        async with store.opened() as writer:
            await furnish(writer, voice=1_000)
            for one in ASKED[:3]:
                await ask(writer, one)
            await ask(writer, report(4, GroupReport(3, "messaging", 1, 1)))
            usage = {"s": "voice", "s+2": "data", "s+3": "messaging"}[group]
            meanwhile = replace(RECORD, record_id=group, usage_type=usage, quantity=60)
            assert statuses(await charge(writer, meanwhile)) == ["charged"]
            assert [one.topic for one in (await ask(writer, report(5, ends=True))).events].count(
                SessionReleased.topic
            ) == 3
            writer.state.check_whole()

    asyncio.run(script())
    assert sorted(charge.record_id for charge in told(store, UsageCharged)) == ["s", "s+2", "s+3"]
    (suspended,) = told(store, UsageSuspended)
    assert (suspended.record_id, suspended.reason) == (group, "conflicting_duplicate")


def test_what_is_wrong_with_a_request_is_refused_whole(memory):
    async def script():
        async with memory.opened() as writer:
            await furnish(writer, voice=1_000)
            assert await ask(writer, ASKED[1]) == "unknown_session"
            assert await ask(writer, opening(GroupReport(9, "teleports", 0, 1))) == "unknown_usage_type"
            await ask(writer, opening(number=1))
            assert await ask(writer, opening(number=2)) == "session_exists"
            assert await ask(writer, report(0, CALL)) == "report_out_of_order"
            await ask(writer, report(3, ends=True))
            assert await ask(writer, report(4, CALL)) == "unknown_session"

    asyncio.run(script())


def test_a_group_nobody_tells_of_is_kept_when_its_time_runs_out(memory):
    clock = [NOON]

    async def script():
        async with memory.opened(clock=lambda: clock[0]) as writer:
            await furnish(writer, voice=1_000)
            await ask(writer, opening())
            for number, seconds in enumerate((200, 150, 200), 1):
                clock[0] += seconds * SECOND
                await ask(writer, report(number, GroupReport(1, "voice", 1, 60)))
            return {one.session: one.expires_at for one in writer.state.sessions.open.values()}

    expires = asyncio.run(script())
    assert expires["s+2"] == NOON + (350 + 600) * SECOND, "once, not with every report"
    kept = [one for one in told(memory, SessionUpdated) if one.session == "s+2"]
    assert [(one.granted, one.before == one.held) for one in kept] == [(5_000, True)]


UNGRANTED = GroupReport(3, "messaging", 4)


@pytest.mark.parametrize(
    ("asked", "records", "of_session"),
    [
        # An update, with nothing else to tell; with the next slice asked for; a release; an opening.
        ((opening(), report(1, UNGRANTED)), {"s+3+1": 4}, 2),
        ((opening(), report(1, replace(UNGRANTED, requested=2))), {"s+3+1": 4}, 3),
        ((opening(), report(1, CALL, UNGRANTED, ends=True)), {"s+3+1": 4}, 0),
        ((opening(CALL, replace(UNGRANTED, requested=2), number=7),), {"s+3+7": 4}, 2),
        # Nothing was used and nothing is wanted: the session goes on.
        ((opening(), report(1, replace(UNGRANTED, used=0))), {}, 2),
    ],
)
def test_what_is_reported_of_a_group_without_units_is_charged_by_itself_once(
    store, asked, records, of_session
):
    async def first():
        async with store.opened() as writer:
            await furnish(writer, voice=1_000)
            return [await ask(writer, one) for one in asked], len(writer.state.sessions.open)

    async def again():
        async with store.opened() as writer:
            answers = [await ask(writer, one) for one in asked]
            writer.state.check_whole()
            return answers

    (answers, running), repeated = asyncio.run(first()), asyncio.run(again())
    assert running == of_session
    assert {one.record_id: one.quantity for one in told(store, UsageCharged)} == records
    assert [one.events for one in answers] == [one.events for one in repeated]
    assert all(one.repeated for one in repeated)


def test_what_nobody_can_charge_waits_in_suspense_though_the_request_is_refused(store):
    stranger = replace(RECORD, line="+449999999999")
    asked = AskUnits("gate", "s", 0, (GroupReport(3, "messaging", 4, 1),), stranger)

    async def script():
        async with store.opened() as writer:
            await furnish(writer, voice=1_000)
            assert await ask(writer, asked) == "unknown_line"
            assert await ask(writer, asked) == "unknown_line"

    asyncio.run(script())
    (waits,) = told(store, UsageSuspended)
    assert (waits.record_id, waits.reason) == ("s+3+0", "unknown_line")


def test_what_opens_a_period_on_the_way_is_not_told_again_as_an_answer(store):
    """A month later a group is told of that has no units."""
    clock = [NOON]

    async def script():
        async with store.opened(clock=lambda: clock[0]) as writer:
            await furnish(writer, voice=1_000)
            await ask(writer, opening())
            clock[0] += 31 * DAY
            asked = replace(report(1, UNGRANTED, CALL), at=clock[0])
            return [(await ask(writer, asked, NOON)).events for _ in range(2)]

    answer, repeated = asyncio.run(script())
    assert [one.topic for one in answer] == ["session.updated", "usage.charged"]
    assert answer == repeated
    stored = [row.topic for row in store.rows()]
    opened = len(stored) - 1 - stored[::-1].index(PeriodOpened.topic)
    assert stored.index("session.updated") < opened < stored.index("usage.charged")


@pytest.mark.parametrize(
    "command",
    [
        AskUnits("gate", "s", 2**70, (CALL,), RECORD),
        AskUnits("gate", "s", 1, (GroupReport(1, "voice", 0, 2**70),), RECORD),
        AskUnits("gate", "s", 1, (), RECORD),
        AskUnits("gate", "s", 1, ()),
        AskUnits("gate", "s\ud800", 1, (CALL,), replace(RECORD, line="\ud800")),
        AskUnits("gate", "s", 1, (CALL,), replace(RECORD, started_at=2**70)),
        AskUnits("gate", "s", 1, (GroupReport(2**70, "voice", 5, 2),), RECORD),
    ],
)
def test_a_request_that_nobody_can_decide_stops_nobody_else(memory, command):
    async def script():
        async with memory.opened() as writer:
            await furnish(writer, voice=1_000)
            assert await ask(writer, command) in ("internal_error", "unknown_session", "in_the_future")
            usage = replace(RECORD, usage_type="voice", quantity=60)
            assert statuses(await charge(writer, usage)) == ["charged"]
            writer.state.check_whole()

    asyncio.run(script())
