"""Policies: which one decides, at which threshold, and what becomes of the usage.

Voice to "+1" is billed by the second at 0.01; it is Sunday the 15th of November, noon, in Berlin.
"""

import pytest

from allotment.domain import canonical, snapshot
from allotment.domain.events import decode, encode
from allotment.domain.limit import SetAnyLimit
from allotment.domain.policy import (
    ApproveUsage,
    Group,
    PolicySet,
    Selector,
    SetPolicy,
    Step,
    WithdrawPolicy,
)
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord

US, SWISS = "+12125550100", "+41441234567"
HOUR = 3_600_000_000
BLOCK, NOTIFY = Step("block", 100), Step("notify", 50)


def limited(quantity=100, node="emea", window="period", kind="soft", usage_type="voice", thresholds=()):
    return SetAnyLimit(node, usage_type, quantity, thresholds, "", window, kind)


def policy(*steps, name="p", node="emea", counted="voice", window="period", **more):
    return SetPolicy(name, node, counted, steps or (BLOCK,), window, **more)


@pytest.fixture
def soft(acme):
    """Acme with a soft limit of 100 on EMEA, and policies: `soft(policy(...))`."""

    def given(*commands):
        for command in (limited(), *commands):
            acme.do(command)
        return acme

    return given


def became(company, quantity, at=None, line="r-1", counterpart=US, **more):
    """What became of a use: the payer or the reason, and what the policy did."""
    told = company.use(quantity, counterpart=counterpart, line=line, **({"at": at} if at else {}), **more)[0]
    ruled = told.ruling.action if told.ruling else None
    return (told.payer if told.topic == "usage.charged" else told.reason), ruled


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (policy(node="nobody"), "unknown_node"),
        (policy(counted="fax"), "unknown_usage_type"),
        (policy(window="year"), "bad_window"),
        (policy(name=""), "bad_text"),
        (policy(*[BLOCK] * 21), "bad_policy"),
        (SetPolicy("p", "emea", "voice", ()), "bad_policy"),
        (policy(Step("sing", 1)), "bad_policy"),
        (policy(Step("block", -1)), "bad_policy"),
        (policy(Step("block", 10, 10)), "bad_policy"),
        (policy(Step("throttle", 10)), "bad_policy"),
        (policy(Step("overage", 10)), "bad_policy"),
        (policy(Step("overage", 10, price="1e3")), "bad_policy"),
        (policy(selector=Selector(weekdays=(7,))), "bad_policy"),
        (policy(selector=Selector(kinds=("horse",))), "bad_policy"),
        (policy(selector=Selector(countries=("EU",))), "bad_policy"),
        (policy(groups=(Group("EU", ()),)), "bad_policy"),
        (policy(groups=(Group("EU", ("+41",)), Group("EU", ("+43",)))), "bad_policy"),
        (policy(valid_from=1), "begins_in_the_past"),
        (WithdrawPolicy("p"), "unknown_policy"),
        (ApproveUsage("p", "emea", 2**61), "unknown_policy"),
    ],
)
def test_what_no_policy_may_be_is_refused(acme, command, outcome):
    assert acme.ask(command) == outcome


def test_versions_count_up_and_each_holds_from_its_moment_on(soft, now):
    acme = soft(policy(Step("throttle", 100, kbps=64)))
    acme.do(policy(BLOCK, valid_from=now + HOUR))
    acme.do(WithdrawPolicy("p", now + 2 * HOUR))
    assert acme.refusal(WithdrawPolicy("p"))[0] == "policy_withdrawn"
    versions = [event.version for event in acme.history if isinstance(event, PolicySet)]
    assert versions == [1, 2]
    when = [now - 1, now, now + HOUR - 1, now + HOUR, now + 2 * HOUR - 1, now + 2 * HOUR]
    assert [became(acme, 101, at) for at in when] == [
        ("corporate", None),
        ("corporate", "throttle"),
        ("corporate", "throttle"),
        ("blocked_by_policy", "block"),
        ("blocked_by_policy", "block"),
        ("corporate", None),
    ]


@pytest.mark.parametrize(
    ("step", "uses", "outcomes"),
    [
        # Reached exactly it is as before; beyond it the policy acts.
        (BLOCK, (100, 1), ["corporate", "blocked_by_policy"]),
        (BLOCK, (99, 2, 1), ["corporate", "blocked_by_policy", "corporate"]),
        (Step("block", at=60), (60, 1), ["corporate", "blocked_by_policy"]),
        (Step("block", 50), (51,), ["blocked_by_policy"]),
        (Step("approval", 100), (101,), ["approval_required"]),
        (Step("redirect", 100), (100, 1), ["corporate", "personal"]),
        (Step("throttle", 80, kbps=64), (80, 1), ["corporate", "corporate"]),
        (NOTIFY, (50, 100), ["corporate", "corporate"]),
    ],
)
def test_what_a_policy_does_beyond_its_threshold(soft, step, uses, outcomes):
    acme = soft(policy(step))
    assert [became(acme, quantity)[0] for quantity in uses] == outcomes


def test_the_event_names_the_policy_and_version_that_decided(soft):
    acme = soft(policy(Step("throttle", 80, kbps=64)))
    (first, *fired) = acme.use(81, counterpart=US)
    ruling = first.ruling
    assert (ruling.policy, ruling.version, ruling.kbps, ruling.percent, ruling.at) == ("p", 1, 64, 80, 80)
    assert [(event.percent, event.policy, event.version) for event in fired] == [(80, "p", 1)]
    assert acme.use(1, counterpart=US)[0].ruling == ruling


@pytest.mark.parametrize(
    ("policies", "decides"),
    [
        ([policy(name="high", node="acme"), policy(Step("redirect", 50), name="low", node="sales")], "low"),
        ([policy(Step("redirect", 50), name="a"), policy(Step("block", 90), name="b")], "b"),
        ([policy(Step("throttle", 90, kbps=1), name="a"), policy(Step("block", 90), name="b")], "a"),
        ([policy(Step("redirect", 50), BLOCK, name="a")], "a"),
        # A neighbour's policy, another type's, another window's.
        ([policy(name="a", node="apac")], None),
        ([policy(name="a", counted="data")], None),
        ([policy(name="a", window="day")], None),
    ],
)
def test_the_most_specific_node_then_the_highest_threshold_decides(acme, policies, decides):
    for node in ("emea", "sales"):
        acme.do(limited(node=node))
    for command in policies:
        acme.do(command)
    told = acme.use(150, counterpart=US)[0]
    assert (told.ruling.policy if told.ruling else None) == decides


def test_a_policy_does_not_reach_limits_above_its_node(acme):
    acme.do(limited(node="acme"))
    acme.do(policy(node="sales"))
    assert became(acme, 150) == ("corporate", None)


@pytest.mark.parametrize(
    ("selector", "use", "acts"),
    [
        (Selector(), {}, True),
        (Selector(usage_types=("voice",)), {}, True),
        (Selector(usage_types=("data",)), {}, False),
        (Selector(directions=("outbound",)), {}, True),
        (Selector(directions=("outbound",)), {"direction": "inbound"}, False),
        (Selector(kinds=("msisdn",)), {}, True),
        (Selector(kinds=("sip",)), {}, False),
        (Selector(roles=("guest",)), {}, False),
        (Selector(countries=("far",)), {}, True),
        (Selector(countries=("near",)), {}, False),
        (Selector(countries=("near",)), {"counterpart": SWISS}, True),
        # Sunday, noon.
        (Selector(weekdays=(6,)), {}, True),
        (Selector(weekdays=(0, 1, 2, 3, 4)), {}, False),
        (Selector(from_minute=720, to_minute=721), {}, True),
        (Selector(from_minute=721), {}, False),
        (Selector(to_minute=720), {}, False),
        # From Saturday evening until Sunday, one o'clock in the afternoon: the window of the Saturday.
        (Selector(weekdays=(5,), from_minute=1200, to_minute=780), {}, True),
        (Selector(weekdays=(6,), from_minute=1200, to_minute=780), {}, False),
    ],
)
def test_which_usage_a_policy_is_about(soft, selector, use, acts):
    groups = (Group("near", ("+41", "+43")), Group("far", ("+1",)))
    acme = soft(policy(selector=selector, groups=groups))
    assert became(acme, 150, **use)[0] == ("blocked_by_policy" if acts else "corporate")


def test_the_role_is_what_the_record_says(soft, now):
    acme = soft(policy(selector=Selector(roles=("guest",))))
    for attributes, reason in (((("role", "guest"),), "blocked_by_policy"), ((("role", "boss"),), None)):
        record = UsageRecord("s", str(attributes), "r-1", "voice", 150, now, "outbound", US, attributes)
        from allotment.domain.charging import ChargeUsage

        told = acme.do(ChargeUsage(record, b"r-1", b""))[0]
        assert getattr(told, "reason", None) == reason


def test_the_hours_of_a_policy_are_those_of_the_tenants_clock(soft, at):
    acme = soft(policy(selector=Selector(from_minute=9 * 60, to_minute=17 * 60), valid_from=0))
    times = [at("2026-11-16 08:59"), at("2026-11-16 09:00"), at("2026-11-16 16:59"), at("2026-11-16 17:00")]
    assert [became(acme, 150, moment, now=moment)[0] for moment in times] == [
        "corporate",
        *["blocked_by_policy"] * 2,
        "corporate",
    ]


@pytest.mark.parametrize("action", ["block", "approval", "redirect"])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_nobody_is_kept_from_calling_for_help(acme, action, kind):
    acme.do(limited(0, kind=kind))
    acme.do(policy(Step(action, at=0)))
    told = acme.use(60, counterpart="112", usage_type="voice")[0]
    assert told.topic == "usage.charged"
    assert told.payer == ("emergency" if kind == "hard" else "corporate")
    assert acme.tenant.charging.amount_total == 0


# --- paid by somebody else -------------------------------------------------------------------


def test_what_is_redirected_is_paid_personally_and_counts_in_nothing_of_the_enterprise(soft):
    acme = soft(policy(Step("redirect", 100)))
    before = b"".join(canonical.lines(acme.tenant))
    (told,) = acme.use(101, counterpart=US)
    assert (told.payer, told.drawn, told.overage, told.amount) == ("personal", (), 101, 1_010_000)
    counted = before.replace(b'"charged":0', b'"charged":1')
    assert b"".join(canonical.lines(acme.tenant)) == counted


def test_redirected_usage_passes_a_hard_limit_that_it_does_not_count_in(acme):
    acme.do(limited(kind="hard"))
    acme.do(policy(Step("redirect", 100)))
    assert [became(acme, quantity)[0] for quantity in (100, 50, 50)] == ["corporate", "personal", "personal"]
    assert acme.family().used[1] == 100


def test_what_is_redirected_passes_an_allowance_at_its_end(company, now):
    from allotment.domain.contract import Grant, SignContract

    acme = company()
    acme.do(SignContract("prepaid", "2026-11-01", (Grant("voice", 0),), overage=False))
    acme.do(limited())
    acme.do(policy(Step("redirect", 100)))
    assert became(acme, 101)[0] == "personal"


# --- overage at a rate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uses", "drawn", "overage", "amount", "above"),
    [
        ((100,), ((0, 100),), 0, 0, None),
        ((101,), ((0, 100),), 1, 1_500_000, 1),
        ((60, 50), ((0, 40),), 10, 15_000_000, 10),
        ((100, 50), (), 50, 75_000_000, 50),
    ],
)
def test_overage_at_a_rate_prices_what_is_beyond_the_threshold(soft, uses, drawn, overage, amount, above):
    acme = soft(policy(Step("overage", 100, price="3", per=2)))
    for quantity in uses:
        told = acme.use(quantity, counterpart=US)[0]
    assert (told.drawn, told.overage, told.amount) == (drawn, overage, amount)
    assert (told.ruling.above if told.ruling else None) == above


def test_overage_below_the_threshold_costs_what_the_tariff_says(acme):
    acme.do(limited(1_100))
    acme.do(policy(Step("overage", 100, price="1")))
    (told, *_) = acme.use(1_110, counterpart=US)
    # A thousand are covered, a hundred cost 0.01 each, ten cost 1 each.
    assert (told.overage, told.amount, told.exact) == (110, 11_000_000, (11_000_000, 1))


def test_no_policy_passes_a_hard_limit(acme):
    acme.do(limited(kind="hard"))
    acme.do(policy(Step("overage", 100, price="1")))
    assert became(acme, 101)[0] == "limit_exceeded"


def test_overage_is_held_to_the_limits_on_money(soft):
    acme = soft(limited(10_000_000, "acme", kind="hard", usage_type="money"))
    acme.do(policy(Step("overage", 100, price="1")))
    assert became(acme, 111)[0] == "limit_exceeded"
    assert became(acme, 110)[0] == "corporate"


# --- approval --------------------------------------------------------------------------------


def test_usage_waits_for_an_approval_and_goes_on_for_its_time(soft, now):
    acme = soft(policy(Step("approval", 100, approvers=("owner",))))
    assert became(acme, 101) == ("approval_required", "approval")
    assert acme.refusal(ApproveUsage("p", "apac", now + HOUR))[0] == "nothing_to_approve"
    assert acme.refusal(ApproveUsage("p", "sales", now))[0] == "bad_end"
    code, facts = acme.refusal(ApproveUsage("p", "sales", now + HOUR, ("telecoms_manager",)))
    assert (code, facts["roles"]) == ("may_not_approve", ["owner"])
    acme.do(ApproveUsage("p", "sales", now + HOUR, ("owner",)))
    times = (now - 1, now, now + HOUR - 1, now + HOUR)
    assert [became(acme, 101, when)[0] for when in times] == [
        "corporate",
        "corporate",
        "corporate",
        "approval_required",
    ]


def test_an_approval_is_for_the_subtree_it_names(acme, now):
    acme.do(limited(0, "acme"))
    acme.do(policy(Step("approval", at=0), node="acme"))
    acme.do(ApproveUsage("p", "emea", now + HOUR))
    assert [became(acme, 10, line=line)[0] for line in ("r-1", "r-2")] == ["corporate", "approval_required"]


def test_beyond_an_approved_step_the_lower_ones_hold(soft, now):
    acme = soft(policy(Step("throttle", 80, kbps=64), Step("approval", 100)))
    acme.do(ApproveUsage("p", "emea", now + HOUR))
    assert became(acme, 150) == ("corporate", "throttle")


# --- sessions --------------------------------------------------------------------------------


def reserve(company, now, quantity=50, session="s", to=US):
    record = UsageRecord("pbx", session, "r-1", "voice", quantity, now, "outbound", to)
    return company.do(ReserveUnits(record, 1, b"r-1", b""))


def test_an_authorisation_carries_the_rate_to_throttle_to(soft, now):
    acme = soft(policy(Step("throttle", 80, kbps=64)))
    (first, *_) = reserve(acme, now, 80)
    assert first.ruling is None
    (more, *_) = acme.do(UpdateSession("pbx", "s", 2, Report(80), 10))
    assert (more.granted, more.ruling.kbps) == (10, 64)
    charged = acme.do(ReleaseSession("pbx", "s", 3, Report(10)))[1]
    assert charged.ruling.action == "throttle"


@pytest.mark.parametrize(
    ("action", "reason"), [("block", "blocked_by_policy"), ("approval", "approval_required")]
)
def test_a_session_ends_where_a_policy_stops_it(soft, now, action, reason):
    acme = soft(policy(Step(action, 100)))
    (reserved, *_) = reserve(acme, now, 500)
    assert (reserved.granted, reserved.final) == (100, True)
    (denied, *_) = acme.do(UpdateSession("pbx", "s", 2, Report(100), 10))
    assert (denied.reason, denied.stopped_by, denied.ruling.policy) == (reason, 1, "p")
    (again, *_) = reserve(acme, now, session="t")
    assert (again.topic, again.reason) == ("session.denied", reason)


def test_a_new_session_beyond_a_redirect_is_personal_from_its_start(soft, now):
    acme = soft(policy(Step("redirect", 100)))
    assert reserve(acme, now, 500)[0].granted == 100
    (denied, *_) = acme.do(UpdateSession("pbx", "s", 2, Report(100), 10))
    assert denied.reason == "redirected"
    (own,) = reserve(acme, now, 70, "t")
    assert (own.payer, own.granted, own.held.billed) == ("personal", 70, 0)
    (more,) = acme.do(UpdateSession("pbx", "t", 2, Report(70), 0))
    assert more.granted > 0
    _, charged = acme.do(ReleaseSession("pbx", "t", 3, Report(5)))
    assert (charged.payer, charged.quantity, charged.amount, charged.drawn) == ("personal", 75, 750_000, ())
    assert acme.family().used[1] == 100


def test_a_call_for_help_is_authorised_whatever_is_exhausted(acme, now):
    acme.do(limited(0, kind="hard"))
    acme.do(policy(Step("block", at=0)))
    (told,) = reserve(acme, now, 60, to="112")
    assert (told.topic, told.payer, told.granted) == ("session.reserved", "emergency", 60)
    _, charged = acme.do(ReleaseSession("pbx", "s", 2, Report(60)))
    assert (charged.payer, charged.amount) == ("emergency", 0)


def test_a_session_is_charged_the_policys_price_beyond_the_threshold(soft, now):
    acme = soft(policy(Step("overage", 100, price="1")))
    reserve(acme, now, 120)
    assert acme.tenant.families["money", "2026-11"].used[0] == 20_000_000
    charged = acme.do(ReleaseSession("pbx", "s", 2, Report(110)))[1]
    assert (charged.amount, charged.ruling.above) == (10_000_000, 10)


def test_a_session_that_becomes_dearer_passes_no_limit_on_money(soft, now):
    acme = soft(limited(60_000_000, "acme", kind="hard", usage_type="money"))
    reserve(acme, now, 100)
    acme.do(policy(Step("overage", at=50, price="1")))
    acme.use(30, counterpart=US)
    released, charged, *_ = acme.do(ReleaseSession("pbx", "s", 2, Report(100)))
    assert charged.amount <= 60_000_000
    assert released.overrun + charged.quantity == 100


def test_country_groups_hold_for_sessions_that_go_on(soft, now):
    groups = (Group("near", ("+41",)),)
    acme = soft(policy(selector=Selector(countries=("near",)), groups=groups))
    assert reserve(acme, now, 500, "far", US)[0].granted == 500
    assert reserve(acme, now, 5, "near", SWISS)[0].topic == "session.denied"


# --- kept ------------------------------------------------------------------------------------


def test_replay_and_snapshots_come_to_the_same(soft, now):
    acme = soft(
        policy(Step("throttle", 10, kbps=1), Step("approval", 50), Step("redirect", 90)),
        limited(10, "acme", "day"),
    )
    acme.do(ApproveUsage("p", "sales", now + HOUR))
    for quantity in (10, 30, 40, 20, 5):
        acme.use(quantity, counterpart=US)
    reserve(acme, now, 30)
    acme.do(WithdrawPolicy("p", now + HOUR))
    expected = [*canonical.lines(acme.tenant)]
    folded = Tenant()
    for event in acme.history:
        folded.apply(decode(event.topic, encode(event, "a", b"12345678")).event)
    counters = snapshot.encode_counters(snapshot.copy_counters(acme.tenant))
    restored = snapshot.restore(counters, snapshot.encode_structure(acme.tenant))
    for other in (folded, restored):
        assert [*canonical.lines(other)] == expected
        assert other.families["voice", "2026-11"].mark == acme.family().mark
