"""Everything that may happen to an enterprise, by chance: each act gives a command, or nothing to do.

Most are such that they can be carried out; now and then one is not, and must be refused.
"""

import random
from collections import Counter
from datetime import timedelta
from typing import Any

from allotment.domain.allocation import ReturnUnused, TransferMany
from allotment.domain.approval import Approver, ApproveTransfer, DeclineTransfer, SetApprovalRule
from allotment.domain.bucket import Allocate, Return, Trade, Transferred
from allotment.domain.calendar import Calendar, local_day
from allotment.domain.cap import SetCap
from allotment.domain.charging import ChargeUsage
from allotment.domain.contract import EndContract, Grant, RenewContract, SignContract
from allotment.domain.freeze import FreezeNode, ThawNode
from allotment.domain.granting import ChangeGrants, TopUp
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.life import (
    CancelPlan,
    ChangeIdentities,
    CloseNode,
    MoveNode,
    RenameNode,
    ResumeResource,
    SuspendResource,
)
from allotment.domain.limit import SetAnyLimit, SetLimit
from allotment.domain.offer import NOTHING_ASKED, AcceptOffer, Ask, OfferAccepted, OfferTrade, WithdrawOffer
from allotment.domain.policy import ApproveUsage, Selector, SetPolicy, Step, WithdrawPolicy
from allotment.domain.raising import RaiseLimit
from allotment.domain.reservation import Leg
from allotment.domain.running import Line
from allotment.domain.schedule import CancelSchedule, ScheduleAllocation
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.splitting import WINDOWS as RULE_WINDOWS
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.template import ApplyTemplate, DefineTemplate, Rule
from allotment.domain.tenant import Tenant
from allotment.domain.terms import OveragePrice, RollOverRule, Terms
from allotment.domain.trade_rules import SetTradeRules
from allotment.domain.trading import UndoTransfer
from allotment.domain.usage import UsageRecord

HOUR, DAY = 3_600_000_000, 86_400_000_000
TYPES = ("voice", "data")
CALLED = ("+4930123456", "+12125550100", "200", "112")
WINDOWS = ("period", "day", "week", "last_2_days", "last_3_hours")
STEPS = (
    Step("notify", 50),
    Step("notify", 80),
    Step("throttle", 80, kbps=64),
    Step("redirect", 100),
    Step("block", 100),
    Step("approval", 90),
    Step("overage", 100, price="0.07"),
)
RATES = (
    Rate("voice", "national", "0.06", per=60, prefix="+49", increment=60),
    Rate("voice", "world", "0.60", per=60, prefix="+", minimum=30, connect_fee="0.01"),
    Rate("voice", "internal", "0"),
    Rate("data", "any", "0.01", per=7),
)


class Acts:
    """What might be asked of a tenant next. It looks at the tenant, and never changes it."""

    def __init__(self, chance: random.Random, tenant: Tenant, history: list[Any], now: int) -> None:
        self.chance, self.tenant, self.history, self.now = chance, tenant, history, now
        self.made = 0
        self.numbers = Counter[str]()
        often = (self.use, self.use, self.use, self.use_late, self.reserve, self.update, self.release)
        trading = (self.offer, self.counter, self.accept, self.accept, self.withdraw, self.answer, self.undo)
        rules = (self.limit, self.raised, self.policy, self.approve_usage, self.regulate, self.cap)
        dividing = (self.transfer, self.transfer, self.many, self.unused, self.template, self.schedule)
        life = (self.add, self.move, self.close, self.member_life, self.lines, self.plan_off, self.rename)
        frozen = (self.freeze, self.thaw, self.thaw)
        self.acts = (*often, *often, *often, *trading, *rules, *dividing, *life, *frozen, self.agree)

    def next(self) -> Any:
        self.made += 1
        return self.chance.choice(self.acts)()

    # --- who and how much ---------------------------------------------------------------------

    def pick(self, some: Any) -> Any:
        known = list(some)
        return self.chance.choice(known) if known else None

    def node(self) -> str:
        return str(self.pick(one.id for one in self.tenant.hierarchy.members if one.is_node))

    def resource(self) -> str:
        return str(self.pick(one.id for one in self.tenant.hierarchy.members if not one.is_node))

    def member(self) -> str:
        return self.node() if self.chance.random() < 0.7 else self.resource()

    def kind(self) -> str:
        return self.chance.choice(TYPES)

    def quantity(self) -> int:
        return self.chance.choice([-1, 0, 1, 7, 50, 50, 61, 120, 300, 2000])

    def holder(self, usage_type: str, first: int = 0) -> str:
        """Somebody who has something, mostly; `first` leaves out the enterprise itself."""
        family = self.tenant.families.get((usage_type, self.tenant.contracts.name_at(self.now)))
        members = self.tenant.hierarchy.members[first:]
        found = [one.id for one in members if family and family.available(one.ordinal) > 0]
        return self.pick(found) if found and self.chance.random() < 0.9 else self.member()

    def later(self) -> int:
        """Now (0), or at a moment to come."""
        return self.chance.choice([0, 0, self.now + self.chance.randrange(1, 5 * 24) * HOUR])

    # --- usage --------------------------------------------------------------------------------

    def record(self, quantity: int, late: int = 0) -> UsageRecord:
        tokens = [token.decode() for token in self.tenant.hierarchy.by_token]
        about = (self.pick(tokens), self.kind(), quantity, self.now - late)
        direction = self.chance.choice(["outbound", "outbound", "inbound"])
        return UsageRecord("pbx", f"u{self.made}", *about, direction, self.chance.choice(CALLED))

    def use(self, late: int = 0) -> Any:
        record = self.record(self.chance.choice([0, 1, 59, 61, 200]), late)
        return ChargeUsage(record, record.line.encode(), b"")

    def use_late(self) -> Any:
        return self.use(self.chance.choice([1, 5, 30, 24 * 6, 24 * 20]) * HOUR)

    def reserve(self) -> Any:
        record = self.record(self.chance.choice([0, 61, 300, 2000]))
        return ReserveUnits(record, 0, record.line.encode(), b"")

    def report(self) -> Any:
        known = self.pick([*self.tenant.sessions.open, *list(self.tenant.sessions.expired)[-2:]])
        if known is None:
            return None
        self.numbers[known[1]] += 1
        return known[1], self.numbers[known[1]], Report(self.chance.choice([0, 1, 61, 250]))

    def update(self) -> Any:
        told = self.report()
        return told and UpdateSession("pbx", *told, self.chance.choice([0, None, 60, 500]))

    def release(self) -> Any:
        told = self.report()
        return told and ReleaseSession("pbx", *told)

    # --- dividing -----------------------------------------------------------------------------

    def transfer(self) -> Any:
        order, usage_type = self.chance.choice([Allocate, Allocate, Return, Trade]), self.kind()
        source = self.holder(usage_type, 0 if order is Allocate else 1)
        return order(source, self.member(), usage_type, "", self.quantity())

    def line(self) -> Line:
        action, usage_type = self.chance.choice(["allocate", "allocate", "return", "cap"]), self.kind()
        source = "" if action == "cap" else self.holder(usage_type)
        return Line(action, source, self.member(), usage_type, max(1, self.quantity()))

    def many(self) -> Any:
        return TransferMany(tuple(self.line() for _ in range(self.chance.choice([1, 1, 2, 4]))))

    def unused(self) -> Any:
        return ReturnUnused(self.node(), "", self.chance.choice(["", "voice"]))

    def rule(self) -> Rule:
        share = self.chance.choice(["percent", "each", "per_device"])
        return Rule(share, self.chance.choice([1, 7, 333]), self.chance.choice(["children", "resources"]))

    def template(self) -> Any:
        name = f"t{self.chance.randrange(3)}"
        if self.chance.random() < 0.4:
            return DefineTemplate(name, self.kind(), self.rule())
        if name in self.tenant.templates.by_name and self.chance.random() < 0.6:
            return ApplyTemplate(self.node(), name)
        return ApplyTemplate(self.node(), "", self.rule(), self.kind())

    def schedule(self) -> Any:
        if self.chance.random() < 0.2:
            return CancelSchedule(f"p{self.chance.randrange(self.made)}")
        every = self.chance.choice(["once", "day", "week", "month", "period"])
        first = 0 if every == "period" else self.now + self.chance.randrange(1, 50) * HOUR
        return ScheduleAllocation(f"p{self.made}", (self.line(),), every, first)

    def cap(self) -> Any:
        return SetCap(self.member(), self.kind(), self.chance.choice([None, 0, 150, 400, 1500]))

    def freeze(self) -> Any:
        return FreezeNode(self.member()) if len(self.tenant.hierarchy.frozen) < 2 else self.thaw()

    def thaw(self) -> Any:
        frozen = self.pick(self.tenant.hierarchy.frozen.values())
        return frozen and ThawNode(frozen.node)

    # --- trading ------------------------------------------------------------------------------

    def asks(self) -> Ask:
        if self.chance.random() < 0.5:
            return NOTHING_ASKED
        usage_type = self.chance.choice([*TYPES, "money"])
        return Ask(usage_type, self.chance.randrange(1, 4), self.chance.choice([1, 1, 2, 3]))

    def offer(self) -> Any:
        usage_type, asks = self.kind(), self.asks()
        target, source = self.node(), self.holder(usage_type, 1)
        return OfferTrade(
            *(f"o{self.made}", source, usage_type, self.chance.randrange(1, 40) * asks.lot),
            asks,
            target=target if self.chance.random() < 0.5 else "",
            everybody=self.chance.random() < 0.5,
            whole=self.chance.random() < 0.2,
            expires_at=self.chance.choice([0, 0, self.now + 9 * HOUR]),
        )

    def known_offer(self) -> Any:
        return self.pick(self.tenant.trading.offers.open.values())

    def counter(self) -> Any:
        offer = self.known_offer()
        if offer is None:
            return None
        asks, made = self.asks(), offer.made
        source = self.holder(made.usage_type, 1) if made.everybody else made.target
        return OfferTrade(
            *(f"o{self.made}", source, self.kind(), self.chance.randrange(1, 9) * asks.lot, asks),
            counters=made.offer,
        )

    def accept(self) -> Any:
        offer = self.known_offer()
        if offer is None:
            return None
        target = offer.made.target if not offer.made.everybody else self.holder(self.kind(), 1)
        quantity = self.chance.choice([None, self.chance.randrange(1, 9) * offer.made.lot])
        return AcceptOffer(offer.made.offer, target, quantity)

    def withdraw(self) -> Any:
        offer = self.known_offer() if self.chance.random() < 0.5 else None
        return offer and WithdrawOffer(offer.made.offer)

    def answer(self) -> Any:
        proposal = self.pick(self.tenant.trading.approvals.waiting)
        if proposal is None:
            return None
        return (ApproveTransfer if self.chance.random() < 0.7 else DeclineTransfer)(proposal)

    def undo(self) -> Any:
        done = [
            (seq, event)
            for seq, event in enumerate(self.history, 1)
            if isinstance(event, OfferAccepted)
            or (isinstance(event, Transferred) and event.reason in ("allocate", "return"))
        ]
        if not done:
            return None
        seq, event = self.pick(done)
        return UndoTransfer(seq, event.legs if isinstance(event, OfferAccepted) else (_leg(event),))

    def regulate(self) -> Any:
        if self.chance.random() < 0.3:
            return SetTradeRules(self.chance.choice([None, 3, 20]))
        above = self.chance.choice([None, None, 0, 100])
        approver = Approver(self.node())
        window = self.chance.choice(RULE_WINDOWS)
        eyes = self.chance.random() < 0.3
        return SetApprovalRule(self.node(), self.kind(), above, approver, eyes, window=window)

    # --- limits and policies ------------------------------------------------------------------

    def limit(self) -> Any:
        quantity = self.chance.choice([None, None, 0, 200, 1000, 5000])
        counted, window = self.chance.choice([*TYPES, "money"]), self.chance.choice(WINDOWS)
        thresholds = self.chance.choice([(), (50,), (80, 100)])
        if self.chance.random() < 0.2:
            return SetLimit(self.member(), counted, quantity, thresholds)
        kind = self.chance.choice(["hard", "soft"])
        return SetAnyLimit(self.member(), counted, quantity, thresholds, "", window, kind)

    def raised(self) -> Any:
        limits = [one for one in self.history if one.topic == "limit.set"]
        if not limits:
            return None
        one = self.pick(limits)
        until = self.now + self.chance.randrange(1, 60) * HOUR
        return RaiseLimit(one.node, one.usage_type, until, None, self.chance.choice([1, 70, 900]), one.window)

    def policy(self) -> Any:
        name = f"rule{self.chance.randrange(4)}"
        if self.chance.random() < 0.3:
            return WithdrawPolicy(name)
        counted, window = self.chance.choice([*TYPES, "money"]), self.chance.choice(WINDOWS)
        steps = tuple(self.chance.sample(STEPS, self.chance.choice([1, 2])))
        selector = Selector(directions=self.chance.choice([(), ("outbound",)]))
        valid_from = self.later()
        return SetPolicy(name, self.node(), counted, steps, window, valid_from, selector)

    def approve_usage(self) -> Any:
        return ApproveUsage(f"rule{self.chance.randrange(4)}", self.node(), self.now + 30 * HOUR)

    # --- the hierarchy ------------------------------------------------------------------------

    def add(self) -> Any:
        if len(self.tenant.hierarchy.members) > 24:
            return None
        if self.chance.random() < 0.4:
            return AddNode(f"n{self.made}", self.node(), "", "group")
        name = f"x{self.made}"
        since = self.chance.choice([0, self.now])
        return AddResource(name, self.node(), "sip", since, (Identity(name.encode(), b""),))

    def move(self) -> Any:
        if self.chance.random() < 0.5:
            return MoveNode(self.node(), self.node(), self.later())
        return MoveResource(self.resource(), self.node(), self.later() or self.now)

    def close(self) -> Any:
        if self.chance.random() < 0.6:
            return None
        return CloseNode(self.node(), self.chance.choice(["", self.node()]), self.later())

    def member_life(self) -> Any:
        order = self.chance.choice([SuspendResource, ResumeResource, ResumeResource, EndResource])
        if order is EndResource and self.chance.random() < 0.7:
            return None
        at = self.later()
        return order(self.resource(), at or (self.now if order is EndResource else 0))

    def lines(self) -> Any:
        resource = self.tenant.hierarchy.by_id[self.resource()]
        removed = tuple(one.token for one in resource.identities if self.chance.random() < 0.3)
        free = [*self.tenant.hierarchy.by_token, b"y%d" % self.made]
        return ChangeIdentities(resource.id, (Identity(self.pick(free), b""),), removed, self.later())

    def plan_off(self) -> Any:
        return CancelPlan(self.node())

    def rename(self) -> Any:
        return RenameNode(self.node(), f"name {self.made}", self.later())

    # --- what is agreed -----------------------------------------------------------------------

    def terms(self) -> Terms:
        return Terms(
            calendar=self.chance.choice([Calendar(), Calendar("billing_day", 15), Calendar("weekly", 3)]),
            prorate=self.chance.random() < 0.5,
            rollover=self.chance.choice([(), (RollOverRule("voice", 2, 200), RollOverRule("data", 1, 900))]),
            rolls_to_enterprise=self.chance.random() < 0.5,
            settle_after_hours=self.chance.choice([0, 30]),
            expires=self.chance.choice([True, False]),
            overage_prices=self.chance.choice([(), (OveragePrice("voice", "0.003", 3),)]),
            over_commitment_percent=self.chance.choice([0, 50]),
        )

    def agree(self) -> Any:
        day = local_day(self.now + self.chance.randrange(0, 20) * DAY, self.tenant.contracts.zone)
        grants = (Grant("voice", 3000), Grant("data", 20_000), Grant("money", 100_000))
        return self.chance.choice(
            [
                lambda: SignContract("c", day.isoformat(), grants, self.chance.random() < 0.8, self.terms()),
                lambda: ChangeGrants("c", (Grant(self.kind(), self.chance.randrange(6000)),)),
                lambda: ChangeGrants("c", (Grant("money", self.chance.randrange(99_000)),), prorate=True),
                lambda: TopUp(self.kind(), max(1, self.quantity())),
                lambda: TopUp("money", 10_000),
                lambda: EndContract("c", (day + timedelta(days=30)).isoformat()),
                lambda: RenewContract("c"),
                lambda: PublishTariff("t", self.now + self.chance.randrange(3) * DAY, "EUR", RATES),
            ]
        )()


def _leg(event: Transferred) -> Leg:
    return Leg(event.source, event.target, event.usage_type, event.period, event.quantity)
