"""What always holds while members offer, accept, answer, approve and undo, with usage in between.

After every single event: each type sums to what was granted, and what is reserved is what running
sessions, open offers and waiting transfers hold, counted here from what the events tell. In the
end the stored events, a snapshot and its tail lead to the same bytes.
"""

import random
from collections import Counter, defaultdict
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allotment.domain import canonical, snapshot
from allotment.domain.approval import Approver, ApproveTransfer, DeclineTransfer, SetApprovalRule
from allotment.domain.bucket import Allocate, Granted, Return, Trade, Transferred
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.contract import Grant, OpenPeriod, SignContract, bounds_of
from allotment.domain.events import decode, encode
from allotment.domain.hierarchy import AddNode, AddResource, Identity
from allotment.domain.offer import (
    NOTHING_ASKED,
    AcceptOffer,
    Ask,
    OfferAccepted,
    OfferTrade,
    WithdrawOffer,
)
from allotment.domain.refusals import Refused
from allotment.domain.reservation import Leg
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionEvent
from allotment.domain.splitting import WINDOWS
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.trade_rules import SetTradeRules
from allotment.domain.trading import Reserving, UndoTransfer
from allotment.domain.usage import UsageRecord

MONTH, HOUR = "2026-11", 3_600_000_000
NOW = bounds_of(MONTH, ZoneInfo("UTC"))[0] + 24 * HOUR
ACME = (
    OpenTenant("Acme", "UTC", "EUR", ""),
    AddNode("acme", "", "", "enterprise"),
    AddNode("emea", "acme", "", "division"),
    AddNode("sales", "emea", "", "cost_centre"),
    AddNode("apac", "acme", "", "division"),
    AddResource("r-1", "sales", "sip", 0, (Identity(b"r-1", b""),)),
    AddResource("r-2", "apac", "sip", 0, (Identity(b"r-2", b""),)),
    SignContract("c", "2026-01-01", (Grant("voice", 1000), Grant("data", 10_000))),
    PublishTariff("t", 0, "EUR", (Rate("voice", "any", "0.01"), Rate("data", "any", "0.01"))),
    OpenPeriod(MONTH),
)
MEMBERS = ("acme", "emea", "sales", "apac", "r-1", "r-2")
PEOPLE = ("telecoms_manager:u-1", "telecoms_manager:u-2")
PICK = st.integers(0, 10**6)
QUANTITY = st.one_of(st.integers(-1, 3), st.integers(1, 120), st.sampled_from([100, 200, 1000]))
TYPE = st.sampled_from(["voice", "data", "money"])
ASK = st.one_of(
    st.just(NOTHING_ASKED),
    st.builds(Ask, TYPE, st.integers(1, 4), st.sampled_from([1, 1, 2, 3, 10])),
)
ODD = st.sampled_from([False, False, False, True])
"""Now and then something unlikely."""
LOTS = st.one_of(st.none(), st.integers(1, 9))


class AnyMarket(RuleBasedStateMachine):
    @initialize(approved_above=st.sampled_from([None, 0, 40]), eyes=st.booleans())
    def open(self, approved_above, eyes):
        self.tenant, self.history, self.snapshots = Tenant(), [], []
        self.now, self.number = NOW, 0
        self.reserved = defaultdict(int)
        self.granted = Counter()
        for command in ACME:
            self.do(command)
        self.tell(Granted("acme", "money", MONTH, 500), Granted("apac", "money", MONTH, 500))
        for node, usage_type in (("emea", "data"), ("apac", "data"), ("emea", "voice"), ("apac", "voice")):
            self.do(Allocate("acme", node, usage_type, MONTH, 300))
        if approved_above is not None:
            for usage_type in ("voice", "data", "money"):
                rule = SetApprovalRule("emea", usage_type, approved_above, Approver("emea"), eyes)
                self.do(rule)

    def do(self, command, person=0):
        by = PEOPLE[person % len(PEOPLE)]
        try:
            events = self.tenant.decide(command, self.now, by)
        except Refused:
            return []
        self.tell(*events)
        return events

    def tell(self, *events):
        for event in events:
            self.tenant.apply(event)
            self.history.append(event)
            self.count(event)
            self.check()

    def count(self, event):
        """As a reader of the log does, who knows nothing of offers."""
        ordinals = {member.id: member.ordinal for member in self.tenant.hierarchy.members}
        if isinstance(event, Granted):
            self.granted[event.usage_type] += event.quantity
        if isinstance(event, Reserving):
            for sign, told in ((-1, event.freed), (1, event.reserved)):
                for one in told:
                    self.reserved[one.usage_type, one.period, ordinals[one.node]] += sign * one.quantity
        if isinstance(event, SessionEvent):
            for sign, hold in ((-1, event.before), (1, event.held)):
                for ordinal, part in hold.drawn:
                    self.reserved[event.usage_type, event.period, ordinal] += sign * part

    def check(self):
        tenant = self.tenant
        tenant.check_whole()
        for (usage_type, period), family in tenant.families.items():
            assert sum(family.remaining) + sum(family.consumed) == self.granted[usage_type]
            for ordinal, held in enumerate(family.reserved):
                assert held == self.reserved[usage_type, period, ordinal] <= family.remaining[ordinal]

    def pick(self, known, which):
        known = list(known)
        return known[which % len(known)] if known else "nobody"

    # --- what may happen ----------------------------------------------------------------------

    @rule(
        which=PICK,
        usage_type=TYPE,
        lots=st.integers(1, 30),
        odd=ODD,
        asks=ASK,
        everybody=st.booleans(),
        hours=st.sampled_from([0, 0, 0, 4, 10**6]),
    )
    def offer(self, which, usage_type, lots, odd, asks, everybody, hours):
        self.number += 1
        source, target = ("emea", "apac") if which % 2 else ("apac", "emea")
        if odd:
            source, target, lots = MEMBERS[which % 6], MEMBERS[which // 6 % 6], lots - 3
        self.do(
            OfferTrade(
                *(f"o{self.number}", source, usage_type, lots * asks.lot + odd, asks),
                target="" if everybody else target,
                whole=which % 5 == 0,
                expires_at=self.now + hours * HOUR if hours else 0,
            )
        )

    @precondition(lambda self: self.tenant.trading.offers.open)
    @rule(which=PICK, usage_type=TYPE, lots=st.integers(0, 20), asks=ASK, everybody=ODD)
    def counter(self, which, usage_type, lots, asks, everybody):
        self.number += 1
        made = self.tenant.trading.offers.open[self.pick(self.tenant.trading.offers.open, which)].made
        source = {"emea": "apac", "apac": "emea"}.get(made.source, MEMBERS[which % 6])
        ident = f"o{self.number}"
        self.do(OfferTrade(ident, source, usage_type, lots * asks.lot, asks, counters=made.offer))

    @precondition(lambda self: self.tenant.trading.offers.open)
    @rule(which=PICK, lots=LOTS, odd=ODD, person=PICK)
    def accept(self, which, lots, odd, person):
        self.take(which, lots, odd, person)

    @precondition(lambda self: self.tenant.trading.offers.open)
    @rule(which=PICK, lots=LOTS, person=PICK)
    def accept_again(self, which, lots, person):
        """As often again as other things."""
        self.take(which, lots, False, person)

    def take(self, which, lots, odd, person):
        offers = self.tenant.trading.offers
        known = offers.known(self.pick([*offers.open, *(list(offers.ended)[-1:] if odd else [])], which))
        target = {"emea": "apac", "apac": "emea"}.get(known.made.source, "r-2")
        if odd:
            target = MEMBERS[which % 6]
        elif not known.made.everybody:
            target = known.made.target
        quantity = None if lots is None else lots * known.made.lot + odd
        self.do(AcceptOffer(known.made.offer, target, quantity), person)

    @precondition(lambda self: len(self.tenant.trading.offers.open) > 2)
    @rule(which=PICK)
    def withdraw(self, which):
        self.do(WithdrawOffer(self.pick(self.tenant.trading.offers.open, which)))

    @rule(kind=st.sampled_from([Allocate, Return, Trade]), source=PICK, taker=PICK, usage_type=TYPE,
          quantity=QUANTITY, person=PICK)  # fmt: skip
    def transfer(self, kind, source, taker, usage_type, quantity, person):
        if usage_type != "money":
            self.do(kind(MEMBERS[source % 6], MEMBERS[taker % 6], usage_type, MONTH, quantity), person)

    @precondition(lambda self: self.tenant.trading.approvals.waiting)
    @rule(which=PICK, person=PICK, yes=st.sampled_from([True, True, False]))
    def answer(self, which, person, yes):
        proposal = self.pick(self.tenant.trading.approvals.waiting, which)
        self.do(ApproveTransfer(proposal) if yes else DeclineTransfer(proposal), person)

    @rule(
        node=PICK,
        usage_type=TYPE,
        above=st.sampled_from([None, 0, 50, 500]),
        person=PICK,
        window=st.sampled_from(WINDOWS),
    )
    def regulate(self, node, usage_type, above, person, window):
        if person % 3:
            given = (MEMBERS[node % 6], usage_type, above, Approver("acme"), person % 2 == 0)
            self.do(SetApprovalRule(*given, window=window))
        else:
            self.do(SetTradeRules(None if above is None else above + 3))

    @rule(which=PICK)
    def undo(self, which):
        done = [
            (seq, event)
            for seq, event in enumerate(self.history, 1)
            if isinstance(event, OfferAccepted)
            or (isinstance(event, Transferred) and event.reason in ("allocate", "return"))
        ]
        if done:
            seq, event = done[which % len(done)]
            legs = event.legs if isinstance(event, OfferAccepted) else (_leg(event),)
            self.do(UndoTransfer(seq, legs))

    @rule(hours=st.sampled_from([0, 0, 1, 30, 24 * 8]))
    def time(self, hours):
        if self.now + hours * HOUR < NOW + 27 * 24 * HOUR:
            self.now += hours * HOUR
        trading = self.tenant.trading
        for command in trading.due(self.now):
            assert self.do(command), "what is due can be carried out"
        assert trading.next_due() is None or trading.next_due() > self.now

    @rule(which=PICK, usage_type=st.sampled_from(["voice", "data"]), quantity=st.integers(0, 300))
    def use(self, which, usage_type, quantity):
        command = self.usage(which, usage_type, quantity)
        if which % 2:
            self.do(ChargeUsage(command, command.line.encode(), b""))
        else:
            before = [*canonical.lines(self.tenant)]
            charged = self.tenant.plain.charge(command, command.line.encode(), b"", NOW)
            if charged is None:
                assert [*canonical.lines(self.tenant)] == before
            else:
                self.history.append(charged)
                self.check()

    @rule(which=PICK, usage_type=st.sampled_from(["voice", "data"]), quantity=st.integers(0, 300))
    def reserve(self, which, usage_type, quantity):
        record = self.usage(which, usage_type, quantity)
        self.do(ReserveUnits(record, 0, record.line.encode(), b""))

    @rule(which=PICK, used=st.integers(0, 100))
    def release(self, which, used):
        running = self.tenant.sessions.open
        if running:
            _, session = self.pick(running, which)
            self.do(ReleaseSession("pbx", session, 1, Report(used)))

    def usage(self, which, usage_type, quantity):
        self.number += 1
        line = MEMBERS[4 + which % 2]
        return UsageRecord(
            *("pbx", f"u{self.number}", line, usage_type, quantity, NOW, "outbound", "+4930123456")
        )

    @rule()
    def copy(self):
        self.snapshots.append((len(self.history), copied(self.tenant)))

    # --- what always holds --------------------------------------------------------------------

    @invariant()
    def a_charge_is_paid_by_what_is_not_promised(self):
        for event in self.history[-1:]:
            if isinstance(event, UsageCharged):
                assert sum(part for _, part in event.drawn) + event.overage == event.billed

    def teardown(self):
        expected = [*canonical.lines(self.tenant)]
        for at, restored in [(0, Tenant()), *self.snapshots]:
            for event in self.history[at:]:
                restored.apply(decode(event.topic, encode(event, "a", b"d")).event)
            assert [*canonical.lines(restored)] == expected
            assert list(restored.trading.offers.ended) == list(self.tenant.trading.offers.ended)
            assert restored.trading.next_due() == self.tenant.trading.next_due()


def _leg(event):
    return Leg(event.source, event.target, event.usage_type, event.period, event.quantity)


def copied(tenant):
    counters = snapshot.encode_counters(snapshot.copy_counters(tenant))
    return snapshot.restore(counters, snapshot.encode_structure(tenant))


TestAnyMarket = AnyMarket.TestCase
TestAnyMarket.settings = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("seed", range(4))
def test_long_histories_meet_every_event_of_trade(seed):
    chance, market = random.Random(seed), AnyMarket()
    market.open(approved_above=[9, 0][seed % 2], eyes=seed > 1)
    for _ in range(250):
        _step(market, chance)
    market.teardown()
    topics = {event.topic for event in market.history}
    assert topics >= {"offer.made", "offer.accepted", "offer.closed", "transfer.undone", "usage.charged"}
    assert topics >= {"transfer.proposed", "transfer.approved", "transfer.declined", "session.reserved"}


def _step(market, chance):
    which, odd, person = chance.randrange(10**6), chance.random() < 0.15, chance.randrange(9)
    usage_type = chance.choice(["voice", "data", "money"])
    other = {"voice": "data", "data": "money", "money": "voice"}[usage_type]
    asks = chance.choice([NOTHING_ASKED, Ask(other, chance.randint(1, 3), chance.randint(1, 3))])
    lots, trading = chance.randint(1, 20), market.tenant.trading
    steps = [
        lambda: market.offer(
            which, usage_type, lots, odd, asks, chance.random() < 0.5, chance.choice([0, 9])
        ),
        lambda: market.regulate(which, usage_type, chance.choice([None, 50]), person, WINDOWS[which % 3]),
        lambda: market.transfer(Trade, 1, 3, usage_type, 5, person),
        lambda: market.undo(which),
        lambda: market.use(which, "voice", lots),
        lambda: market.reserve(which, "data", lots),
        lambda: market.release(which, lots),
        lambda: market.time(chance.choice([0, 1, 5])),
        market.copy,
    ]
    if trading.offers.open:
        taking = [lambda: market.take(which, chance.choice([None, 1, lots]), odd, person)] * 3
        steps += [lambda: market.counter(which, usage_type, lots, asks, odd), *taking]
        steps += [lambda: market.withdraw(which)] if chance.random() < 0.3 else []
    if trading.approvals.waiting:
        steps += [lambda: market.answer(which, person, chance.random() < 0.7)] * 2
    if chance.random() > 0.02 or len(market.history) < 100:
        steps = [step for step in steps if step is not market.copy]
    chance.choice(steps)()
