"""What always holds of allocation, under anything in any order, beside a naive count of the events.

The count knows the tree, who was capped when, and adds up what charges and holds drew past whom;
it knows nothing of marks, ceilings, rooms or what is carried upwards.
"""

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from msgspec.structs import replace

from allotment.domain import canonical, snapshot
from allotment.domain.allocation import ReturnUnused, TransferMany
from allotment.domain.bucket import Allocate, Granted, Return, Trade, Transferred
from allotment.domain.cap import CapSet, SetCap
from allotment.domain.charging import ChargeUsage, UsageCharged, UsageRejected
from allotment.domain.contract import ContractSigned, PeriodOpened
from allotment.domain.events import decode, encode
from allotment.domain.freeze import FreezeNode, NodeThawed, ThawNode
from allotment.domain.hierarchy import AddResource, Identity, MoveResource, NodeFrozen
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.running import Line
from allotment.domain.schedule import CarryOutSchedule, ScheduleAllocation
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionEvent, UpdateSession
from allotment.domain.template import ApplyTemplate, Rule
from allotment.domain.tenant import Tenant
from allotment.domain.terms import Terms
from allotment.domain.usage import UsageRecord

MONTH = "2026-11"
PARENTS = {"acme": None, "emea": "acme", "sales": "emea", "apac": "acme", "r-1": "sales", "r-2": "apac"}
CALLED = ("+4930123456", "+12125550100", "200", "112")


class Count:
    """By the book."""

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.parents: dict[str, str | None] = {}
        self.own: dict[tuple[str, str], int] = defaultdict(int)  # (type, member)
        self.caps: dict[tuple[str, str], int | None] = {}
        self.drawn: dict[tuple[str, str], int] = {}
        self.held: dict[str, Any] = {}
        self.frozen: set[str] = set()
        self.members: list[str] = []

    def tell(self, event: Any) -> None:
        match event:
            case Granted(node, usage_type, _, quantity):
                self.own[usage_type, node] += quantity
            case Transferred(source, target, usage_type, _, quantity):
                self.own[usage_type, source] -= quantity
                self.own[usage_type, target] += quantity
            case CapSet(node, usage_type, quantity):
                self.caps[usage_type, node] = quantity
                if (usage_type, node) not in self.drawn:
                    self.drawn[usage_type, node] = 0
                    for held in self.held.values():
                        self.draw(
                            held, held.held.drawn, 1, only=node if held.usage_type == usage_type else ""
                        )
            case NodeFrozen(node):
                self.frozen.add(node)
            case NodeThawed(node):
                self.frozen.discard(node)
            case UsageCharged():
                self.draw(event, event.drawn, 1)
            case _ if isinstance(event, SessionEvent):
                self.draw(event, event.before.drawn, -1)
                self.draw(event, event.held.drawn, 1)
                self.held[event.session] = event

    def draw(self, event: Any, drawn: Any, sign: int, only: str | None = None) -> None:
        for place, ordinal in enumerate(event.path):
            key = event.usage_type, self.members[ordinal]
            if key in self.drawn and only in (None, self.members[ordinal]):
                above = event.path[place + 1 :]
                self.drawn[key] += sign * sum(part for payer, part in drawn if payer in above)

    def above(self, member: str) -> list[str]:
        path = []
        while (parent := self.parents[member]) is not None:
            path.append(parent)
            member = parent
        return path

    def excess(self, usage_type: str) -> dict[str, int]:
        """By how much every end of the asking is over-committed, worked out from the leaves up."""
        asked: dict[str, int] = defaultdict(int)
        over = {}
        for member in sorted(self.parents, key=lambda one: -len(self.above(one))):
            cap, parent = self.caps.get((usage_type, member)), self.parents[member]
            backed = (self.own[usage_type, member] + (cap or 0)) * (100 + self.percent) // 100
            if cap is not None or parent is None:
                over[member] = asked[member] - backed
            if parent is not None:
                asked[parent] += cap if cap is not None else max(0, asked[member] - backed)
        return over


class Chance:
    """Things that happen to Acme, by chance, each followed by every check."""

    def __init__(self, company: Any, seed: int, now: int, percent: int) -> None:
        self.company, self.now, self.chance = company, now, random.Random(seed)
        self.count = Count(percent)
        self.count.parents = dict(PARENTS)
        self.count.members = list(PARENTS)
        for event in company.history:
            self.count.tell(event)
        self.records = 0
        self.numbers = Counter[str]()
        self.answers = Counter[str]()
        self.drawn_before: dict[tuple[str, str], int] = {}
        self.called = ""
        self.acts = (
            *(self.use, self.use, self.use, self.reserve, self.update, self.release, self.cap, self.cap),
            *(self.transfer, self.transfer, self.many, self.unused, self.template, self.freeze, self.thaw),
            *(self.thaw, self.thaw, self.transfer, self.transfer, self.limit, self.move, self.schedule),
        )

    def step(self) -> None:
        command = self.chance.choice(self.acts)()
        if command is None:
            return
        before = {kind: self.count.excess(kind) for kind in ("voice", "data")}
        state = [*canonical.lines(self.company.tenant)]
        try:
            events = self.decided(command)
        except Refused as refusal:
            self.answers[refusal.code] += 1
            assert [*canonical.lines(self.company.tenant)] == state
            return
        for event in events:
            self.answers[getattr(event, "reason", "") or event.topic] += 1
            self.count.tell(event)
        self.check(command, events, before)

    def decided(self, command: Any) -> Any:
        """As the writer does; what is charged plainly is what is decided."""
        company = self.company
        if not isinstance(command, ChargeUsage):
            return company.do(command, self.now)
        decided = company.tenant.decide(command, self.now)
        charged = company.tenant.plain.charge(command.record, command.token, command.sealed, self.now)
        if charged is None:
            return company.do(command, self.now)
        self.answers["plain"] += 1
        assert [charged] == list(decided)
        company.history.append(charged)
        return [charged]

    def check(self, command: Any, events: Any, before: dict[str, dict[str, int]]) -> None:
        tenant, count = self.company.tenant, self.count
        tenant.check_whole()
        for kind in ("voice", "data"):
            family = tenant.families[kind, MONTH]
            drawn = (
                {count.members[ordinal]: n for ordinal, n in family.caps.drawn.items()} if family.caps else {}
            )
            assert drawn == {member: n for (of, member), n in count.drawn.items() if of == kind}
            for (of, member), quantity in count.caps.items():
                new = [e for e in events if isinstance(e, UsageCharged | SessionEvent)]
                if of == kind and quantity is not None and new and not _gives_back(new):
                    past = self.drawn_before.get((of, member), 0)
                    assert count.drawn[of, member] <= max(quantity, past)
            if not isinstance(command, MoveResource | AddResource):
                for member, over in count.excess(kind).items():
                    assert over <= max(0, before[kind].get(member, over)), (member, command)
        for event in events:
            if isinstance(event, UsageCharged) and not any(isinstance(e, SessionEvent) for e in events):
                path = [count.members[ordinal] for ordinal in event.path]
                assert not count.frozen.intersection(path) or self.called == "112"
            if isinstance(event, Transferred):
                for end in (event.source, event.target):
                    assert not count.frozen.intersection([end, *count.above(end)])
            if isinstance(event, UsageRejected) and event.reason == "frozen":
                assert count.members[event.stopped_by] in count.frozen
        self.drawn_before = dict(count.drawn)

    # --- acts ---------------------------------------------------------------------------------

    def record(self, quantity: int) -> UsageRecord:
        self.records += 1
        lines = [member for member in self.count.members if member.startswith("r-")]
        self.called = self.chance.choice(CALLED)
        usage_type = self.chance.choice(["voice", "voice", "data"])
        told = (self.chance.choice(lines), usage_type, quantity, self.now, "outbound", self.called)
        return UsageRecord("pbx", f"s{self.records}", *told)

    def use(self) -> Any:
        record = self.record(self.chance.choice([1, 61, 200]))
        return ChargeUsage(record, record.line.encode(), b"")

    def reserve(self) -> Any:
        record = self.record(self.chance.choice([0, 61, 300, 2000]))
        return ReserveUnits(record, 0, record.line.encode(), b"")

    def report(self) -> Any:
        known = list(self.company.tenant.sessions.open)
        if not known:
            return None
        session = self.chance.choice(known)[1]
        self.numbers[session] += 1
        return session, self.numbers[session], Report(self.chance.choice([0, 1, 61, 250]))

    def update(self) -> Any:
        told = self.report()
        return told and UpdateSession("pbx", *told, self.chance.choice([0, None, 60, 500]))

    def release(self) -> Any:
        told = self.report()
        return told and ReleaseSession("pbx", *told)

    def member(self) -> str:
        return self.chance.choice(self.count.members)

    def cap(self) -> Any:
        quantity = self.chance.choice([None, 0, 60, 150, 400, 900, 1500])
        return SetCap(self.member(), self.chance.choice(["voice", "data"]), quantity)

    def transfer(self) -> Any:
        kind = self.chance.choice([Allocate, Allocate, Return, Trade])
        usage_type, quantity = self.chance.choice(["voice", "data"]), self.chance.choice([1, 50, 200])
        family = self.company.family(usage_type)
        givers = [one for one, left in zip(self.count.members, family.remaining, strict=False) if left]
        return kind(self.chance.choice(givers or ["acme"]), self.member(), usage_type, MONTH, quantity)

    def line(self) -> Line:
        usage_type, quantity = self.chance.choice(["voice", "data"]), self.chance.choice([1, 50, 200])
        action = self.chance.choice(["allocate", "allocate", "return", "trade", "cap", "cap"])
        below = self.chance.choice(["emea", "sales", "apac", "r-1", "r-2"])
        source, target = ("", below) if action == "cap" else ("acme", below)
        return Line(
            action, *((target, source) if action == "return" else (source, target)), usage_type, quantity
        )

    def many(self) -> Any:
        return TransferMany(tuple(self.line() for _ in range(self.chance.choice([1, 2, 5]))))

    def unused(self) -> Any:
        return ReturnUnused(self.member(), "", self.chance.choice(["", "voice"]), MONTH)

    def template(self) -> Any:
        rule = Rule(
            self.chance.choice(["percent", "each", "per_device"]),
            self.chance.choice([1, 7, 333, 2500]),
            self.chance.choice(["children", "resources", "cost_centre"]),
        )
        return ApplyTemplate(self.member(), "", rule, self.chance.choice(["voice", "data"]))

    def freeze(self) -> Any:
        return FreezeNode(self.member()) if len(self.count.frozen) < 2 else self.thaw()

    def thaw(self) -> Any:
        return ThawNode(self.chance.choice(sorted(self.count.frozen))) if self.count.frozen else None

    def limit(self) -> Any:
        family = self.company.family()
        node = self.member()
        used = family.used[self.count.members.index(node)]
        return SetLimit(node, "voice", self.chance.choice([None, used + 50, used + 1000]))

    def move(self) -> Any:
        self.now += 1_000_000
        if len(self.count.members) < 9:
            name, node = f"r-{len(self.count.members)}", self.chance.choice(["emea", "sales", "apac"])
            self.count.members.append(name)
            self.count.parents[name] = node
            return AddResource(name, node, "sip", 0, (Identity(name.encode(), b""),))
        name = self.chance.choice([one for one in self.count.members if one.startswith("r-")])
        node = self.chance.choice(["acme", "emea", "sales", "apac"])
        self.count.parents[name] = node
        return MoveResource(name, node, self.now)

    def schedule(self) -> Any:
        due = list(self.company.tenant.due(self.now))
        if due:
            assert isinstance(due[0], CarryOutSchedule) or self.answers["session.reserved"]
            return due[0]
        self.now += 1_000_000
        self.records += 1
        return ScheduleAllocation(f"p{self.records}", (self.line(), self.line()), "once", self.now + 1)


def _gives_back(events: list[Any]) -> bool:
    """Whether a session may use what it held before the cap came down."""
    return any(isinstance(event, SessionEvent) and event.before.drawn for event in events)


def _run(company: Any, seed: int, now: int, percent: int, steps: int) -> Chance:
    running = Chance(company, seed, now, percent)
    taken: list[tuple[int, Tenant]] = [(0, Tenant())]
    for step in range(steps):
        running.step()
        if step % 60 == 30:
            counters = snapshot.encode_counters(snapshot.copy_counters(company.tenant))
            restored = snapshot.restore(counters, snapshot.encode_structure(company.tenant))
            restored.check_whole()
            taken.append((len(company.history), restored))
    expected = [*canonical.lines(company.tenant)]
    for at, restored in taken:
        for event in company.history[at:]:
            restored.apply(decode(event.topic, encode(event, "a", b"d")).event)
        assert [*canonical.lines(restored)] == expected
        restored.check_whole()
    return running


@pytest.fixture
def enterprise(acme, told):
    def made(*, overage: bool, percent: int) -> Any:
        terms = {"overage": overage}
        history = [
            replace(event, **terms) if isinstance(event, PeriodOpened | ContractSigned) else event
            for event in acme.history
        ]
        signed = next(place for place, event in enumerate(history) if isinstance(event, ContractSigned))
        history[signed] = replace(history[signed], terms=Terms(over_commitment_percent=percent))
        return told(*history)

    return made


@pytest.mark.parametrize(("overage", "percent"), [(True, 0), (False, 0), (True, 50)])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_allocated_it_adds_up_and_survives_a_snapshot(enterprise, now, seed, overage, percent):
    _run(enterprise(overage=overage, percent=percent), seed, now, percent, 150)


@pytest.mark.soak
@pytest.mark.parametrize(("overage", "percent"), [(True, 0), (False, 0), (True, 50), (False, 200)])
@pytest.mark.parametrize("seed", range(100, 150))
def test_whatever_is_allocated_for_long(enterprise, now, seed, overage, percent):
    _run(enterprise(overage=overage, percent=percent), seed, now, percent, 400)


def test_chance_meets_every_answer(enterprise, now):
    answers = Counter[str]()
    for seed in range(20, 26):
        company = enterprise(overage=seed % 2 == 0, percent=0)
        answers += _run(company, seed, now, 0, 200).answers
    expected = {
        *("plain", "cap_reached", "frozen", "limit_exceeded", "over_committed", "bad_lines"),
        *("allocate", "return", "trade", "insufficient_allowance", "nothing_unused"),
        *("allocation.cap_set", "allocation.cap_reached", "allocation.node_frozen"),
        *("allocation.schedule_carried_out", "allocation.schedule_skipped"),
    }
    assert not expected - set(answers), expected - set(answers)
