"""Caps, over-commitment, freezing, bulk, templates, what is unused, and schedules: decisions by example.

Acme as in conftest.py: 1000 seconds of voice at the root, nothing handed down.
"""

import pytest

from allotment.domain.allocation import ReturnUnused, TransferMany
from allotment.domain.approval import Approver, SetApprovalRule, TransferProposed
from allotment.domain.bucket import Allocate, Granted, Return, Trade, Transferred
from allotment.domain.cap import CapReached, CapSet, SetCap
from allotment.domain.charging import ChargeUsage, UsageCharged, UsageRejected
from allotment.domain.contract import ContractSigned, Grant, OpenPeriod, PeriodOpened, SignContract
from allotment.domain.emergency import is_emergency
from allotment.domain.freeze import FreezeNode, NodeThawed, ThawNode
from allotment.domain.hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Identity,
    MoveResource,
    NodeFrozen,
    ResourceAdded,
)
from allotment.domain.life import CloseNode, MoveNode
from allotment.domain.offer import AcceptOffer, OfferTrade
from allotment.domain.running import LINES_MAX, Line
from allotment.domain.schedule import (
    AllocationScheduled,
    CancelSchedule,
    CarryOutSchedule,
    ScheduleAllocation,
    ScheduleCarriedOut,
    ScheduleSkipped,
    next_after,
)
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionDenied, UpdateSession
from allotment.domain.template import ApplyTemplate, DefineTemplate, Rule, split
from allotment.domain.terms import RollOverRule, Terms
from allotment.domain.usage import UsageRecord

MONTH = "2026-11"
DAY = 86_400_000_000
NOW = 1_794_740_400_000_000
"""2026-11-15 12:00 in Berlin."""


@pytest.fixture
def unopened(acme, told):
    """Acme before it has a contract: `unopened(percent=0, overage=True)`."""

    def made(percent=0, *, overage=True, terms=None):
        kinds = (ContractSigned, PeriodOpened, Granted)
        before = told(*(event for event in acme.history if not isinstance(event, kinds)))
        grants = (Grant("voice", 1000),)
        before.do(
            SignContract(
                "frame", "2026-01-01", grants, overage, terms or Terms(over_commitment_percent=percent)
            )
        )
        before.do(OpenPeriod(MONTH))
        return before

    return made


def cap(node, quantity, since=MONTH):
    return CapSet(node, "voice", quantity, since)


def line(action, source, target, quantity=None, usage_type="voice", period="", note=""):
    return Line(action, source, target, usage_type, quantity, period, note)


def many(*lines):
    return TransferMany(lines)


def moved(source, target, quantity, reason="allocate", note=""):
    return Transferred(source, target, "voice", MONTH, quantity, reason, note)


# --- caps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "seconds", "drawn", "overage"),
    [
        ([], 120, ((0, 120),), 0),
        ([cap("sales", 120)], 120, ((0, 120),), 0),
        ([cap("sales", 100)], 120, ((0, 100),), 20),
        ([cap("sales", 0)], 120, (), 120),
        ([cap("emea", 60), cap("sales", 90)], 120, ((0, 60),), 60),
        ([cap("emea", 90), cap("sales", 60)], 120, ((0, 60),), 60),
        ([cap("r-1", 60)], 120, ((0, 60),), 60),
        ([cap("apac", 0)], 120, ((0, 120),), 0),
        ([cap("sales", 0), cap("sales", None)], 120, ((0, 120),), 0),
        ([cap("sales", 0, "2026-12")], 120, ((0, 120),), 0),
        ([cap("sales", 0, "2026-10"), cap("sales", 60, "2026-11")], 120, ((0, 60),), 60),
    ],
)
def test_a_cap_bounds_what_is_drawn_from_above(company, caps, seconds, drawn, overage):
    charged = company(*caps).use(seconds)[0]
    assert (charged.drawn, charged.overage) == (drawn, overage)


def test_what_a_subtree_has_of_its_own_does_not_count(company):
    acme = company(moved("acme", "emea", 200), moved("emea", "r-1", 60), cap("emea", 60), cap("sales", 180))
    assert acme.use(240)[0].drawn == ((4, 60), (1, 140), (0, 40))
    assert acme.family().caps.drawn == {1: 40, 2: 180}
    assert acme.use(60)[0].drawn == ()


def test_a_nested_cap_counts_on_both(company):
    acme = company(moved("acme", "emea", 30), cap("emea", 60), cap("sales", 80))
    assert acme.use(120)[0].drawn == ((1, 30), (0, 50))
    assert acme.family().caps.drawn == {1: 50, 2: 80}


def test_reaching_a_cap_is_told_once_until_it_is_set_anew(company):
    acme = company(cap("sales", 60))
    told = [type(event) for event in acme.use(60)]
    assert told == [UsageCharged]
    assert acme.use(60)[1:] == [CapReached("sales", "voice", MONTH, 60, 60)]
    assert [type(event) for event in acme.use(60)] == [UsageCharged]
    acme.do(SetCap("sales", "voice", 120))
    assert acme.use(120)[1:] == [CapReached("sales", "voice", MONTH, 120, 60)]


def test_without_overage_the_cap_rejects_and_is_named(unopened):
    acme = unopened(overage=False).tell(cap("sales", 60))
    rejected, reached = acme.use(120)
    assert isinstance(rejected, UsageRejected)
    assert (rejected.reason, rejected.stopped_by, rejected.used, rejected.limit) == ("cap_reached", 2, 0, 60)
    assert reached == CapReached("sales", "voice", MONTH, 60, 0)
    assert acme.use(2000)[0].reason == "cap_reached"
    assert acme.use(1200, line="r-2")[0].reason == "insufficient_allowance"


def test_lowering_a_cap_below_what_was_drawn_stops_what_follows(company):
    acme = company(cap("sales", 120))
    acme.use(120)
    acme.do(SetCap("sales", "voice", 60))
    assert acme.use(60)[0].overage == 60
    assert acme.family().caps.drawn[2] == 120


def test_a_lifted_cap_goes_on_counting(company):
    acme = company(cap("sales", 120))
    acme.use(60)
    acme.do(SetCap("sales", "voice", None))
    acme.use(120)
    acme.do(SetCap("sales", "voice", 180))
    assert acme.use(60)[0].overage == 60


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (SetCap("nowhere", "voice", 1), "unknown_node"),
        (SetCap("acme", "voice", 1), "nothing_above"),
        (SetCap("sales", "fax", 1), "unknown_usage_type"),
        (SetCap("sales", "money", 1), "unknown_usage_type"),
        (SetCap("sales", "voice", -1), "quantity_out_of_range"),
        (SetCap("sales", "voice", 1, "2026-13"), "not_a_period"),
        (SetCap("sales", "voice", 1, "2025-11"), "no_contract"),
        (SetCap("sales", "voice", 1, "", "x" * 201), "bad_text"),
        (SetCap("sales", "voice", 1001), "over_committed"),
        (SetCap("sales", "voice", 1000), [cap("sales", 1000)]),
        (SetCap("r-1", "voice", 0), [cap("r-1", 0)]),
        (SetCap("sales", "voice", None), [cap("sales", None)]),
    ],
)
def test_setting_a_cap(acme, command, outcome):
    assert acme.ask(command) == outcome


# --- over-commitment ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "command", "facts"),
    [
        ([cap("emea", 600)], SetCap("apac", "voice", 401), ("acme", 1000, 1001, 0)),
        ([cap("emea", 600)], SetCap("apac", "voice", 400), None),
        # Nested caps ask the one above them, not the root.
        ([cap("emea", 600)], SetCap("sales", "voice", 601), ("emea", 600, 601, 0)),
        ([moved("acme", "emea", 1), cap("emea", 600)], SetCap("sales", "voice", 601), None),
        # What a bucket in between serves is not asked of the root.
        ([moved("acme", "emea", 900), cap("sales", 900)], SetCap("apac", "voice", 100), None),
        ([moved("acme", "emea", 900), cap("sales", 950)], SetCap("apac", "voice", 51), ("acme", 100, 101, 0)),
        # What has been promised cannot be handed down to somebody else.
        ([cap("sales", 1000)], Allocate("acme", "apac", "voice", MONTH, 1), ("acme", 999, 1000, 0)),
        ([cap("sales", 1000)], Allocate("acme", "emea", "voice", MONTH, 1), None),
        ([cap("sales", 900)], Allocate("acme", "apac", "voice", MONTH, 100), None),
        # Handing it back where it came from makes nothing worse.
        ([cap("sales", 1000), moved("acme", "emea", 9)], Return("emea", "acme", "voice", MONTH, 9), None),
        # A lower cap never makes it worse, even where too much is promised already.
        ([cap("sales", 5000)], SetCap("sales", "voice", 4000), None),
        ([cap("sales", 5000)], SetCap("apac", "voice", 0), None),
        ([cap("sales", 5000)], SetCap("apac", "voice", 1), ("acme", 1000, 5001, 0)),
    ],
)
def test_no_more_is_promised_than_there_is(company, history, command, facts):
    acme = company(*history)
    if facts is None:
        assert acme.do(command)
        return
    code, told = acme.refusal(command)
    assert code == "over_committed"
    assert (told["node"], told["available"], told["committed"], told["percent"]) == facts


def test_the_contract_may_allow_to_promise_more(unopened):
    acme = unopened(50)
    assert acme.do(SetCap("emea", "voice", 1500))
    assert acme.refusal(SetCap("apac", "voice", 1))[1]["percent"] == 50


@pytest.mark.parametrize("percent", [-1, 10_001])
def test_a_contract_allows_a_percentage(acme, percent):
    command = SignContract("frame", "2026-01-01", (), terms=Terms(over_commitment_percent=percent))
    assert acme.refusal(command)[1]["field"] == "over_commitment_percent"


def test_what_is_rolled_over_backs_promises_where_it_went(unopened, at):
    acme = unopened(terms=Terms(rollover=(RollOverRule("voice"),)))
    acme.do(Allocate("acme", "emea", "voice", MONTH, 400))
    acme.do(SetCap("sales", "voice", 400))
    december = at("2026-12-01 00:00")
    acme.do(OpenPeriod("2026-12"), december)
    for command in acme.tenant.due(december):
        acme.do(command, december)
    assert acme.family(period="2026-12").remaining[:2] == [1600, 400]
    assert acme.do(SetCap("apac", "voice", 1600, "2026-12"), december)
    assert acme.ask(SetCap("r-2", "voice", 1601, "2026-12"), december) == "over_committed"


def test_what_is_committed_follows_whoever_moves(company, at):
    acme = company(moved("acme", "emea", 300), moved("acme", "apac", 600), cap("r-1", 300))
    caps = acme.family().caps
    acme.do(SetCap("r-2", "voice", 100))
    assert (caps.committed[1], caps.committed[3]) == (300, 100)
    acme.do(MoveResource("r-1", "apac", at("2026-11-10 00:00")))
    acme.do(SetCap("r-2", "voice", 200))
    assert (caps.committed.get(1, 0), caps.committed[3]) == (0, 500)


def test_promises_move_with_a_node_and_end_with_it(company):
    acme = company(moved("acme", "emea", 300), moved("acme", "apac", 600), cap("sales", 300))
    caps = acme.family().caps
    acme.do(SetCap("r-2", "voice", 1))
    assert caps.committed[1] == 300
    acme.do(MoveNode("sales", "apac"))
    acme.do(SetCap("r-2", "voice", 2))
    assert (caps.committed.get(1, 0), caps.committed[3]) == (0, 302)
    acme.do(CloseNode("sales", "apac"))
    acme.do(SetCap("r-2", "voice", 3))
    assert (caps.quantity, caps.committed[3]) == ({5: 3}, 3)
    assert acme.ask(SetCap("sales", "voice", 1)) == "node_closed"


# --- sessions under caps --------------------------------------------------------------------


def reserve(session, requested, line_="r-1", to="+4930123456"):
    record = UsageRecord("gw", session, line_, "voice", requested, NOW, "outbound", to)
    return ReserveUnits(record, 1, line_.encode(), b"")


def test_what_sessions_hold_from_above_counts(company):
    acme = company(cap("sales", 180))
    acme.do(reserve("a", 120))
    assert acme.family().caps.drawn == {2: 120}
    assert acme.use(120)[0].drawn == ((0, 60),)
    assert acme.family().caps.drawn == {2: 180}
    acme.do(ReleaseSession("gw", "a", 2, Report(total=60)))
    assert acme.family().caps.drawn == {2: 120}


def test_what_was_held_when_the_cap_came_down_may_be_used(company):
    acme = company(cap("sales", 180))
    acme.do(reserve("a", 120))
    acme.do(SetCap("sales", "voice", 0))
    charged = [
        e for e in acme.do(ReleaseSession("gw", "a", 2, Report(total=120))) if isinstance(e, UsageCharged)
    ]
    assert charged[0].drawn == ((0, 120),)


# --- freezing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], FreezeNode("emea", "a theft"), [NodeFrozen("emea", "a theft")]),
        ([], FreezeNode("r-1"), [NodeFrozen("r-1")]),
        ([], FreezeNode("nowhere"), "unknown_node"),
        ([NodeFrozen("emea")], FreezeNode("emea"), "frozen_already"),
        ([NodeFrozen("emea")], FreezeNode("sales"), [NodeFrozen("sales")]),
        ([], ThawNode("emea"), "not_frozen"),
        ([NodeFrozen("emea")], ThawNode("emea", "found"), [NodeThawed("emea", "found")]),
        ([NodeFrozen("emea")], Allocate("acme", "emea", "voice", MONTH, 1), "frozen"),
        ([NodeFrozen("emea")], Allocate("acme", "r-1", "voice", MONTH, 1), "frozen"),
        ([NodeFrozen("emea")], Return("r-1", "acme", "voice", MONTH, 1), "frozen"),
        ([NodeFrozen("emea")], Trade("emea", "apac", "voice", MONTH, 1), "frozen"),
        ([NodeFrozen("emea")], Trade("apac", "sales", "voice", MONTH, 1), "frozen"),
        ([NodeFrozen("emea")], Allocate("acme", "apac", "voice", MONTH, 1), [moved("acme", "apac", 1)]),
        ([NodeFrozen("emea")], ReturnUnused("sales"), "frozen"),
        ([NodeFrozen("emea")], ApplyTemplate("acme", "", Rule("each", 1), "voice"), "frozen"),
    ],
)
def test_a_frozen_node_neither_gives_nor_receives(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


def test_usage_below_a_frozen_node_is_refused_and_goes_on_when_it_is_thawed(acme):
    acme.do(FreezeNode("emea"))
    (rejected,) = acme.use(60)
    assert (rejected.reason, rejected.stopped_by) == ("frozen", 1)
    assert isinstance(acme.use(60, line="r-2")[0], UsageCharged)
    acme.do(ThawNode("emea"))
    assert isinstance(acme.use(60)[0], UsageCharged)


@pytest.mark.parametrize("called", ["112", "911", "110"])
def test_nobody_is_kept_from_calling_for_help(acme, called):
    acme.do(FreezeNode("r-1"))
    assert isinstance(acme.use(60, counterpart=called)[0], UsageCharged)
    assert isinstance(acme.use(60, counterpart=called, direction="inbound")[0], UsageRejected)


def test_a_frozen_member_opens_no_session_but_for_help(acme):
    acme.do(reserve("before", 120))
    acme.do(FreezeNode("sales"))
    (denied,) = acme.do(reserve("a", 60))
    assert isinstance(denied, SessionDenied)
    assert (denied.reason, denied.stopped_by) == ("frozen", 2)
    more = acme.do(UpdateSession("gw", "before", 2, Report(total=60), 120))
    assert isinstance(more[0], SessionDenied)
    released, charged = acme.do(ReleaseSession("gw", "before", 3, Report(total=120)))
    assert (charged.quantity, released.overrun) == (60, 60)
    assert acme.do(reserve("help", 60, to="112"))[0].emergency
    assert acme.do(UpdateSession("gw", "help", 2, Report(total=60), 60))[0].granted == 60


@pytest.mark.parametrize(
    ("usage_type", "direction", "line_", "called", "outcome"),
    [
        ("voice", "outbound", "+4930123", "112", True),
        ("voice", "outbound", "100", "112", True),
        ("messaging", "outbound", "+4930123", "112", True),
        ("data", "outbound", "+4930123", "112", False),
        ("voice", "inbound", "+4930123", "112", False),
        ("voice", "outbound", "+33123456789", "17", True),
        ("voice", "outbound", "+4930123", "17", False),
        ("voice", "outbound", "+39061234", "113", True),
        ("voice", "outbound", "+22912345", "117", True),
        ("voice", "outbound", "alice", "17", False),
        ("voice", "outbound", "+4930123", "1120", False),
        ("voice", "outbound", "+4930123", "", False),
    ],
)
def test_what_is_an_emergency(usage_type, direction, line_, called, outcome):
    record = UsageRecord("s", "i", line_, usage_type, 1, 0, direction, called)
    assert is_emergency(record) is outcome


def test_what_is_plain_agrees_with_what_is_decided(company):
    """Caps and freezes by both ways: they differ in cost only."""
    for caps in ([], [cap("sales", 60)], [cap("r-2", 60)], [NodeFrozen("apac")], [NodeFrozen("acme")]):
        one, other = company(*caps), company(*caps)
        for number in range(4):
            record = UsageRecord("s", f"{number}", "r-1", "voice", 60, NOW, "outbound", "+49")
            decided = one.do(ChargeUsage(record, b"r-1", b""))
            plain = other.tenant.plain.charge(record, b"r-1", b"", NOW)
            if plain is None:
                other.do(ChargeUsage(record, b"r-1", b""))
            else:
                assert [plain] == decided
        assert one.family().caps is None or one.family().caps.drawn == other.family().caps.drawn


# --- bulk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([], "no_lines"),
        ([line("allocate", "acme", "emea", 100)], [moved("acme", "emea", 100)]),
        # Each line is decided on what those before it lead to.
        (
            [line("allocate", "acme", "emea", 1000), line("allocate", "emea", "sales", 1000)],
            [moved("acme", "emea", 1000), moved("emea", "sales", 1000)],
        ),
        (
            [line("allocate", "acme", "emea", 600), line("trade", "emea", "apac", 600)],
            [moved("acme", "emea", 600), moved("emea", "apac", 600, "trade")],
        ),
        (
            [line("cap", "", "emea", 600), line("cap", "", "apac", 400), line("cap", "", "emea")],
            [cap("emea", 600), cap("apac", 400), cap("emea", None)],
        ),
        (
            [line("allocate", "acme", "emea", 5), line("return_unused", "emea", "acme")],
            [moved("acme", "emea", 5), moved("emea", "acme", 5, "return")],
        ),
    ],
)
def test_many_lines_at_once(acme, lines, outcome):
    assert acme.ask(many(*lines)) == outcome


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        ([line("allocate", "acme", "emea", 600), line("allocate", "acme", "apac", 401)],
         [(2, "insufficient_allowance")]),
        ([line("allocate", "acme", "nowhere", 1), line("allocate", "acme", "emea", 0)],
         [(1, "unknown_node"), (2, "not_positive")]),
        ([line("allocate", "acme", "emea")], [(1, "not_positive")]),
        ([line("steal", "acme", "emea", 1)], [(1, "unknown_action")]),
        ([line("allocate", "acme", "emea", 1, "fax")], [(1, "unknown_usage_type")]),
        ([line("allocate", "acme", "emea", 1, period="2026-13")], [(1, "not_a_period")]),
        ([line("cap", "acme", "emea", 1)], [(1, "cap_has_no_source")]),
        ([line("return_unused", "emea", "", 1)], [(1, "no_quantity_here")]),
        ([line("template", "acme", "none")], [(1, "unknown_template")]),
        ([line("cap", "", "emea", 600), line("cap", "", "apac", 401), line("cap", "", "apac", 400)],
         [(2, "over_committed")]),
        ([line("cap", "", "emea", 1000), line("allocate", "acme", "apac", 1)], [(2, "over_committed")]),
    ],
)  # fmt: skip
def test_every_bad_line_is_named_and_nothing_is_done(acme, lines, bad):
    code, facts = acme.refusal(many(*lines))
    assert (code, facts["count"]) == ("bad_lines", len(bad))
    assert [(one["line"], one["code"]) for one in facts["lines"]] == bad


def test_of_very_many_bad_lines_the_first_hundred_are_told(acme):
    facts = acme.refusal(many(*[line("allocate", "acme", "emea", 0)] * 150))[1]
    assert (facts["count"], len(facts["lines"]), facts["first"]) == (150, 100, 1)


def test_more_lines_than_the_bound_are_refused_and_as_many_are_not(acme):
    one = line("allocate", "acme", "emea", 1)
    assert acme.ask(many(*[one] * (LINES_MAX + 1))) == "too_many_lines"
    back = line("return", "emea", "acme", 1)
    assert len(acme.do(many(*[one, back] * (LINES_MAX // 2)))) == LINES_MAX


def test_lines_in_a_coming_period_open_it(acme):
    acme.do(many(line("allocate", "acme", "emea", 7), line("allocate", "acme", "emea", 5, period="2026-12")))
    assert acme.family(period="2026-12").remaining[1] == 5


def test_what_needs_an_approval_goes_by_itself(acme):
    acme.do(SetApprovalRule("emea", "voice", 50, Approver("acme")))
    lines = line("allocate", "acme", "apac", 60), line("allocate", "acme", "emea", 60)
    code, facts = acme.refusal(many(*lines))
    assert (code, [(one["line"], one["code"]) for one in facts["lines"]]) == (
        "bad_lines",
        [(2, "needs_approval")],
    )
    assert acme.ask(applied(Rule("each", 51))) == "needs_approval"
    assert isinstance(acme.ask(Allocate("acme", "emea", "voice", MONTH, 60))[0], TransferProposed)


def test_who_is_frozen_trades_nothing_either(acme):
    acme.do(Allocate("acme", "emea", "voice", MONTH, 60))
    acme.do(OfferTrade("o-1", "emea", "voice", 10, target="apac", period=MONTH))
    acme.do(FreezeNode("emea"))
    assert acme.ask(OfferTrade("o-2", "emea", "voice", 10, target="apac", period=MONTH)) == "frozen"
    assert acme.ask(AcceptOffer("o-1", "apac")) == "frozen"
    acme.do(ThawNode("emea"))
    assert len(acme.do(AcceptOffer("o-1", "apac"))) == 2


def test_what_is_promised_is_not_traded_away(acme):
    acme.do(Allocate("acme", "emea", "voice", MONTH, 600))
    acme.do(SetCap("r-1", "voice", 1000))
    acme.do(OfferTrade("o-1", "emea", "voice", 10, target="apac", period=MONTH))
    assert acme.ask(AcceptOffer("o-1", "apac")) == "over_committed"


# --- what is unused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (ReturnUnused("acme"), "nothing_above"),
        (ReturnUnused("nowhere"), "unknown_node"),
        (ReturnUnused("sales", "apac"), "not_above"),
        (ReturnUnused("sales", "sales"), "not_above"),
        (ReturnUnused("sales", usage_type="fax"), "unknown_usage_type"),
        (ReturnUnused("apac"), "nothing_unused"),
        (ReturnUnused("emea", usage_type="data"), "nothing_unused"),
        (ReturnUnused("emea", whole_subtree=False), [moved("emea", "acme", 100, "return")]),
        (ReturnUnused("sales"), [moved("sales", "emea", 60, "return"), moved("r-1", "emea", 30, "return")]),
        (
            ReturnUnused("emea", "acme", "voice", note="end"),
            [
                moved("emea", "acme", 100, "return", "end"),
                moved("sales", "acme", 60, "return", "end"),
                moved("r-1", "acme", 30, "return", "end"),
            ],
        ),
    ],
)
def test_what_is_unused_goes_back_up(company, command, outcome):
    history = [moved("acme", "emea", 190), moved("emea", "sales", 90), moved("sales", "r-1", 30)]
    assert company(*history).ask(command) == outcome


def test_what_sessions_hold_stays(company):
    acme = company(moved("acme", "r-1", 200))
    acme.do(reserve("a", 120))
    assert acme.ask(ReturnUnused("r-1", "acme")) == [moved("r-1", "acme", 80, "return")]


# --- templates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whole", "weights", "of", "parts"),
    [
        (100, [500] * 3, 10_000, [5, 5, 5]),
        (99, [3_333, 3_333, 3_334], 10_000, [33, 33, 33]),
        (10, [3_333, 3_333, 3_334], 10_000, [3, 3, 4]),
        (1, [5_000, 5_000], 10_000, [1, 0]),
        (7, [1, 1, 1], 3, [3, 2, 2]),
        (0, [5_000], 10_000, [0]),
    ],
)
def test_parts_add_up_exactly(whole, weights, of, parts):
    assert split(whole, weights, of) == parts
    assert sum(parts) == whole * sum(weights) // of


def applied(rule, node="acme", usage_type="voice"):
    return ApplyTemplate(node, "", rule, usage_type)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (applied(Rule("percent", 500)), [moved("acme", "emea", 50), moved("acme", "apac", 50)]),
        (applied(Rule("percent", 500, "cost_centre")), [moved("acme", "sales", 50)]),
        (applied(Rule("each", 10, "resources")), [moved("acme", "r-1", 10), moved("acme", "r-2", 10)]),
        (applied(Rule("each", 10, "msisdn")), [moved("acme", "r-1", 10)]),
        (applied(Rule("per_device", 7)), [moved("acme", "emea", 7), moved("acme", "apac", 7)]),
        (applied(Rule("percent", 5_010)), "insufficient_allowance"),
        (applied(Rule("each", 501)), "insufficient_allowance"),
        (applied(Rule("percent", 1), "emea"), "insufficient_allowance"),
        (applied(Rule("percent", 500), "r-1"), "nobody_below"),
        (applied(Rule("percent", 500, "group")), "nobody_below"),
        (applied(Rule("percent", 0)), "amount_out_of_range"),
        (applied(Rule("percent", 10_001)), "amount_out_of_range"),
        (applied(Rule("half", 1)), "unknown_share"),
        (applied(Rule("each", 1, "planet")), "unknown_kind"),
        (applied(Rule("each", 1), "nowhere"), "unknown_node"),
        (applied(Rule("each", 1), "acme", "fax"), "unknown_usage_type"),
        (ApplyTemplate("acme", "none"), "unknown_template"),
        (ApplyTemplate("acme"), "template_or_rule"),
        (ApplyTemplate("acme", "five", Rule("each", 1)), "template_or_rule"),
        (
            ApplyTemplate("acme", "five"),
            [moved("acme", "emea", 5, note="template five"), moved("acme", "apac", 5, note="template five")],
        ),
        (DefineTemplate("", "voice", Rule("each", 5)), "bad_text"),
        (DefineTemplate("x", "fax", Rule("each", 5)), "unknown_usage_type"),
        (DefineTemplate("x", "voice", Rule("each", 0)), "amount_out_of_range"),
    ],
)
def test_templates(acme, command, outcome):
    acme.do(DefineTemplate("five", "voice", Rule("each", 5)))
    assert acme.ask(command) == outcome


def test_ended_devices_get_nothing(company, at):
    acme = company(ResourceAdded("r-3", 6, "sales", "imsi", 0, (Identity(b"r-3", b""),)))
    rule = Rule("per_device", 10, "cost_centre")
    assert acme.ask(applied(rule)) == [moved("acme", "sales", 20)]
    acme.do(EndResource("r-3", at("2026-11-14 00:00")))
    assert acme.ask(applied(rule)) == [moved("acme", "sales", 10)]


# --- schedules ------------------------------------------------------------------------------


def scheduled(every, first_at, *lines, until=0, name="s"):
    return ScheduleAllocation(name, lines or (line("allocate", "acme", "emea", 10),), every, first_at, until)


def test_a_schedule_is_carried_out_at_its_moment_and_then_again(acme, at):
    monday = at("2026-11-16 09:00")
    acme.do(scheduled("week", monday))
    assert acme.tenant.next_due() == monday
    assert list(acme.tenant.due(monday - 1)) == []
    (command,) = acme.tenant.due(monday)
    assert command == CarryOutSchedule("s", monday)
    done = acme.do(command, monday)
    following = at("2026-11-23 09:00")
    assert done == [ScheduleCarriedOut("s", monday, MONTH, 1, following), moved("acme", "emea", 10)]
    assert acme.tenant.next_due() == following
    assert acme.ask(command, monday) == "not_due"


def test_what_does_not_fit_is_skipped_and_told_why(acme, at):
    when = at("2026-11-16 09:00")
    acme.do(
        scheduled("once", when, line("allocate", "acme", "emea", 1), line("allocate", "acme", "apac", 5000))
    )
    done = acme.do(CarryOutSchedule("s", when), when)
    assert done == [ScheduleSkipped("s", when, MONTH, "insufficient_allowance", 2, 0)]
    assert acme.tenant.schedules.by_id == {}


def test_a_schedule_of_a_month_that_no_contract_covers_is_skipped(acme, told, at):
    acme = told(*acme.history[:7], ContractSigned("late", 1, "2027-01-01", (), overage=True))
    when = at("2026-11-16 09:00")
    acme.do(scheduled("month", when))
    (skipped,) = acme.do(CarryOutSchedule("s", when), when)
    assert (skipped.code, skipped.next_at) == ("no_contract", at("2026-12-16 09:00"))


def test_after_a_pause_it_is_done_once(acme, at):
    first = at("2026-11-16 09:00")
    acme.do(scheduled("day", first))
    done = acme.do(CarryOutSchedule("s", first), at("2026-11-20 12:00"))
    assert done[0].next_at == at("2026-11-21 09:00")


def test_what_is_scheduled_for_each_period_stands_in_the_commit_that_opens_it(acme, at):
    acme.do(DefineTemplate("half", "voice", Rule("percent", 2_500)))
    acme.do(scheduled("period", 0, line("template", "acme", "half", usage_type=""), name="a"))
    acme.do(scheduled("period", 0, line("allocate", "emea", "sales", 300), name="b"))
    acme.do(scheduled("period", 0, line("cap", "", "apac", 900), name="c"))
    opened = acme.tenant.decide(OpenPeriod("2026-12"), at("2026-12-01 00:00"))
    told = [(type(event).__name__, getattr(event, "code", "")) for event in opened]
    assert told == [
        ("PeriodOpened", ""),
        ("Granted", ""),
        ("Granted", ""),
        ("ScheduleCarriedOut", ""),
        ("Transferred", ""),
        ("Transferred", ""),
        # EMEA has 250 of 1000, by the schedule before.
        ("ScheduleSkipped", "insufficient_allowance"),
        ("ScheduleSkipped", "over_committed"),
    ]
    acme.tell(*opened)
    acme.tenant.check_whole()
    assert acme.family(period="2026-12").remaining[:4] == [500, 250, 0, 250]
    assert acme.tenant.next_due() is None
    assert set(acme.tenant.schedules.by_id) == {"a", "b", "c"}


def test_an_earlier_period_is_not_asked(acme, at):
    acme.do(scheduled("period", 0))
    opened = acme.tenant.decide(OpenPeriod("2026-10"), at("2026-11-15 12:00"))
    assert not [event for event in opened if isinstance(event, ScheduleCarriedOut)]


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (scheduled("once", DAY), "not_ahead"),
        (scheduled("day", 0), "not_ahead"),
        (scheduled("once", 2**62), "not_ahead"),
        (scheduled("hour", 0), "unknown_recurrence"),
        (scheduled("period", 0, name=""), "bad_text"),
        (scheduled("period", 0, name="there"), "exists_already"),
        (ScheduleAllocation("s", (), "period"), "no_lines"),
        (scheduled("period", 0, *[line("cap", "", "emea", 1)] * 1001), "too_many_lines"),
        (scheduled("period", 0, line("steal", "acme", "emea", 1)), "unknown_action"),
        (scheduled("period", 0, line("allocate", "acme", "nowhere", 1)), "unknown_node"),
        (scheduled("period", 0, line("allocate", "acme", "emea", 0)), "not_positive"),
        (scheduled("period", 0, line("allocate", "acme", "emea", 1, "fax")), "unknown_usage_type"),
        (scheduled("period", 0, line("allocate", "acme", "emea", 1, period=MONTH)), "no_period_here"),
        (scheduled("period", 0, until=1), "ends_before_it_begins"),
        (CancelSchedule("none"), "unknown_schedule"),
        (CarryOutSchedule("none", 0), "unknown_schedule"),
        (CarryOutSchedule("there", 0), "not_due"),
    ],
)
def test_what_cannot_be_scheduled(acme, command, outcome):
    acme.do(scheduled("period", 0, name="there"))
    assert acme.ask(command) == outcome


def test_a_cancelled_schedule_is_not_due(acme, at):
    when = at("2026-11-16 09:00")
    acme.do(scheduled("once", when))
    acme.do(CancelSchedule("s", "no more"))
    assert acme.tenant.next_due() is None
    assert list(acme.tenant.due(when)) == []


@pytest.mark.parametrize(
    ("every", "first", "now", "following"),
    [
        ("day", "2026-03-28 09:00", "2026-03-28 09:00", "2026-03-29 09:00"),  # summer time begins
        ("day", "2026-10-24 02:30", "2026-10-24 02:30", "2026-10-25 02:30"),  # an hour comes twice
        ("week", "2026-11-02 00:00", "2026-11-02 00:00", "2026-11-09 00:00"),
        ("week", "2026-11-02 00:00", "2027-01-01 00:00", "2027-01-04 00:00"),
        ("month", "2026-01-31 08:00", "2026-01-31 08:00", "2026-02-28 08:00"),
        ("month", "2026-01-31 08:00", "2026-02-28 08:00", "2026-03-31 08:00"),
        ("month", "2026-11-15 08:00", "2026-12-15 07:59", "2026-12-15 08:00"),
        ("month", "2026-12-15 08:00", "2026-12-15 08:00", "2027-01-15 08:00"),
    ],
)
def test_the_next_moment_keeps_the_time_of_day(acme, at, every, first, now, following):
    zone = acme.tenant.contracts.zone
    planned = AllocationScheduled("s", (), every, at(first), 0)
    assert next_after(planned, at(now), zone) == at(following)
    ended = AllocationScheduled("s", (), every, at(first), at(following) - 1)
    assert next_after(ended, at(now), zone) == 0


def test_new_members_come_and_go_below_caps(acme):
    acme.do(SetCap("sales", "voice", 100))
    acme.do(AddNode("desk", "sales", "", "group"))
    acme.do(AddResource("r-9", "desk", "sip", 0, (Identity(b"r-9", b""),)))
    acme.do(SetCap("r-9", "voice", 60))
    assert acme.use(120, line="r-9")[0].drawn == ((0, 60),)
    assert acme.family().caps.drawn == {2: 60, 7: 60}
