"""What was used by day, against a naive count of the log; and reviews and sizings made of it."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from backdated import DE
from backdated import settle as settle_jobs
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from allotment.backend.following import catch_up
from allotment.backend.log import recorded
from allotment.backend.looking_back import past, rebuild_and_compare
from allotment.domain.bucket import Allocate, Granted, Return, Trade
from allotment.domain.charging import UsageCharged
from allotment.domain.contract import PeriodOpened, bounds_of
from allotment.domain.correcting import CorrectMerge, CorrectMove, CorrectNodeMove
from allotment.domain.events import encode
from allotment.domain.hierarchy import AddNode, AddResource, MoveResource
from allotment.domain.life import CloseNode, MoveNode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.sizing import Assumptions
from allotment.projections import consumption
from allotment.projections.balances import balances_under
from allotment.projections.members import tree
from allotment.projections.reviews import Asked, review_of
from allotment.projections.sizings import sizing_among

ZONE = ZoneInfo("Europe/Berlin")
PERIOD = "2026-11"
TYPES = ("voice", "data", "money")
NODES = ("acme", "emea", "sales", "apac")
MEMBERS = (*NODES, "r1", "r2", "r3")
DAY = 86_400_000_000


def at(text):
    """A moment in the enterprise's own time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZONE)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def reading(made):
    return made.isolation.transaction(made.tenant, "auditor")


def settle(made):
    made.commit()
    catch_up(made.isolation, made.tenant)


def reviewed(made, member="acme", usage_type="voice", period=PERIOD, now=None, **more):
    asked = Asked(member, usage_type, period, bounds_of(period, ZONE), now or made.now, **more)
    with reading(made) as db:
        return review_of(db, asked)


BRIEFLY = settings(
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""What fails is not made smaller: each example is a tenant of its own, in PostgreSQL."""


def happenings():
    member, kind = st.sampled_from(MEMBERS), st.sampled_from(["voice", "data"])
    quantity, ago = st.integers(1, 60_000), st.integers(0, 40)
    transfer = st.sampled_from([Allocate, Allocate, Return, Trade])
    return st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["r1", "r2", "r3"]), kind, quantity, ago),
            st.builds(
                lambda order, *rest: order(*rest), transfer, member, member, kind, st.just(PERIOD), quantity
            ),
            st.builds(AddNode, st.just("added"), st.sampled_from(NODES), st.just("Added"), st.just("group")),
            st.builds(MoveNode, st.sampled_from(("emea", "sales", "apac")), st.sampled_from(NODES)),
            st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(NODES)),
            st.builds(CloseNode, st.sampled_from(("sales", "apac", "added")), st.sampled_from(NODES)),
            st.integers(1, 3 * DAY),
        ),
        max_size=40,
    )


@settings(BRIEFLY, max_examples=12)
@given(history=happenings(), chunk=st.sampled_from([5, 5_000]))
def test_after_any_history_days_are_what_the_log_tells_and_end_where_the_balances_stand(
    enterprise, history, chunk
):
    made = enterprise().opened()
    for what in history:
        match what:
            case int():
                made.commit()
                made.now += what
            case (line, kind, quantity, ago):
                made.use(line, kind, quantity, at=made.now - 1 - ago * DAY)
            case (line, node):
                made.do(MoveResource(line, node, made.now))
            case _:
                made.do(what)
    made.commit()
    catch_up(made.isolation, made.tenant, chunk=chunk)
    assert rebuild_and_compare(made.isolation, made.tenant) == []
    with reading(made) as db:
        _check_days(db, made)
        for period in made.state.contracts.periods:
            for usage_type in ("voice", "data"):
                _check_ends(db, made, period, usage_type)


class Company:
    """The enterprise, as jobs that charge again are carried out on it (`backdated.py`)."""

    def __init__(self, made):
        self.made, self.tenant, self.do = made, made.state, lambda command, now: made.do(command)

    @property
    def history(self):
        self.made.commit()
        return [recorded(row).event for row in self.made.log.read()]

    def ask(self, command, now):
        try:
            return self.tenant.decide(command, now)
        except Refused as refusal:
            return refusal.code


HANDED = [Allocate("acme", to, "voice", PERIOD, 90) for to in ("r1", "emea", "sales", "apac")]


def corrected_happenings():
    line, quantity, ago = st.sampled_from(MEMBERS[4:]), st.integers(1, 60_000), st.integers(0, 30)
    given_to = (st.sampled_from(MEMBERS), st.just("voice"), st.just(PERIOD), quantity)
    corrections = (
        st.tuples(st.just(order), st.sampled_from(members), st.sampled_from(NODES), ago)
        for order, members in (
            (CorrectNodeMove, NODES[1:]),
            (CorrectMove, MEMBERS[4:]),
            (CorrectMerge, NODES[1:]),
        )
    )
    allocated = st.builds(Allocate, st.just("acme"), *given_to)
    used = st.tuples(line, quantity, ago)
    return st.lists(st.one_of(used, allocated, *corrections, st.integers(1, DAY)), max_size=24)


@settings(BRIEFLY, max_examples=6)
@given(history=corrected_happenings(), chunk=st.sampled_from([5, 5_000]))
@example(history=[*HANDED, ("r1", 60, 1), (CorrectNodeMove, "sales", "apac", 20), ("r2", 60, 25)], chunk=5)
@example(history=[*HANDED, ("r1", 60, 1), (CorrectMerge, "sales", "apac", 20), ("r2", 60, 25)], chunk=5_000)
@example(history=[*HANDED, ("r1", 60, 1), (CorrectMove, "r1", "apac", 20), ("r1", 60, 25)], chunk=5_000)
def test_days_end_where_balances_stand_also_after_what_was_dated_back(enterprise, history, chunk):
    made = enterprise().opened()
    made.now += 3 * DAY
    company = Company(made)
    for number, what in enumerate(history):
        match what:
            case int():
                made.commit()
                made.now += what
            case (line, quantity, ago):
                made.use(line, "voice", quantity, DE, at=made.now - 1 - ago * DAY // 10)
            case (order, member, node, ago):
                made.do(order(f"j{number}", member, node, made.now - ago * DAY // 10))
                settle_jobs(company, made.now)
            case _:
                made.do(what)
    made.commit()
    catch_up(made.isolation, made.tenant, chunk=chunk)
    assert rebuild_and_compare(made.isolation, made.tenant) == []
    with reading(made) as db:
        for period in made.state.contracts.periods:
            _check_ends(db, made, period, "voice")


def _check_days(db, made):
    counted = defaultdict(int)
    for charge in charges(made):
        day = datetime.fromtimestamp(charge.started_at // 1_000_000, ZONE).date().toordinal() - 719_163
        for ordinal in charge.path:
            counted[charge.period, charge.usage_type, ordinal, day] += charge.billed
            counted[charge.period, "money", ordinal, day] += charge.amount
    told = defaultdict(int)
    for period in made.state.contracts.periods:
        for member in made.state.hierarchy.members:
            days_of = consumption.days_of if member.is_node else consumption.days_of_resource
            for usage_type in TYPES:
                for one in days_of(db, member.ordinal, period, usage_type):
                    told[period, usage_type, member.ordinal, one.day] += one.used
    assert {key: used for key, used in told.items() if used} == {k: v for k, v in counted.items() if v}


def charges(made):
    events = (recorded(row).event for row in made.log.read())
    return [event for event in events if isinstance(event, UsageCharged)]


def _check_ends(db, made, period, usage_type):
    """What moved in less what was drawn is what remains, and usage is what the balances count."""
    for balance in balances_under(db, None, None, period, [usage_type], resources=True):
        is_node = made.state.hierarchy.members[balance.ordinal].is_node
        days_of = consumption.days_of if is_node else consumption.days_of_resource
        days = days_of(db, balance.ordinal, period, usage_type)
        assert sum(one.moved - one.drawn for one in days) == balance.subtree.remaining
        assert sum(one.used for one in days) == balance.used
        assert sum(one.overage for one in days) == balance.overage
        assert sum(one.records for one in days) == balance.charges


# --- reviews -------------------------------------------------------------------------------------


@pytest.fixture
def november(enterprise):
    """Two weeks of November: 100,000 seconds for Acme, of which EMEA has 5,000 and Sales 1,000."""
    made = enterprise().opened()
    made.now = at("2026-11-02T09:00")
    made.do(Allocate("acme", "emea", "voice", PERIOD, 5_000))
    made.do(Allocate("emea", "sales", "voice", PERIOD, 1_000))
    made.do(SetLimit("emea", "voice", 20_000, (80,), PERIOD))
    for day, line, seconds in ((2, "r1", 600), (3, "r2", 1_200), (7, "r1", 300), (14, "r3", 2_400)):
        made.now = at(f"2026-11-{day:02d}T12:00")
        made.use(line, "voice", seconds)
        made.commit()
    made.now = at("2026-11-15T12:00")
    settle(made)
    return made


def test_a_review_tells_what_remained_at_the_end_of_each_day(november):
    told = reviewed(november, "emea")
    assert [day.date for day in told.days] == [f"2026-11-{day:02d}" for day in range(1, 16)]
    remaining = {day.date[-2:]: day.remaining for day in told.days}
    # Sales had used up its own 1,000 on the 3rd, and drew the rest from EMEA.
    assert [remaining[day] for day in ("01", "02", "03", "06", "07", "15")] == [
        *(0, 4_400, 3_200, 3_200, 2_900, 2_900)
    ]
    assert remaining["15"] == told.balance.subtree.remaining
    assert (told.complete_days, told.days_in_period, told.complete_days_used) == (14, 30, 2_100)


def test_rates_are_exact_and_tell_from_when_to_when(november):
    seven, whole = reviewed(november).rates
    assert (seven.basis, seven.quantity, seven.per_day) == ("last_7_days", 2_400, 343)
    assert (seven.since, seven.until) == (at("2026-11-08T00:00"), at("2026-11-15T00:00"))
    assert (whole.basis, whole.quantity) == ("period_to_date", 4_500)
    assert (whole.since, whole.until) == (at("2026-11-01T00:00"), november.now)


def test_a_projection_shows_its_working(november):
    november.do(Return("emea", "acme", "voice", PERIOD, 2_000))
    november.use("r1", "voice", 60, at=at("2026-11-14T09:00"))
    settle(november)
    told = reviewed(november, "emea")
    allowance = [one for one in told.foresights if one.of == "allowance"]
    # Of the last seven days a minute was used: at that rate 840 seconds last, at November's they do not.
    assert [(one.outlook.rate.basis, one.outlook.status) for one in allowance] == [
        ("last_7_days", "lasts"),
        ("period_to_date", "runs_out"),
    ]
    assert allowance[1].date == "2026-11-21"
    assert allowance[1].working == (
        "840 left, 2160 used in 1252800 s: 840 x 1252800 s / 2160 ends on 2026-11-21"
    )
    limit = [one for one in told.foresights if one.of == "limit"]
    assert [one.outlook.left for one in limit] == [17_840, 17_840]


def test_top_consumers_have_shares_that_add_up(november):
    told = reviewed(november, top=2)
    assert [(one.id, one.used, one.share) for one in told.children.consumers] == [
        ("apac", 2_400, 5_333),
        ("emea", 2_100, 4_667),
    ]
    assert [(one.id, one.used, one.share) for one in told.resources.consumers] == [
        ("r3", 2_400, 5_333),
        ("r2", 1_200, 2_667),
    ]
    assert (told.resources.count, told.resources.others, told.resources.others_share) == (3, 900, 2_000)
    on_the_node_itself = reviewed(november, "sales").children
    assert (on_the_node_itself.rest, on_the_node_itself.rest_share) == (2_100, 10_000)


def test_who_left_is_among_the_rest_and_who_came_brought_usage_along(november):
    november.do(MoveResource("r1", "apac", november.now))
    settle(november)
    sales, apac = reviewed(november, "sales").resources, reviewed(november, "apac").resources
    assert [(one.id, one.share) for one in sales.consumers] == [("r2", 5_714)]
    assert (sales.rest, sales.rest_share) == (900, 4_286)
    assert [(one.id, one.used) for one in apac.consumers] == [("r3", 2_400), ("r1", 900)]
    assert sum(one.share for one in apac.consumers) == 10_000


def test_a_node_that_moves_takes_its_buckets_along_and_leaves_its_usage(november):
    before = {node: reviewed(november, node) for node in ("acme", "emea", "apac", "sales")}
    assert november.do(MoveNode("sales", "apac"))
    november.use("r1", "voice", 60, at=november.now)
    settle(november)
    told = {node: reviewed(november, node) for node in before}
    used = {node: told[node].balance.used - before[node].balance.used for node in before}
    assert used == {"acme": 60, "emea": 0, "apac": 60, "sales": 60}
    for node, review in told.items():
        assert review.days[-1].remaining == review.balance.subtree.remaining, node
        assert sum(day.used for day in review.days) == review.balance.used, node
        # What was is as it was: only the last day knows of the move.
        assert [day.remaining for day in review.days[:-1]] == [
            day.remaining for day in before[node].days[:-1]
        ], node
    with reading(november) as db:
        for usage_type in ("voice", "data"):
            _check_ends(db, november, PERIOD, usage_type)


def test_a_review_stands_beside_the_same_days_of_earlier_periods(november):
    november.use("r1", "voice", 60, at=at("2026-10-14T23:59"))
    november.use("r1", "voice", 6_000, at=at("2026-10-15T00:00"))
    november.use("r1", "voice", 120, at=at("2026-09-30T12:00"))
    settle(november)
    told = reviewed(november, previous=5)
    assert [(one.period, one.same_days, one.difference, one.whole) for one in told.previous] == [
        ("2026-10", 60, 4_440, 6_060),
        ("2026-09", 0, 4_500, 120),
    ]
    assert [one.period for one in reviewed(november, previous=1).previous] == ["2026-10"]


def test_a_resource_is_reviewed_like_a_node_also_with_a_bucket_of_its_own(november):
    november.do(Allocate("sales", "r1", "voice", PERIOD, 0))
    november.do(Allocate("emea", "r1", "voice", PERIOD, 500))
    november.use("r1", "voice", 300)
    settle(november)
    told = reviewed(november, "r1")
    assert [(day.date[-2:], day.used, day.remaining) for day in told.days if day.used] == [
        ("02", 600, 0),
        ("07", 300, 0),
        ("15", 300, 200),
    ]
    assert [one.of for one in told.foresights] == ["allowance", "allowance"]
    assert (told.children.consumers, told.resources.consumers) == ([], [])


def test_a_resource_that_used_too_often_is_not_counted_while_somebody_waits(november, monkeypatch):
    monkeypatch.setattr(consumption, "RECORDS_MAX", 1)
    assert reviewed(november, "r3") is not None
    with pytest.raises(consumption.TooManyRecords):
        reviewed(november, "r1")


def test_money_is_used_up_by_every_usage_type(november):
    november.use("r1", "voice", 200_000, "+331")
    november.use("r3", "data", 2 * 10**9)
    settle(november)
    told = reviewed(november, "acme", "money")
    assert told.balance.used == sum(day.used for day in told.days) == november.state.charging.amount_total > 0
    assert [one.of for one in told.foresights] == []


@pytest.mark.parametrize(
    ("now", "period", "complete", "in_period", "statuses", "bases"),
    [
        # Before it begins, at its first moment, in its first hours, and at its end.
        ("2026-10-31T23:59", PERIOD, 0, 30, [], []),
        ("2026-11-01T00:00", PERIOD, 0, 30, ["unused"], ["period_to_date"]),
        ("2026-11-01T12:00", PERIOD, 0, 30, ["unused"], ["period_to_date"]),
        ("2026-11-02T00:00", PERIOD, 1, 30, ["unused"] * 2, ["last_7_days", "period_to_date"]),
        ("2026-11-30T23:59", PERIOD, 29, 30, ["unused"] * 2, ["last_7_days", "period_to_date"]),
        ("2026-12-01T00:00", PERIOD, 30, 30, ["ended"] * 2, ["last_7_days", "period_to_date"]),
        ("2027-06-01T00:00", PERIOD, 30, 30, ["ended"] * 2, ["last_7_days", "period_to_date"]),
        # Nothing was ever opened there.
        ("2026-11-15T12:00", "2026-12", 0, 31, [], []),
        ("2026-11-15T12:00", "2026-02", 28, 28, [], []),
    ],
)
def test_with_nothing_used_everything_lasts(enterprise, now, period, complete, in_period, statuses, bases):
    made = enterprise().opened()
    made.do(Allocate("acme", "emea", "voice", PERIOD, 100))
    settle(made)
    told = reviewed(made, "emea", period=period, now=at(now))
    assert (told.complete_days, told.days_in_period) == (complete, in_period)
    assert [one.outlook.status for one in told.foresights] == statuses
    assert [one.outlook.rate.basis for one in told.foresights] == bases
    assert all(day.used == 0 for day in told.days)


def test_when_all_is_used_it_tells_since_when(enterprise):
    made = enterprise().opened()
    made.do(Allocate("acme", "emea", "voice", PERIOD, 600))
    made.now = at("2026-11-05T12:00")
    made.use("r1", "voice", 600)
    made.now = at("2026-11-08T12:00")
    made.use("r1", "voice", 60)
    settle(made)
    told = reviewed(made, "emea")
    assert {(one.outlook.status, one.date, one.working) for one in told.foresights} == {
        ("exhausted", "2026-11-05", "nothing is left since 2026-11-05")
    }
    assert told.days[-1].overage == 0


@pytest.mark.parametrize(
    ("starts", "ends", "now", "days", "complete"),
    [
        ("2026-11-05T00:00", "2026-11-06T00:00", "2026-11-05T18:00", 1, 0),
        ("2026-11-05T00:00", "2026-11-06T00:00", "2026-11-06T00:00", 1, 1),
        ("2028-02-29T00:00", "2028-03-01T00:00", "2028-02-29T23:00", 1, 0),
        ("2028-02-01T00:00", "2028-03-01T00:00", "2028-03-05T00:00", 29, 29),
        ("2027-02-01T00:00", "2027-03-01T00:00", "2027-03-05T00:00", 28, 28),
        ("2026-03-29T00:00", "2026-03-30T00:00", "2026-03-29T18:00", 1, 0),
        ("2026-10-25T00:00", "2026-10-26T00:00", "2026-10-25T18:00", 1, 0),
        ("2026-10-19T00:00", "2026-11-02T00:00", "2026-10-26T12:00", 14, 7),
    ],
)
def test_a_period_may_be_a_day_hold_a_leap_day_or_change_clocks(
    enterprise, starts, ends, now, days, complete
):
    made = enterprise().opened()
    made.now = at(now)
    opened = PeriodOpened("p", at(starts), at(ends), "c", 1, True)
    for event in (opened, Granted("acme", "voice", "p", 1_000)):
        made.state.apply(event)
        made._group().add(event.topic, encode(event, "test", bytes(8)), None)
    made.use("r1", "voice", 100, at=at(starts))
    made.use("r1", "voice", 200, at=at(ends) - 1 if at(ends) <= at(now) else at(now) - 1)
    settle(made)
    asked = Asked("acme", "voice", "p", (0, 1), made.now)
    with reading(made) as db:
        told = review_of(db, asked)
    assert (told.days_in_period, told.complete_days) == (days, complete)
    assert sum(day.used for day in told.days) == told.balance.used == 360
    assert told.days[-1].remaining == 640
    whole = told.rates[-1]
    assert (whole.since, whole.until) == (at(starts), min(at(now), at(ends)))


def test_a_day_with_25_hours_counts_25_hours(enterprise):
    made = enterprise().opened()
    made.now = at("2026-10-26T00:00")
    made.use("r1", "voice", 600, at=at("2026-10-25T02:30"))
    settle(made)
    seven = reviewed(made, period="2026-10").rates[0]
    assert seven.until - seven.since == (7 * 24 + 1) * 3_600_000_000


def test_nobody_is_reviewed_who_is_not_there(november):
    assert reviewed(november, "unheard of") is None


def test_reviews_and_sizings_as_of_a_seq_stay_what_they_were(november):
    seq, now = november.log.head().seq, november.now
    assumed = Assumptions(periods=2)

    def answers(db):
        asked = [Asked(m, k, PERIOD, bounds_of(PERIOD, ZONE), now) for m in MEMBERS for k in TYPES]
        sized = sizing_among(db, tree(db, None, 1), TYPES, assumed, now + 30 * DAY, PERIOD)
        return [review_of(db, one) for one in asked], sized

    with reading(november) as db:
        before = answers(db)
    november.do(AddResource("r4", "sales", "msisdn", 0, ()))
    november.do(MoveResource("r1", "apac", now))
    november.do(Allocate("acme", "apac", "voice", PERIOD, 77))
    november.use("r2", "voice", 6_000)
    settle(november)
    with past(november.isolation, november.tenant, seq, ["consumption", "usages"]) as db:
        assert answers(db) == before
    assert rebuild_and_compare(november.isolation, november.tenant) == []


# --- sizings -------------------------------------------------------------------------------------


def test_sizing_compares_what_children_need_with_what_their_parent_needs(enterprise):
    """Two divisions that peak in different months need less together than each for itself."""
    made = enterprise().opened()
    made.now = at("2026-11-02T12:00")
    for month, line, seconds in (
        ("09", "r1", 7_200),
        ("09", "r3", 60),
        ("10", "r1", 60),
        ("10", "r3", 7_200),
    ):
        made.use(line, "voice", seconds, at=at(f"2026-{month}-10T12:00"))
    made.use("r1", "voice", 10**5)
    settle(made)
    assumed = Assumptions(periods=3, growth_percent=10, margin_percent=0)
    with reading(made) as db:
        told = sizing_among(db, tree(db, None, 1), ["voice"], assumed, made.now, PERIOD)
        few = sizing_among(db, tree(db, None, 1), ["voice"], Assumptions(periods=1), made.now, PERIOD)
    assert told.periods == ["2026-09", "2026-10"]
    assert few.periods == ["2026-10"]
    found = {one.member.id: one for one in told.sized}
    assert {ident: one.proposal.quantity for ident, one in found.items()} == {
        "acme": 10_800,
        "emea": 10_800,
        "apac": 10_800,
    }
    assert (found["acme"].below, found["acme"].apart) == (21_600, -10_800)
    assert (found["emea"].below, found["emea"].apart) == (None, None)
    assert found["acme"].held == 100_000
    assert [(one.used, one.unused) for one in found["acme"].proposal.replayed] == [(7_260, 3_540)] * 2
