"""Many callers drain one pool, by every way there is: the log is one valid serial order of it.

2 x 100 callers use, reserve, trade and re-allocate at the same time, through the real writer and
PostgreSQL. Then the log is decided again from its commands, one after the other, and counted by a
naive count: what was accepted is what the rules give in that order, and no limit was ever passed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fixtures_counting import Count
from fixtures_writer import NOON, RATES, Store, call, in_time, line, submit

from allotment.backend.authorising import StartSession
from allotment.backend.keys import session_key, usage_key
from allotment.backend.log import recorded
from allotment.backend.verifying import verify
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.charging import ChargeUsage
from allotment.domain.contract import Grant, OpenPeriod, PeriodNotOpen, SignContract
from allotment.domain.hierarchy import AddNode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionReserved, UpdateSession
from allotment.domain.tariff import PublishTariff
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.tenants.onboarding import Enrol

CALLERS = 100
POOL = 20_000
NODES = ("acme", "emea", "sales", "apac", "ops")
LINES = 10


class Drain:
    """One tenant, its callers, and what each was told."""

    def __init__(self, writer: Any, seed: int) -> None:
        self.writer = writer
        self.seed = seed
        self.commands: dict[bytes, Any] = {}
        """By the key of its first event: to be decided again."""
        self.told: list[tuple[int, tuple[Any, ...]]] = []
        """(seq, events) of every answer; of a record only its topic."""
        self.outcomes = Counter[str]()

    async def furnish(self) -> None:
        overage = bool(self.seed % 2)
        commands: list[Any] = [
            OpenTenant("Acme", "UTC", "EUR", "carrier"),
            AddNode("acme", "", "Acme", "enterprise"),
            AddNode("emea", "acme", "EMEA", "division"),
            AddNode("sales", "emea", "Sales", "cost_centre"),
            AddNode("apac", "acme", "APAC", "division"),
            AddNode("ops", "apac", "Ops", "cost_centre"),
            *(Enrol(f"r{i}", ("sales", "ops")[i % 2], "msisdn", 0, (line(i),)) for i in range(LINES)),
            SignContract("c", "1971-01-01", (Grant("voice", POOL),), overage),
            PublishTariff("std", 0, "EUR", RATES),
            OpenPeriod("2026-11"),
            SetLimit("acme", "voice", POOL + 2_000),
            SetLimit("emea", "voice", POOL * 6 // 10),
            SetLimit("ops", "voice", POOL * 4 // 10, (50, 90)),
            SetLimit("r3", "voice", 1_500),
            SetLimit("acme", "money", 1_000_000),
            Allocate("acme", "emea", "voice", "2026-11", POOL // 2),
            Allocate("acme", "apac", "voice", "2026-11", POOL // 4),
        ]
        for number, command in enumerate(commands):
            await submit(self.writer, command, f"furnish {number}")

    # --- callers ------------------------------------------------------------------------------

    async def caller(self, group: int, number: int) -> None:
        chance = random.Random(f"{self.seed} {group} {number}")
        name = f"{group}-{number}"
        kinds = (self.use, self.talk, self.talk, self.move)
        for step in range(4):
            await chance.choice(kinds)(chance, f"{name}-{step}")

    async def use(self, chance: random.Random, name: str) -> None:
        record = call(name, chance.randrange(LINES), chance.choice([30, 61, 200]))
        self.commands[usage_key(record.source, record.record_id, record.started_at)] = record
        first = chance.random() < 0.3
        (outcome,) = await in_time(self.writer.submit_usage([record], "m", first=first), 60)
        self.outcomes[f"usage.{outcome.status}"] += 1
        self.told.append((outcome.seq, (f"usage.{outcome.status}",)))

    async def talk(self, chance: random.Random, name: str) -> None:
        record = call(name, chance.randrange(LINES), chance.choice([0, 60, 300]))
        answer = await self.ask(StartSession(record, 0))
        number = 0
        while answer is not None and not answer.events[0].topic.endswith("denied") and number < 3:
            number += 1
            used = Report(chance.choice([0, 30, 60, 120]))
            if chance.random() < 0.4:
                break
            command = UpdateSession("switch", record.record_id, number, used, chance.choice([0, 60, 300]))
            answer = await self.ask(command)
        if number and chance.random() < 0.9:
            last = ReleaseSession("switch", record.record_id, 9, Report(chance.choice([0, 30, 130])))
            await self.ask(last)

    async def ask(self, command: Any) -> Any:
        if isinstance(command, StartSession):
            ident = (command.record.source, command.record.record_id)
        else:
            ident = (command.source, command.session)
        return await self.submit(command, session_key(*ident, command.number, NOON))

    async def move(self, chance: random.Random, name: str) -> None:
        kind = chance.choice([Allocate, Return, Trade, Trade])
        source, target = {
            Allocate: [("acme", "emea"), ("acme", "apac"), ("emea", "sales"), ("apac", "r3")],
            Return: [("emea", "acme"), ("apac", "acme"), ("sales", "acme"), ("ops", "apac")],
            Trade: [("emea", "apac"), ("apac", "emea"), ("sales", "ops"), ("r3", "r4")],
        }[kind][chance.randrange(4)]
        command = kind(source, target, "voice", "2026-11", chance.choice([50, 300, 1_000]))
        await self.submit(command, session_key("move", name, 0, NOON))

    async def submit(self, command: Any, key: bytes) -> Any:
        self.commands[key] = command
        try:
            answer = await in_time(self.writer.submit(command, key, "m"), 60)
        except Refused as refusal:
            self.outcomes[refusal.code] += 1
            return None
        self.outcomes[answer.events[0].topic] += 1
        self.told.append((answer.first_seq, answer.events))
        return answer


async def drained(store: Store, seed: int) -> Drain:
    async with store.opened() as writer:
        drain = Drain(writer, seed)
        await drain.furnish()
        callers = [drain.caller(group, number) for number in range(CALLERS) for group in range(2)]
        await asyncio.gather(*callers)
        return drain


# --- afterwards ----------------------------------------------------------------------------------


def again(command: Any, event: Any, token: Callable[[str], bytes]) -> Any:
    """The command as the rules took it, sealed as it is stored."""
    if isinstance(command, StartSession):
        return ReserveUnits(command.record, command.number, token(command.record.line), event.sealed)
    if isinstance(command, UpdateSession | ReleaseSession | Allocate | Return | Trade):
        return command
    return ChargeUsage(command, token(command.line), event.sealed)


def check_order(store: Store, drain: Drain) -> None:
    """Decided again one after the other, each command leads to the very events that are stored."""
    told = [recorded(row) for row in store.rows()]
    state, count, at = Tenant(), Count(), 0
    token = store.load_sealer().token
    while at < len(told):
        command = drain.commands.get(told[at].command_key)
        events = [told[at].event]
        if command is not None:
            events = decided(state, again(command, told[at].event, token))
        before = dict(count.used)
        for event in events:
            assert event == told[at].event, f"seq {at + 1}"
            state.apply(event)
            count.tell(event)
            at += 1
        if command is not None:
            state.check_whole()
            count.check(before, [member.id for member in state.hierarchy.members])
    family = state.families["voice", "2026-11"]
    assert sum(family.remaining) + sum(family.consumed) == POOL
    for seq, events in drain.told:
        stored = [told[seq - 1 + place] for place in range(len(events))]
        given = [event if isinstance(event, str) else event.topic for event in events]
        assert [one.topic for one in stored] == given
        assert all(isinstance(e, str) or e == one.event for e, one in zip(events, stored, strict=True))


def decided(state: Tenant, command: Any) -> list[Any]:
    try:
        return list(state.decide(command, NOON))
    except PeriodNotOpen as needed:
        raise AssertionError(f"{needed.period} was opened at the beginning") from None


def check(isolation: Any, seed: int) -> Counter[str]:
    store = Store(isolation)
    drain = asyncio.run(drained(store, seed))
    check_order(store, drain)
    report = verify(isolation, store.tenant)
    assert report.problem == ""
    assert drain.outcomes["usage.rejected"] + drain.outcomes["session.denied"] > 20, "it was drained"
    return drain.outcomes


@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_callers_drain_a_pool_in_one_valid_order(isolation, seed):
    outcomes = check(isolation, seed)
    for topic in ("usage.charged", "session.reserved", "session.released", "bucket.transferred"):
        assert outcomes[topic], topic


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_fifty_times_over(isolation):
    outcomes = Counter[str]()
    for seed in range(50):
        outcomes += check(isolation, seed)
    assert outcomes["session.updated"]
    assert SessionReserved.topic in outcomes
