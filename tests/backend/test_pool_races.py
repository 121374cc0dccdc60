"""Two hundred callers at once on one pool: by usage, sessions, trades and re-allocations, in one event loop.

Whatever comes first, exactly what there is is handed out: nothing is used, held or moved twice.
"""

import asyncio
import random
from collections import Counter

import pytest
from fixtures_writer import NOON, call, furnish, line

from allotment.backend.authorising import AskUnits
from allotment.backend.keys import command_key, session_key
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.session_request import GroupReport
from allotment.domain.usage import UsageRecord

CALLERS = 100
POOL = 3_000


class Race:
    """A hundred who call, and a hundred who move allowance about, on what one pool has."""

    def __init__(self, writer, seed):
        self.writer, self.seed, self.chance = writer, seed, random.Random(seed)
        self.answers = Counter()

    async def run(self):
        await self.submit(SetLimit("acme", "voice", self.used() + POOL), "limit")
        callers = [self.calls(number) for number in range(CALLERS)]
        movers = [self.moves(number) for number in range(CALLERS)]
        everybody = callers + movers
        self.chance.shuffle(everybody)
        await asyncio.gather(*everybody)
        self.check()

    async def calls(self, number):
        if number % 3 == 0:
            record = call(f"{self.seed}-{number}", number % 2, self.chance.choice([1, 60, 200]))
            (outcome,) = await self.writer.submit_usage([record], "mediation:test")
            self.answers[outcome.status] += 1
            return
        session, wanted = f"race-{self.seed}-{number}", self.chance.choice([0, 0, 45, 120])
        groups = (GroupReport(1, "voice", 0, wanted), GroupReport(2, "data", 0, 1_000))
        record = UsageRecord("pbx", session, line(number % 2), "", 0, NOON, "outbound", "+12125550100")
        told = await self.ask(AskUnits("pbx", session, 0, groups, record))
        if told is None or told.events[0].topic != "session.reserved":
            self.answers["denied"] += 1
            return
        used = self.chance.randrange(told.events[0].granted + 20)
        report = (GroupReport(1, "voice", used, 0),)
        await self.ask(AskUnits("pbx", session, 1, report))
        if self.chance.random() < 0.8:
            await self.ask(AskUnits("pbx", session, 2, (), ends=True))
            self.answers["ended"] += 1

    async def moves(self, number):
        quantity, chance = self.chance.choice([1, 30, 300]), self.chance
        down, across = [("acme", "r0"), ("acme", "r1")], [("r0", "r1"), ("r1", "r0")]
        ends = chance.choice([*down, *across, ("r0", "acme")])
        kind = Allocate if ends[0] == "acme" else Return if ends[1] == "acme" else Trade
        moved = await self.submit(kind(*ends, "voice", "2026-11", quantity), f"move-{number}")
        self.answers["moved" if moved else "not moved"] += 1

    async def ask(self, command):
        key = session_key(command.source, command.session, command.number, NOON)
        try:
            return await self.writer.submit(command, key, "mediation:test")
        except Refused as refusal:
            self.answers[refusal.code] += 1
            return None

    async def submit(self, command, key):
        try:
            return await self.writer.submit(command, command_key(f"{self.seed}-{key}"), "manager:test")
        except Refused as refusal:
            self.answers[refusal.code] += 1
            return None

    def used(self):
        return self.writer.state.families["voice", "2026-11"].used[0]

    def check(self):
        state = self.writer.state
        state.check_whole()
        family = state.families["voice", "2026-11"]
        held = state.sessions.held_units("voice", "2026-11")
        assert family.granted_total == sum(family.remaining) + sum(family.consumed)
        assert family.used[0] <= state.limits.of(0, "voice", "2026-11", NOON).quantity
        assert sum(family.reserved) <= held
        assert all(0 <= held <= left for held, left in zip(family.reserved, family.remaining, strict=True))


async def race(store, seeds):
    answers = Counter()
    async with store.opened() as writer:
        await furnish(writer, voice=200_000)
        # The first use opens the period.
        await writer.submit_usage([call("first", 0, 60)], "mediation:test")
        for seed in seeds:
            running = Race(writer, seed)
            await running.run()
            answers += running.answers
    return answers


def test_two_hundred_callers_drain_one_pool_and_nothing_is_handed_out_twice(store):
    answers = asyncio.run(race(store, range(2)))
    assert {"charged", "ended", "moved", "rejected"} <= set(answers), answers


@pytest.mark.soak
def test_two_hundred_callers_drain_one_pool_for_long(store):
    answers = asyncio.run(race(store, range(100, 150)))
    print(dict(answers))
    assert {"charged", "ended", "moved", "rejected", "not moved"} <= set(answers), answers
