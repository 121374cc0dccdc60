"""Every act there is, in any order, with usage and time in between: what always holds (DESIGN §4).

Beside the tenant stands a count that adds up what events tell, bucket by bucket, and knows nothing of
how they came about. A refusal and a dry run change nothing; charging plainly is charging; the stored
events alone, and a snapshot taken anywhere, lead to the same bytes.
"""

import random
from collections import Counter, defaultdict
from hashlib import sha256
from typing import Any

import pytest
from all_acts import DAY, HOUR, RATES, Acts

from allotment.domain import canonical, snapshot
from allotment.domain.bucket import Allocate, Granted, Transferred
from allotment.domain.cap import SetCap
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.contract import Grant, OpenPeriod, PeriodNotOpen, SignContract
from allotment.domain.events import decode, encode
from allotment.domain.granting import GrantChanged, ToppedUp
from allotment.domain.hierarchy import AddNode, AddResource, Identity
from allotment.domain.life import CloseNode
from allotment.domain.limit import LimitSet, ThresholdCrossed
from allotment.domain.refusals import Refused
from allotment.domain.rollover import RolledOver
from allotment.domain.session import SessionEvent
from allotment.domain.tariff import PublishTariff
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.terms import RollOverRule, Terms
from allotment.domain.trading import Reserving
from allotment.domain.usage import UsageRecord

BEGIN = 1_793_487_600_000_000
"""Midnight of 1 November 2026 in Berlin: the clocks have just changed."""
PEOPLE = ("telecoms_manager:u-1", "telecoms_manager:u-2")
OPENING = (
    OpenTenant("Acme", "Europe/Berlin", "EUR", ""),
    AddNode("acme", "", "", "enterprise"),
    AddNode("emea", "acme", "", "division"),
    AddNode("sales", "emea", "", "cost_centre"),
    AddNode("apac", "acme", "", "division"),
    *(
        AddResource(name, node, "sip", 0, (Identity(name.encode(), b""),))
        for name, node in (("r-1", "sales"), ("r-2", "apac"), ("r-3", "emea"), ("r-4", "sales"))
    ),
    PublishTariff("t", 0, "EUR", RATES),
)
TERMS = Terms(rollover=(RollOverRule("voice", 2, 500),), over_commitment_percent=20)
GRANTS = (Grant("voice", 3000), Grant("data", 20_000), Grant("money", 100_000))


class Count:
    """By the book: one figure for each bucket, from what events tell."""

    def __init__(self) -> None:
        self.members: list[str] = []
        self.remaining: Counter[Any] = Counter()  # (type, period, ordinal)
        self.consumed: Counter[Any] = Counter()
        self.reserved: Counter[Any] = Counter()
        self.used: Counter[Any] = Counter()
        self.granted: Counter[Any] = Counter()  # (type, period)
        self.gone: Counter[Any] = Counter()
        self.held: dict[str, Any] = {}
        self.charged: set[tuple[str, str]] = set()
        self.sets: dict[Any, int] = defaultdict(int)
        self.fired: set[Any] = set()

    def tell(self, event: Any) -> None:
        match event:
            case _ if hasattr(event, "ordinal"):
                assert event.ordinal == len(self.members)
                self.members.append(
                    getattr(event, "node", "") if hasattr(event, "parent") else event.resource
                )
            case Granted() | ToppedUp():
                self.put(event.node, event, event.quantity)
            case GrantChanged():
                self.put(event.node, event, event.change)
            case Transferred():
                for node, sign in ((event.source, -1), (event.target, 1)):
                    self.remaining[self.place(node, event)] += sign * event.quantity
            case RolledOver():
                self.roll(event)
            case UsageCharged():
                self.charge(event)
            case LimitSet():
                self.sets[event.node, event.usage_type, event.window] += 1
            case ThresholdCrossed():
                self.fire(event)
        if isinstance(event, SessionEvent):
            self.hold(event, event.before, -1)
            self.hold(event, event.held, 1)
        if isinstance(event, Reserving):
            for sign, told in ((-1, event.freed), (1, event.reserved)):
                for one in told:
                    self.reserved[self.place(one.node, one)] += sign * one.quantity

    def place(self, node: str, event: Any) -> Any:
        return event.usage_type, event.period, self.members.index(node)

    def put(self, node: str, event: Any, quantity: int) -> None:
        self.remaining[self.place(node, event)] += quantity
        self.granted[event.usage_type, event.period] += quantity

    def roll(self, event: RolledOver) -> None:
        for bucket in event.buckets:
            rolled = sum(part for _, part in bucket.rolled)
            self.remaining[event.usage_type, event.period, bucket.ordinal] -= rolled + bucket.expired
            self.gone[event.usage_type, event.period] += rolled + bucket.expired
            if event.into and rolled:
                self.remaining[event.usage_type, event.into, bucket.target] += rolled
                self.granted[event.usage_type, event.into] += rolled

    def charge(self, event: UsageCharged) -> None:
        assert (event.source, event.record_id) not in self.charged
        self.charged.add((event.source, event.record_id))
        assert sum(part for _, part in event.drawn) + event.overage == event.billed
        for usage_type, drawn in ((event.usage_type, event.drawn), ("money", event.credit)):
            for ordinal, part in drawn:
                self.remaining[usage_type, event.period, ordinal] -= part
                self.consumed[usage_type, event.period, ordinal] += part
        if event.payer == "corporate":
            self.use(event, event.billed, event.amount, 1)

    def hold(self, event: Any, held: Any, sign: int) -> None:
        self.use(event, held.billed, held.amount, sign)
        for ordinal, part in held.drawn:
            self.reserved[event.usage_type, event.period, ordinal] += sign * part

    def use(self, event: Any, billed: int, amount: int, sign: int) -> None:
        for ordinal in event.path:
            self.used[event.usage_type, event.period, ordinal] += sign * billed
            self.used["money", event.period, ordinal] += sign * amount

    def fire(self, event: ThresholdCrossed) -> None:
        """Once for each crossing and period; a limit that is set anew may tell anew."""
        about = (event.node, event.usage_type, event.window)
        key = (*about, event.of or event.period, event.percent, event.at, event.limit)
        crossing = (*key, event.policy, event.version, self.sets[about])
        assert crossing not in self.fired, event
        self.fired.add(crossing)

    def check(self, tenant: Tenant) -> None:
        for (usage_type, period), family in tenant.families.items():
            places = [(usage_type, period, ordinal) for ordinal in range(len(tenant.hierarchy.members))]
            assert family.remaining == [self.remaining[place] for place in places]
            assert family.consumed == [self.consumed[place] for place in places]
            assert family.reserved == [self.reserved[place] for place in places]
            assert family.used == [self.used[place] for place in places]
            assert all(0 <= self.reserved[place] <= self.remaining[place] for place in places)
            gone = sum(family.consumed) + self.gone[usage_type, period]
            assert self.granted[usage_type, period] == sum(family.remaining) + gone


class World:
    """A tenant to which everything happens."""

    def __init__(self, seed: int) -> None:
        self.tenant, self.history, self.count = Tenant(), [], Count()
        self.now, self.chance = BEGIN + 12 * HOUR, random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.taken: list[tuple[int, Tenant]] = [(0, Tenant())]
        for command in (*OPENING, SignContract("c", "2026-01-01", GRANTS, True, TERMS)):
            self.tell(self.tenant.decide(command, self.now))
        for node, usage_type, quantity in (
            *(("emea", "voice", 900), ("apac", "voice", 900), ("emea", "data", 6_000)),
            *(("apac", "money", 20_000), ("emea", "money", 20_000), ("apac", "data", 6_000)),
        ):
            self.do(Allocate("acme", node, usage_type, "", quantity))
        self.acts = Acts(self.chance, self.tenant, self.history, self.now)

    def tell(self, events: Any) -> None:
        for event in events:
            self.tenant.apply(event)
            self.note(event)

    def note(self, event: Any) -> None:
        self.history.append(event)
        if isinstance(event, RolledOver):
            closed = self.tenant.hierarchy.closed
            assert not any(bucket.rolled and bucket.target in closed for bucket in event.buckets)
        self.count.tell(event)
        self.answers[event.topic] += 1

    def digest(self) -> bytes:
        return sha256(b"".join(canonical.lines(self.tenant))).digest()

    def step(self) -> None:
        command = self.acts.next()
        if command is not None:
            self.do(command)
        if self.chance.random() < 0.15:
            self.wait(self.chance.choice([0, 0, 0, 1, 1, 7, 24, 24 * 6]))

    def wait(self, hours: int) -> None:
        self.now += hours * HOUR + 1
        self.acts.now = self.now
        for _ in range(200):
            due = [*self.tenant.due(self.now)]
            if not due:
                return
            for command in due:
                self.do(command, timed=True)
        raise AssertionError(f"what is due is done at some time, or not due any more: {due}")

    def do(self, command: Any, *, timed: bool = False) -> None:
        """As the writer does it. To decide, or to refuse, changes nothing: any decision is a dry run."""
        by = "allotment:time" if timed else self.chance.choice(PEOPLE)
        looking = self.chance.random() < 0.3
        before = self.digest() if looking else b""
        try:
            events = list(self.tenant.decide(command, self.now, by))
        except PeriodNotOpen as needed:
            self.tell(self.tenant.decide(OpenPeriod(needed.period), self.now, by))
            self.do(command, timed=timed)
            return
        except Refused as refusal:
            self.answers[refusal.code] += 1
            events = []
        assert not looking or self.digest() == before, command
        if isinstance(command, ChargeUsage) and events:
            self.charge(command, events)
        else:
            self.tell(events)
        self.check(command)

    def charge(self, command: ChargeUsage, events: Any) -> None:
        untouched = self.digest()
        charged = self.tenant.plain.charge(command.record, command.token, command.sealed, self.now)
        if charged is None:
            assert self.digest() == untouched
            self.tell(events)
        else:
            assert events == [charged]
            self.answers["plain"] += 1
            self.note(charged)

    def check(self, command: Any) -> None:
        try:
            self.tenant.check_whole()
            self.count.check(self.tenant)
        except AssertionError as error:
            raise AssertionError(f"after {command} at seq {len(self.history)}") from error

    def copy(self) -> None:
        counters = snapshot.encode_counters(snapshot.copy_counters(self.tenant))
        restored = snapshot.restore(counters, snapshot.encode_structure(self.tenant))
        assert sha256(b"".join(canonical.lines(restored))).digest() == self.digest()
        restored.check_whole()
        self.taken.append((len(self.history), restored))

    def run(self, steps: int) -> None:
        for step in range(steps):
            self.step()
            if step % 70 == 35:
                self.copy()
        self.end()

    def end(self) -> None:
        """From any of them on, what was stored leads here."""
        stored = [encode(event, "a", b"12345678") for event in self.history]
        for at, restored in self.taken:
            for event, state in zip(self.history[at:], stored[at:], strict=True):
                restored.apply(decode(event.topic, state).event)
            restored.check_whole()
            assert [*canonical.lines(restored)] == [*canonical.lines(self.tenant)]
            assert restored.next_due() == self.tenant.next_due()
            at_last = self.now + 40 * DAY
            assert [*restored.due(at_last)] == [*self.tenant.due(at_last)]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_whatever_order_it_adds_up_and_is_told_by_the_log(seed):
    world = World(seed)
    world.run(150)
    for topic in ("usage.charged", "plain", "bucket.transferred", "bucket.rolled_over", "session.released"):
        assert world.answers[topic], topic


def test_what_was_drawn_past_a_cap_stays_counted_in_a_snapshot_when_its_node_is_closed():
    world = World(0)
    world.do(SetCap("sales", "voice", 500))
    record = UsageRecord("pbx", "one", "r-1", "voice", 60, world.now, "outbound", "+4930123456")
    world.do(ChargeUsage(record, b"r-1", b""))
    world.now += 1
    world.do(CloseNode("sales", "emea"))
    assert world.answers["hierarchy.node_closed"]
    world.copy()
    world.end()


def test_what_a_closed_node_had_rolls_over_to_whoever_it_was_merged_into():
    world = World(0)
    world.do(Allocate("acme", "sales", "voice", "", 100))
    world.now = BEGIN + 30 * DAY
    world.do(CloseNode("sales", "apac"))
    world.wait(0)
    rolled = [event for event in world.history if isinstance(event, RolledOver)]
    (told,) = (event for event in rolled if event.usage_type == "voice")
    names = {bucket.ordinal: world.count.members[bucket.target] for bucket in told.buckets if bucket.rolled}
    assert {world.count.members[one]: to for one, to in names.items()}["sales"] == "apac"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1_000, 2_000))
def test_so_it_does_for_longer(seed):
    World(seed).run(400)
