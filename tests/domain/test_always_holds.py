"""What always holds (DESIGN §4), under any commands in any order, beside a naive model.

The model keeps dictionaries and adds up; it knows nothing of marks, ceilings or prefixes. After
every step every counter of the tenant is compared with it, and at the end the stored events
alone must lead to the same bytes.
"""

from collections import defaultdict
from fractions import Fraction
from hashlib import sha256
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from allotment.backend.log import Group, MemoryLog, replay
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.canonical import lines
from allotment.domain.charging import ChargeUsage, UsageCharged, UsageRejected
from allotment.domain.contract import Grant, OpenPeriod, SignContract, bounds_of
from allotment.domain.events import encode
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.limit import SetLimit, ThresholdCrossed
from allotment.domain.refusals import Refused
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.usage import UsageRecord

TENANT = UUID(int=7)
PERIODS = ("2026-10", "2026-11")
GRANTS = {"voice": 300, "data": 5000}
NUMBERS = ("+4930", "+12125550100", "200", "")


class Model:
    """The same enterprise, by the book."""

    def __init__(self):
        self.parent = {"n0": None}
        self.stays = {}  # resource -> [(since, node or None)]
        self.remaining = defaultdict(int)  # (type, period, member) -> quantity
        self.consumed = defaultdict(int)
        self.granted = defaultdict(int)  # (type, period)
        self.used = defaultdict(int)
        self.limits = []  # (node, type, quantity, thresholds, from_period)
        self.fired = []  # (how often the limit had changed, node, type, period, percent)
        self.changes = {}  # (node, type, period) -> how often the limit in force has changed
        self.tariffs = []  # (valid_from, method, decimals, rates)
        self.amount = 0

    def above(self, node):
        path = []
        while node is not None:
            path.append(node)
            node = self.parent[node]
        return path

    def node_of(self, resource, at=None):
        held = None
        for since, node in self.stays[resource]:
            if at is None or since <= at:
                held = node if node or at is not None else held
        return held

    def path(self, member, at=None):
        if member in self.parent:
            return self.above(member)
        node = self.node_of(member, at)
        return [member, *self.above(node)] if node else []

    def limit(self, member, usage_type, period):
        held = [given for given in self.limits if given[:2] == (member, usage_type) and given[4] <= period]
        last = max(reversed(held), key=lambda given: given[4], default=None)
        return last if last is not None and last[2] is not None else None

    def rate(self, usage_type, counterpart, at):
        valid = [(tariff[0], i) for i, tariff in enumerate(self.tariffs) if tariff[0] <= at]
        if not valid:
            return None
        _, method, decimals, rates = self.tariffs[max(valid)[1]]
        fitting = [r for r in rates if r.usage_type == usage_type and counterpart.startswith(r.prefix)]
        return (max(fitting, key=lambda r: len(r.prefix)), method, decimals) if fitting else None

    def charge(self, resource, usage_type, period, at, quantity, counterpart, overage):
        """(status, drawn, overage, amount, thresholds fired)."""
        path = self.path(resource, at)
        found = self.rate(usage_type, counterpart, at)
        if not path or found is None:
            return ("suspended",)
        rate, method, decimals = found
        billed = -(-max(quantity, rate.minimum) // rate.increment) * rate.increment if quantity else 0
        left, drawn = billed, []
        for member in path if rate.included else ():
            part = min(left, self.remaining[usage_type, period, member])
            if part:
                drawn.append((member, part))
                left -= part
        if left and rate.included and not overage:
            return ("rejected",)
        amount = cost(rate, method, decimals, left)
        counted = [("money", amount)] if amount else []
        for counter, more in [(usage_type, billed), *counted] if billed else []:
            for member in path:
                limit = self.limit(member, counter, period)
                if limit and self.used[counter, period, member] + more > limit[2]:
                    return ("rejected",)
        fired = []
        for counter, more in [(usage_type, billed), *counted] if billed else []:
            for member in path:
                self.used[counter, period, member] += more
                fired += self.fire(member, counter, period)
        for member, part in drawn:
            self.remaining[usage_type, period, member] -= part
            self.consumed[usage_type, period, member] += part
        self.amount += amount
        return ("charged", drawn, left, amount, fired)

    def waiting(self, resource, usage_type, period, at):
        """How much more would just reach a threshold on the path: where mistakes would be made."""
        return [
            -(-limit[2] * percent // 100) - self.used[usage_type, period, member]
            for member in self.path(resource, at)
            if (limit := self.limit(member, usage_type, period))
            for percent in limit[3]
            if limit[2] * percent > 100 * self.used[usage_type, period, member]
        ]

    def fire(self, member, counter, period):
        """The thresholds that are reached, and have not fired for the limit that is in force."""
        limit = self.limit(member, counter, period)
        if limit is None:
            return []
        used = self.used[counter, period, member]
        change = self.changes.get((member, counter, period), 0)
        fired = []
        for percent in sorted(limit[3]):
            key = (change, member, counter, period, percent)
            if used and used * 100 >= limit[2] * percent and key not in self.fired:
                self.fired.append(key)
                fired.append((member, counter, period, percent))
        return fired


def cost(rate, method, decimals, overage):
    if not overage:
        return 0
    steps = (Fraction(rate.price) * overage / rate.per + Fraction(rate.connect_fee)) * 10**decimals
    down, rest = divmod(steps, 1)
    half = Fraction(1, 2)
    up = {
        "up": rest > 0,
        "down": False,
        "half_up": rest >= half,
        "half_even": rest > half or (rest == half and down % 2 == 1),
    }[method]
    return int(down + up) * 10 ** (6 - decimals)


def moment(period, share):
    """A moment within a period: 0 is its first microsecond, 1000 its last."""
    starts_at, ends_at = _BOUNDS[period]
    return min(starts_at + (ends_at - starts_at) * share // 1000, ends_at - 1)


ZONES = ("Europe/Berlin", "America/New_York", "UTC")
_BOUNDS = {}
PRICES = st.sampled_from(["0", "0.01", "0.005", "0.5", "0.1234567", "1", "33.333333"])
RATES = st.lists(
    st.builds(
        Rate,
        st.sampled_from(["voice", "data"]),
        st.just("z"),
        PRICES,
        st.sampled_from([1, 7, 60, 1024]),
        st.sampled_from(["", "+", "+4", "+49", "2"]),
        st.just(""),
        st.sampled_from([1, 1, 6, 60]),
        st.sampled_from([0, 0, 1, 30]),
        PRICES,
        st.booleans(),
    ),
    min_size=0,
    max_size=5,
    unique_by=lambda rate: (rate.usage_type, rate.prefix),
)
PICK = st.integers(0, 10**6)
PERIOD = st.sampled_from(PERIODS)
TYPE = st.sampled_from(["voice", "data"])
QUANTITY = st.one_of(st.integers(0, 2), st.integers(0, 150), st.integers(0, 4000))
NUMBER = st.sampled_from(NUMBERS)
AIM = st.sampled_from([None, -1, 0, 0, 1])
SHARE = st.one_of(st.sampled_from([0, 1000]), st.integers(0, 1000))


class AnyMonth(RuleBasedStateMachine):
    """A tenant and its model, given the same commands."""

    @initialize(zone=st.sampled_from(ZONES), overage=st.booleans(), rates=RATES)
    def open(self, zone, overage, rates):
        self.tenant, self.model, self.history = Tenant(), Model(), []
        self.overage, self.records = overage, 0
        _BOUNDS.update({period: bounds_of(period, ZoneInfo(zone)) for period in PERIODS})
        self.now = _BOUNDS["2026-11"][1] - 1
        self.do(OpenTenant("Any", zone, "EUR", ""))
        self.do(AddNode("n0", "", "", "enterprise"))
        self.do(SignContract("c", "2026-01-01", tuple(Grant(*grant) for grant in GRANTS.items()), overage))
        for period in PERIODS:
            self.do(OpenPeriod(period))
            for usage_type, quantity in GRANTS.items():
                self.model.remaining[usage_type, period, "n0"] = quantity
                self.model.granted[usage_type, period] = quantity
        self.publish(rates, 0, "2026-10", "half_up", 4)
        self.node(0)
        self.resource(1, 0)

    def do(self, command):
        events = self.tenant.decide(command, self.now)
        assert events, "a command that is not refused leads to an event"
        for event in events:
            self.tenant.apply(event)
            self.history.append(event)
        return events

    def do_plainly(self, command):
        """As the writer does: what is plain, in one go; its result is that of deciding and applying."""
        events = list(self.tenant.decide(command, self.now))
        before = sha256(b"".join(lines(self.tenant))).digest()
        charged = self.tenant.plain.charge(command.record, command.token, command.sealed, self.now)
        if charged is None:
            assert sha256(b"".join(lines(self.tenant))).digest() == before
            return self.do(command)
        assert events == [charged]
        self.history.append(charged)
        return events

    def is_refused(self, command):
        before = len(self.history)
        with pytest.raises(Refused):
            self.do(command)
        assert len(self.history) == before

    def nodes(self):
        return list(self.model.parent)

    def members(self):
        return [*self.model.parent, *self.model.stays]

    # --- what may happen --------------------------------------------------------------------

    @precondition(lambda self: len(self.model.parent) < 9)
    @rule(under=PICK)
    def node(self, under):
        parent = self.nodes()[under % len(self.model.parent)]
        name = f"n{len(self.model.parent)}"
        self.do(AddNode(name, parent, "", "group"))
        self.model.parent[name] = parent

    @precondition(lambda self: len(self.model.stays) < 6)
    @rule(on=PICK, share=SHARE)
    def resource(self, on, share):
        node, name = self.nodes()[on % len(self.model.parent)], f"r{len(self.model.stays)}"
        since = moment("2026-10", share)
        self.do(AddResource(name, node, "sip", since, (Identity(name.encode(), b""),)))
        self.model.stays[name] = [(since, node)]

    @rule(which=PICK, to=PICK, period=PERIOD, share=SHARE, end=st.sampled_from([False, False, True]))
    def move(self, which, to, period, share, end):
        name = list(self.model.stays)[which % len(self.model.stays)]
        stays, since = self.model.stays[name], moment(period, share)
        if stays[-1][1] is None:
            return  # that one has ended
        node = None if end else self.nodes()[to % len(self.model.parent)]
        command = EndResource(name, since) if end else MoveResource(name, node, since)
        if since <= stays[-1][0]:
            self.is_refused(command)
        else:
            self.do(command)
            stays.append((since, node))

    @rule(
        kind=st.sampled_from([Allocate, Return, Trade]),
        source=PICK,
        taker=PICK,
        usage_type=TYPE,
        period=PERIOD,
        quantity=st.one_of(st.integers(-1, 60), st.integers(1, 3000)),
        likely=st.sampled_from([True, True, True, False]),
    )
    def transfer(self, kind, source, taker, usage_type, period, quantity, likely):
        members = self.members()
        holders = [one for one in members if self.model.remaining[usage_type, period, one]]
        if likely and holders:
            source = members.index(holders[source % len(holders)])
        source, target = members[source % len(members)], members[taker % len(members)]
        below, above = source in self.model.path(target), target in self.model.path(source)
        held = self.model.remaining[usage_type, period, source]
        if likely:
            kind = Allocate if below else Return if above else Trade
            quantity = min(quantity, held + 1)
        fits = {Allocate: below, Return: above, Trade: not (below or above)}[kind] and source != target
        command = kind(source, target, usage_type, period, quantity)
        if not fits or not 0 < quantity <= held:
            self.is_refused(command)
            return
        assert len(self.do(command)) == 1
        self.model.remaining[usage_type, period, source] -= quantity
        self.model.remaining[usage_type, period, target] += quantity

    @rule(
        which=PICK,
        counter=st.sampled_from(["voice", "data", "money"]),
        quantity=st.one_of(st.none(), st.integers(0, 3), st.integers(1, 2000), st.just(3_000_000)),
        near=st.sampled_from([None, None, -1, 0, 1]),
        thresholds=st.sampled_from([(80, 100), (), (1,), (100,), (50, 51, 99), (100, 33)]),
        since=PERIOD,
    )
    def limit(self, which, counter, quantity, near, thresholds, since):
        resources = list(self.model.stays)
        path = self.model.path(resources[which % len(resources)], self.now) or ["n0"]
        member = path[which // 7 % len(path)]
        if near is not None and quantity is not None:
            quantity = max(0, self.model.used[counter, since, member] + near)
        before = [self.model.limit(member, counter, period) for period in PERIODS]
        events = self.do(SetLimit(member, counter, quantity, thresholds, since))
        new = (member, counter, quantity, tuple(sorted(thresholds)), since)
        self.model.limits.append(new)
        fired = []
        for period, was in zip(PERIODS, before, strict=True):
            now = self.model.limit(member, counter, period)
            if was is None or now is None or was[2:4] != now[2:4]:
                key = (member, counter, period)
                self.model.changes[key] = self.model.changes.get(key, 0) + 1
            if now is new:
                fired += self.model.fire(member, counter, period)
        assert told(events) == fired

    @rule(
        rates=RATES,
        share=SHARE,
        period=PERIOD,
        method=st.sampled_from(["half_up", "half_even", "up", "down"]),
        decimals=st.integers(0, 6),
    )
    def publish(self, rates, share, period, method, decimals):
        valid_from = moment(period, share)
        known = {(rate.usage_type, rate.prefix) for rate in rates}
        rates = [*rates, *(Rate(kind, "rest", "0.005") for kind in GRANTS if (kind, "") not in known)]
        self.do(PublishTariff("t", valid_from, "EUR", tuple(rates), method, decimals))
        self.model.tariffs.append((valid_from, method, decimals, rates))

    @rule(uses=st.lists(st.tuples(PICK, TYPE, PERIOD, SHARE, QUANTITY, NUMBER, AIM), min_size=1, max_size=8))
    def charge(self, uses):
        for use in uses:
            self.charge_one(*use)

    def charge_one(self, which, usage_type, period, share, quantity, counterpart, aim):
        name, at = list(self.model.stays)[which % len(self.model.stays)], moment(period, share)
        waiting = self.model.waiting(name, usage_type, period, at)
        if aim is not None and waiting:
            quantity = max(0, waiting[which % len(waiting)] + aim)
        self.records += 1
        record = UsageRecord("s", str(self.records), name, usage_type, quantity, at, "outbound", counterpart)
        command = ChargeUsage(record, name.encode(), b"")
        charged, *crossings = self.do_plainly(command) if self.records % 2 else self.do(command)
        outcome = self.model.charge(name, usage_type, period, at, quantity, counterpart, self.overage)
        assert charged.topic == f"usage.{outcome[0]}"
        if isinstance(charged, UsageCharged):
            ids = [member.id for member in self.tenant.hierarchy.members]
            drawn = [(ids[ordinal], part) for ordinal, part in charged.drawn]
            assert (drawn, charged.overage, charged.amount, told(crossings)) == tuple(outcome[1:])
        elif isinstance(charged, UsageRejected):
            assert charged.stopped_by in charged.path
        assert crossings == [] or isinstance(charged, UsageCharged)

    # --- what always holds ------------------------------------------------------------------

    @invariant()
    def every_counter_is_that_of_the_model(self):
        for (usage_type, period), family in self.tenant.families.items():
            for member in self.tenant.hierarchy.members:
                key = (usage_type, period, member.id)
                counted = (
                    family.remaining[member.ordinal],
                    family.consumed[member.ordinal],
                    family.used[member.ordinal],
                )
                assert counted == (self.model.remaining[key], self.model.consumed[key], self.model.used[key])

    @invariant()
    def nothing_is_made_or_lost(self):
        self.tenant.check_whole()
        for key, family in self.tenant.families.items():
            assert family.granted_total == self.model.granted[key]
            assert sum(family.remaining) + sum(family.consumed) == family.granted_total
            assert all(held >= 0 for held in family.remaining)

    @invariant()
    def no_limit_is_passed_but_by_what_was_used_before_it(self):
        for (usage_type, period), family in self.tenant.families.items():
            for member in self.tenant.hierarchy.members:
                used, ceiling = family.used[member.ordinal], family.ceiling[member.ordinal]
                assert used <= ceiling
                limit = self.model.limit(member.id, usage_type, period)
                assert ceiling == (1 << 62 if limit is None else max(limit[2], ceiling))

    @invariant()
    def the_charges_sum_to_what_was_counted(self):
        charges = [event for event in self.history if isinstance(event, UsageCharged)]
        assert sum(charge.amount for charge in charges) == self.model.amount
        assert self.tenant.charging.amount_total == self.model.amount
        for charge in charges[-1:]:
            assert sum(part for _, part in charge.drawn) + charge.overage == charge.billed
        assert self.tenant.charging.counts["charged"] == len(charges)

    @invariant()
    def each_record_led_to_one_event(self):
        answered = [event.record_id for event in self.history if event.topic.startswith("usage.")]
        assert answered == [str(number + 1) for number in range(self.records)]

    def teardown(self):
        """The stored events alone lead to the same bytes."""
        log = MemoryLog()
        group = Group(TENANT, log.claim(), self.now)
        for number, event in enumerate(self.history):
            group.add(event.topic, encode(event, "a", b"d"), sha256(str(number).encode()).digest()[:16])
        log.append(group)
        folded = Tenant()
        for recorded, event in zip(replay(log), self.history, strict=True):
            assert recorded.event == event
            folded.apply(recorded.event)
        assert b"".join(lines(folded)) == b"".join(lines(self.tenant))
        for key, family in folded.families.items():
            live = self.tenant.families[key]
            assert (family.mark, family.ceiling) == (live.mark, live.ceiling)


def told(events):
    return [
        (event.node, event.usage_type, event.period, event.percent)
        for event in events
        if isinstance(event, ThresholdCrossed)
    ]


TestAnyMonth = AnyMonth.TestCase
TestAnyMonth.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
