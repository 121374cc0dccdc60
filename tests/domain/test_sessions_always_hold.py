"""What always holds (DESIGN §4) with sessions among everything else, by chance, beside a naive count.

The count adds up what events tell: charges, and what each session holds from its last event on.
"""

import random
from collections import Counter
from typing import Any

import pytest
from fixtures_counting import Count, Figures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain import canonical, snapshot
from allotment.domain.bucket import Allocate, Return, Trade, Transferred
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.contract import PeriodOpened
from allotment.domain.events import decode, encode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.session import (
    ExpireSession,
    ReleaseSession,
    Report,
    ReserveUnits,
    UpdateSession,
)
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord

MONTH = "2026-11"
GERMANY, WORLD, INSIDE = "+4930123456", "+12125550100", "200"
NODES, LINES = ("acme", "emea", "sales", "apac", "r-1", "r-2"), ("r-1", "r-2")


class Chance:
    """Things that happen to Acme, by chance, each followed by every check."""

    def __init__(self, company: Any, seed: int, now: int) -> None:
        self.company, self.now, self.chance = company, now, random.Random(seed)
        self.count = Count()
        for event in company.history:
            self.count.tell(event)
        self.records = 0
        self.numbers = Counter[str]()
        self.answers = Counter[str]()

    def step(self) -> None:
        chance = self.chance
        kind = chance.choices(
            (self.use, self.reserve, self.update, self.release, self.expire, self.transfer, self.limit),
            (4, 4, 5, 3, 1, 3, 1),
        )[0]
        command = kind()
        if command is None:
            return
        before = dict(self.count.used)
        try:
            events = self.company.do(command, self.now)
        except Refused as refusal:
            self.answers[refusal.code] += 1
            return
        for event in events:
            self.answers[event.topic] += 1
            self.count.tell(event)
        self.check(before)

    def record(self, quantity: int) -> UsageRecord:
        self.records += 1
        line, usage = self.chance.choice(LINES), self.chance.choice(["voice", "voice", "data", "messaging"])
        to = self.chance.choice([GERMANY, WORLD, INSIDE])
        at = self.now - self.chance.choice([0, 0, 0, 86_400_000_000])
        return UsageRecord("pbx", f"s{self.records}", line, usage, quantity, at, "outbound", to)

    def use(self) -> Any:
        record = self.record(self.chance.choice([0, 1, 59, 61, 200]))
        return ChargeUsage(record, record.line.encode(), b"")

    def reserve(self) -> Any:
        record = self.record(self.chance.choice([0, 0, 1, 61, 300, 2000]))
        return ReserveUnits(record, 0, record.line.encode(), b"")

    def session(self) -> str | None:
        sessions = self.company.tenant.sessions
        known = [*sessions.open, *sessions.expired]
        return self.chance.choice(known)[1] if known else None

    def report(self, session: str) -> Report:
        self.numbers[session] += 1
        more = self.chance.choice([0, 0, 1, 30, 61, 119, 250])
        known = self.company.tenant.sessions.open.get(("pbx", session))
        if known is not None and self.chance.random() < 0.5:
            return Report(total=known.used + more)
        return Report(more)

    def update(self) -> Any:
        session = self.session()
        if session is None:
            return None
        requested = self.chance.choice([0, 0, None, 1, 60, 500])
        return UpdateSession("pbx", session, self.numbers[session] + 1, self.report(session), requested)

    def release(self) -> Any:
        session = self.session()
        if session is None:
            return None
        return ReleaseSession("pbx", session, self.numbers[session] + 1, self.report(session))

    def expire(self) -> Any:
        self.now += 400_000_000
        for silent in self.company.tenant.due(self.now):
            return ExpireSession(silent.source, silent.session)
        return None

    def transfer(self) -> Any:
        kind = self.chance.choice([Allocate, Allocate, Return, Trade])
        source, target = self.chance.sample(NODES, 2)
        usage_type = self.chance.choice(["voice", "data"])
        return kind(source, target, usage_type, MONTH, self.chance.choice([1, 50, 200]))

    def limit(self) -> Any:
        node, counter = (
            self.chance.choice(NODES),
            self.chance.choice(["voice", "voice", "money", "messaging"]),
        )
        used = self.count.used[counter, NODES.index(node)]
        quantity = self.chance.choice([None, 0, used, used + 50, used + 400, 2 * used, used // 2])
        return SetLimit(node, counter, quantity, self.chance.choice([(80, 100), (50,), ()]))

    # --- what always holds --------------------------------------------------------------------

    def check(self, before: Figures) -> None:
        count, tenant = self.count, self.company.tenant
        for (usage_type, _), family in tenant.families.items():
            for ordinal in range(len(tenant.hierarchy.members)):
                key = (usage_type, ordinal)
                assert family.used[ordinal] == count.used[key] >= 0
                assert family.reserved[ordinal] == count.reserved[key]
                assert 0 <= family.reserved[ordinal] <= family.remaining[ordinal]
            granted = sum(family.remaining) + sum(family.consumed)
            assert granted == family.granted_total == count.granted[usage_type]
        count.check(before, [member.id for member in tenant.hierarchy.members])


@pytest.mark.parametrize("overage", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_it_adds_up_and_survives_a_snapshot_and_its_tail(seed, overage, acme, told, now):
    history = [
        replace(event, overage=overage) if isinstance(event, PeriodOpened) else event
        for event in acme.history
    ]
    company = told(*history)
    running = Chance(company, seed, now)
    taken: list[tuple[int, Tenant]] = []
    for step in range(250):
        running.step()
        if step % 60 == 30:
            counters = snapshot.encode_counters(snapshot.copy_counters(company.tenant))
            restored = snapshot.restore(counters, snapshot.encode_structure(company.tenant))
            taken.append((len(company.history), restored))
    expected = [*canonical.lines(company.tenant)]
    for at, restored in [(0, Tenant()), *taken]:
        for event in company.history[at:]:
            restored.apply(decode(event.topic, encode(event, "a", b"d")).event)
        assert [*canonical.lines(restored)] == expected
        assert list(restored.sessions.open) == list(company.tenant.sessions.open)
        for key, family in restored.families.items():
            assert family.mark == company.tenant.families[key].mark


def test_chance_meets_every_answer(company, now):
    answers = Counter[str]()
    for seed in range(20, 24):
        running = Chance(company(), seed, now)
        for _ in range(250):
            running.step()
        answers += running.answers
    for topic in ("reserved", "updated", "denied", "released", "expired"):
        assert answers[f"session.{topic}"], topic
    assert answers["limit.threshold_crossed"]
    assert answers["bucket.transferred"]
    assert answers["usage.rejected"]


# --- reports and the whole -----------------------------------------------------------------------


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reports=st.lists(st.tuples(st.integers(0, 200), st.sampled_from([0, None, 1, 60, 500])), max_size=6),
    to=st.sampled_from([GERMANY, WORLD, INSIDE]),
    usage_type=st.sampled_from(["voice", "messaging"]),
    allocated=st.integers(0, 400),
    own=st.integers(0, 100),
)
def test_any_split_of_reports_charges_what_one_whole_usage_charges(
    company, now, reports, to, usage_type, allocated, own
):
    used = sum(report for report, _ in reports)
    charges = []
    for split in (reports, [(used, None)], None):
        acme = company(
            Transferred("acme", "emea", "voice", MONTH, allocated + 1, "allocate"),
            Transferred("acme", "r-1", "voice", MONTH, own + 1, "allocate"),
        )
        record = UsageRecord("pbx", "s", "r-1", usage_type, 0, now, "outbound", to)
        if split is None:
            events = acme.do(ChargeUsage(replace(record, quantity=used), b"r-1", b""), now)
        else:
            acme.do(ReserveUnits(record, 0, b"r-1", b""), now)
            for number, (more, requested) in enumerate(split[:-1], 1):
                acme.do(UpdateSession("pbx", "s", number, Report(more), requested), now)
            last = split[-1][0] if split else 0
            events = acme.do(ReleaseSession("pbx", "s", 99, Report(last)), now)
        charges.append([event for event in events if isinstance(event, UsageCharged) and event.quantity])
        acme.tenant.check_whole()
        assert not any(acme.family(usage_type).reserved)
    assert charges[0] == charges[1] == charges[2]
