"""Whatever is agreed and whatever happens: nothing is made or lost, and both ways of charging agree."""

from hashlib import sha256
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from allotment.domain import snapshot
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.calendar import Calendar, local_day
from allotment.domain.canonical import lines
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.contract import (
    EndContract,
    Grant,
    OpenPeriod,
    PeriodNotOpen,
    RenewContract,
    SignContract,
)
from allotment.domain.events import decode, encode
from allotment.domain.granting import ChangeGrants, TopUp
from allotment.domain.hierarchy import AddNode, AddResource, Identity
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.session import ReleaseSession, Report, ReserveUnits
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.terms import OveragePrice, RollOverRule, Terms
from allotment.domain.usage import UsageRecord
from allotment.domain.usage_type import DefineUsageType

DAY = 86_400_000_000
BEGIN = 1_793_487_600_000_000
"""Midnight of 1 November 2026 in Berlin."""
TYPES = ["voice", "iot", "money"]
MEMBERS = ["acme", "emea", "apac", "r-1"]
QUANTITY = st.one_of(st.integers(0, 3), st.integers(1, 400))
CALENDARS = st.sampled_from(
    [
        Calendar(),
        Calendar("billing_day", 15),
        Calendar("billing_day", 31),
        Calendar("weekly", 3),
        Calendar("days", 10, ("2026-11-01",)),
    ]
)
RULES = st.lists(
    st.builds(
        RollOverRule,
        st.sampled_from(["voice", "money"]),
        st.integers(1, 3),
        st.none() | st.integers(0, 400),
    ),
    max_size=2,
    unique_by=lambda rule: rule.usage_type,
)
TERMS = st.builds(
    Terms,
    calendar=CALENDARS,
    prorate=st.booleans(),
    rollover=RULES.map(tuple),
    rolls_to_enterprise=st.booleans(),
    settle_after_hours=st.sampled_from([0, 0, 30]),
    expires=st.booleans(),
    overage_prices=st.sampled_from([(), (OveragePrice("voice", "0.000007", 3),)]),
)


class AnyTerms(RuleBasedStateMachine):
    """A tenant whose contract changes all the time."""

    @initialize(terms=TERMS, overage=st.booleans())
    def open(self, terms, overage):
        self.tenant, self.history, self.now, self.made = Tenant(), [], BEGIN, 0
        self.do(OpenTenant("Any", "Europe/Berlin", "EUR", ""))
        self.do(AddNode("acme", "", "", "enterprise"))
        self.do(AddNode("emea", "acme", "", "division"))
        self.do(AddNode("apac", "acme", "", "division"))
        self.do(AddResource("r-1", "emea", "sip", 0, (Identity(b"r-1", b""),)))
        self.do(DefineUsageType("iot", "message"))
        rates = (
            Rate("voice", "any", "0.00001", per=2, increment=10, connect_fee="0.00002"),
            Rate("iot", "any", "0.00003"),
        )
        self.do(PublishTariff("t", 0, "EUR", rates, decimals=6))
        self.sign(terms, overage, "2026-11-01")

    def sign(self, terms, overage, starts_on):
        grants = (Grant("voice", 1000), Grant("iot", 50), Grant("money", 500))
        return self.do(SignContract("c", starts_on, grants, overage, terms))

    def do(self, command):
        """As the writer does it; a refusal changes nothing."""
        try:
            try:
                events = self.tenant.decide(command, self.now)
            except PeriodNotOpen as needed:
                self.tell(self.tenant.decide(OpenPeriod(needed.period), self.now))
                events = self.tenant.decide(command, self.now)
        except Refused as refused:
            return refused.code
        return self.tell(events)

    def tell(self, events):
        for event in events:
            self.tenant.apply(event)
            self.history.append(event)
        return events

    @rule(days=st.sampled_from([0, 1, 3, 8, 20]))
    def wait(self, days):
        self.now += days * DAY + 1
        for _ in range(200):
            due = [*self.tenant.due(self.now)]
            if not due:
                return
            for command in due:
                assert not isinstance(self.do(command), str), command
        raise AssertionError("what is due is done at some time")

    @rule(
        quantity=QUANTITY,
        usage_type=st.sampled_from(["voice", "voice", "iot"]),
        ago=st.sampled_from([0, 0, 2]),
    )
    def use(self, quantity, usage_type, ago):
        self.made += 1
        record = UsageRecord("s", str(self.made), "r-1", usage_type, quantity, self.now - ago * DAY)
        self.charge(ChargeUsage(record, b"r-1", b""))

    def charge(self, command):
        """What is plain in one go gives what deciding gives; anything else leaves no trace."""
        try:
            events = list(self.tenant.decide(command, self.now))
        except PeriodNotOpen:
            self.do(command)
            return
        before = sha256(b"".join(lines(self.tenant))).digest()
        charged = self.tenant.plain.charge(command.record, command.token, command.sealed, self.now)
        if charged is None:
            assert sha256(b"".join(lines(self.tenant))).digest() == before
            self.tell(events)
        else:
            assert events == [charged]
            self.history.append(charged)

    @rule(quantity=QUANTITY, used=QUANTITY, days=st.sampled_from([0, 0, 9]))
    def session(self, quantity, used, days):
        self.made += 1
        ident = f"c-{self.made}"
        record = UsageRecord("n", ident, "r-1", "voice", quantity, self.now)
        if not isinstance(self.do(ReserveUnits(record, 1, b"r-1", b"")), str):
            self.now += days * DAY
            for command in [*self.tenant.due(self.now)]:
                self.do(command)
            self.do(ReleaseSession("n", ident, 2, Report(used)))

    @rule(
        kind=st.sampled_from([Allocate, Return, Trade]),
        source=st.sampled_from(MEMBERS),
        taker=st.sampled_from(MEMBERS),
        usage_type=st.sampled_from(TYPES),
        quantity=QUANTITY,
    )
    def move(self, kind, source, taker, usage_type, quantity):
        self.do(kind(source, taker, usage_type, "", quantity))

    @rule(usage_type=st.sampled_from(TYPES), quantity=QUANTITY)
    def top_up(self, usage_type, quantity):
        self.do(TopUp(usage_type, quantity))

    @rule(usage_type=st.sampled_from(TYPES), quantity=QUANTITY, prorate=st.booleans())
    def change(self, usage_type, quantity, prorate):
        self.do(ChangeGrants("c", (Grant(usage_type, quantity),), prorate))

    @rule(usage_type=st.sampled_from(TYPES), quantity=st.none() | st.integers(0, 3000))
    def limit(self, usage_type, quantity):
        self.do(SetLimit("emea", usage_type, quantity, (50, 100)))

    @rule(terms=TERMS, overage=st.booleans(), days=st.integers(-20, 20))
    def sign_again(self, terms, overage, days):
        zone = self.tenant.contracts.zone
        day = max(self.now + days * DAY, BEGIN)

        self.sign(terms, overage, local_day(day, zone).isoformat())

    @rule(days=st.integers(0, 30), renewed=st.booleans())
    def end(self, days, renewed):

        ends_on = local_day(self.now + days * DAY, self.tenant.contracts.zone).isoformat()
        self.do(EndContract("c", ends_on))
        if renewed:
            self.do(RenewContract("c"))

    # --- what always holds ------------------------------------------------------------------

    @invariant()
    def nothing_is_made_or_lost(self):
        self.tenant.check_whole()
        for family in self.tenant.families.values():
            gone = family.consumed_total + family.expired_total + family.rolled_total
            assert family.granted_total == sum(family.remaining) + gone
        rolled = sum(family.rolled_total for family in self.tenant.families.values())
        assert rolled == sum(family.rolled_in_total for family in self.tenant.families.values())

    @invariant()
    def periods_lie_beside_each_other_in_the_order_of_their_names(self):
        known = sorted(self.tenant.contracts.periods.values(), key=lambda period: period.starts_at)
        assert [period.period for period in known] == sorted(self.tenant.contracts.periods)
        for before, after in pairwise(known):
            assert before.starts_at < before.ends_at <= after.starts_at

    @invariant()
    def credit_pays_no_more_than_was_charged(self):
        for event in self.history[-3:]:
            if isinstance(event, UsageCharged):
                assert 0 <= event.payable <= event.amount

    def teardown(self):
        """The stored events alone lead to the same bytes, and so does a snapshot."""
        folded = Tenant()
        for event in self.history:
            folded.apply(decode(event.topic, encode(event, "a", b"d")).event)
        assert b"".join(lines(folded)) == b"".join(lines(self.tenant))
        counters = snapshot.encode_counters(snapshot.copy_counters(folded))
        again = snapshot.restore(counters, snapshot.encode_structure(folded))
        assert b"".join(lines(again)) == b"".join(lines(self.tenant))
        assert again.next_due() == self.tenant.next_due()
        at = self.now + 40 * DAY
        assert [*again.due(at)] == [*self.tenant.due(at)]
        assert again.contracts.name_at(at) == self.tenant.contracts.name_at(at)


TestAnyTerms = AnyTerms.TestCase
TestAnyTerms.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
