"""The views against the state that the writer folds from the same log, whatever happened."""

import re
from contextlib import nullcontext

import msgspec
import psycopg
import pytest
from columns_told import check_columns
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from members_listed import members_under

from allotment.backend.following import catch_up
from allotment.backend.looking_back import dump_views, past
from allotment.backend.native import using
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.contract import Grant, SignContract
from allotment.domain.hierarchy import AddNode, EndResource, Identity, MoveResource
from allotment.domain.life import (
    CancelPlan,
    CarryOutPlan,
    ChangeIdentities,
    CloseNode,
    LabelResource,
    MoveNode,
    RenameNode,
    ResumeResource,
    SuspendResource,
)
from allotment.domain.limit import SetLimit
from allotment.domain.member import placed_since
from allotment.domain.usage import MONEY, USAGE_TYPES
from allotment.projections import (
    balances,
    consumers,
    consumption,
    inventory,
    invoices,
    limits,
    members,
    paging,
    presence,
    sessions,
    subtrees,
    suspense,
    timeline,
    usages,
)
from allotment.projections.tables import bytea_array, int8_array, text_array
from allotment.projections.views import VIEWS

NODES = ("acme", "emea", "sales", "apac", "added")
MEMBERS = (*NODES, "r1", "r2", "r3", "r4")
LINES = ("r1", "r2", "r3", "r4", "nobody")
PERIOD = "2026-11"
ALL_TYPES = (*USAGE_TYPES, MONEY)


INTO_A_NEW_NODE = [
    ("r3", "voice", 53_660),
    ("r3", "data", 691),
    ChangeIdentities("r4", (), ()),
    AddNode("added", "apac", "Added", "group"),
    MoveNode("added", "acme", 0),
    CloseNode("apac", "added"),
]
"""Whoever was below a node gets to a successor that the same chunk tells of first."""


def histories():
    member, node = st.sampled_from(MEMBERS), st.sampled_from(NODES)
    kind, quantity = st.sampled_from(["voice", "data", MONEY]), st.integers(0, 60_000)
    resource, moment = st.sampled_from(MEMBERS[5:]), st.integers(0, 2 * 10**15)
    later, label = st.sampled_from([0, 2 * 10**15]), st.sampled_from([b"", b"label"])
    identities = st.sampled_from([(), (Identity(b"one", b"1"),), (Identity(b"two", b""),)])
    transfer = st.sampled_from([Allocate, Allocate, Return, Trade])
    return st.lists(
        st.one_of(
            st.builds(
                lambda order, *rest: order(*rest), transfer, member, member, kind, st.just(""), quantity
            ),
            st.builds(SetLimit, member, kind, st.none() | quantity, st.just((50, 100))),
            st.builds(MoveResource, resource, node, moment),
            st.builds(EndResource, resource, moment),
            st.builds(AddNode, st.just("added"), node, st.just("Added"), st.just("group")),
            st.builds(MoveNode, node, node, later),
            st.builds(MoveNode, node, node),
            st.builds(CloseNode, node, node | st.just("")),
            st.builds(RenameNode, node, st.sampled_from(["One", "Two"]), later),
            st.builds(CancelPlan, node),
            st.builds(lambda plan: CarryOutPlan(*plan), st.tuples(node, later)),
            st.builds(SuspendResource, resource) | st.builds(ResumeResource, resource),
            st.builds(lambda *given: LabelResource(*given, given[1]), resource, label),
            st.builds(ChangeIdentities, resource, identities, st.sampled_from([(), (b"one",)])),
            st.tuples(st.sampled_from(LINES), st.sampled_from(["voice", "data"]), quantity),
            st.tuples(st.sampled_from(LINES[:3]), st.just("voice"), quantity),
        ),
        max_size=40,
    )


def play(made, history):
    for what in history:
        if isinstance(what, tuple):
            made.use(*what)
        else:
            made.do(what)
    made.commit()


def reading(made):
    return made.isolation.transaction(made.tenant, "auditor")


def dumped(made):
    with reading(made) as db:
        return list(dump_views(db))


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(history=INTO_A_NEW_NODE, chunk=7)
@given(history=histories(), chunk=st.sampled_from([7, 5_000]))
def test_after_any_history_the_views_tell_what_the_writer_knows(enterprise, history, chunk):
    made = enterprise().opened()
    play(made, history)
    catch_up(made.isolation, made.tenant, chunk=chunk)
    made.state.check_whole()
    with reading(made) as db:
        _check_members(db, made.state)
        _check_presence(db, made.state)
        _check_balances(db, made.state)
        _check_limits(db, made.state)
        _check_usage(db, made)
        check_columns(db, PERIOD, (None, "emea", "r1"))


def _check_members(db, state):
    told = members_under(db, resources=True)
    assert [member.path for member in told] == sorted(member.path for member in told)
    by_ordinal = {member.ordinal: member for member in told}
    for known in state.hierarchy.members:
        member = by_ordinal[known.ordinal]
        assert (member.id, member.kind, member.is_node) == (known.id, known.kind, known.is_node)
        assert tuple(reversed(member.path)) == known.path
        if not known.is_node:
            since, path = known.stays[-1]
            assert member.until == (None if path else since)
            assert member.since <= placed_since([stay for stay in known.stays if stay[1]])
            assert member.tokens == [identity.token for identity in known.identities]
    _check_what_became_of_them(db, state)
    assert len(told) == len(state.hierarchy.members)
    for root in (None, told[0].id, told[-1].id, "nobody"):
        for depth in (None, 0, 1):
            _check_tree(db, root, depth)


def _check_presence(db, state):
    """At every moment that anything changed, each resource is where its path says."""
    rows = db.execute("SELECT ordinal, since, until, node FROM stays WHERE until > since").fetchall()
    moments = sorted({moment for row in rows for moment in row[1:3] if moment < presence.FOREVER})
    for member in state.hierarchy.members:
        mine = [row for row in rows if row[0] == member.ordinal]
        for at in (one + before for one in moments for before in (-1, 0)):
            found = [node for _, since, until, node in mine if since <= at < until]
            if not member.is_node:
                assert found == list(member.path_at(at)[1:2])
            assert len(found) <= 1


def test_who_had_ended_before_a_merge_stays_where_it_last_was(enterprise):
    for chunk in (1, 5_000):
        made = enterprise().opened()
        assert made.do(EndResource("r2", 31_159))
        assert made.do(CloseNode("sales", "emea"))
        made.commit()
        catch_up(made.isolation, made.tenant, chunk=chunk)
        with reading(made) as db:
            _check_members(db, made.state)
            assert [members.member(db, one).parent_id for one in ("r1", "r2")] == ["emea", "sales"]


def _check_what_became_of_them(db, state):
    told = db.execute(
        "SELECT ordinal, name, suspended_at, resumed_at, closed_at, successor, plan, plan_to, plan_at, "
        "label_token, label_sealed FROM members LEFT JOIN member_life USING (ordinal) ORDER BY ordinal"
    ).fetchall()
    for ordinal, name, *rest in told:
        known, plan = state.hierarchy.members[ordinal], state.life.plans.get(ordinal)
        suspended = state.hierarchy.suspended.get(ordinal, ())
        begins = [at for at, begun in suspended if begun][-1:] or [None]
        ends = [at for at, begun in suspended[-1:] if not begun] or [None]
        closed_at, successor = state.hierarchy.closed.get(ordinal, (None, -1))
        planned = (plan.act, plan.to, plan.at) if plan else (None, None, None)
        label = state.life.labels.get(ordinal, (None, None))
        expected = [*begins, *ends, closed_at, None if successor < 0 else successor, *planned, *label]
        assert (name, rest) == (known.name, expected)


def _check_tree(db, root, depth):
    for resources in (True, False):
        among = members_under(db, root, depth, resources=resources)
        listed = members.tree(db, root, depth, resources=resources)
        assert [msgspec.structs.asdict(one) for one in listed] == [
            {name: getattr(one, name) for name in members.Listed.__struct_fields__} for one in among
        ]


def _check_balances(db, state):
    for period in state.contracts.periods:
        told = balances.balances_under(db, None, None, period, ALL_TYPES, resources=True)
        buckets = {(balance.usage_type, balance.ordinal): balance for balance in told}
        for usage_type in ALL_TYPES:
            family = state.families[usage_type, period]
            for known in state.hierarchy.members:
                balance = buckets[usage_type, known.ordinal]
                assert balance.bucket.remaining == family.remaining[known.ordinal]
                assert balance.bucket.available == family.available(known.ordinal)
                assert balance.bucket.consumed == family.consumed[known.ordinal]
                assert balance.used == family.used[known.ordinal]
                below = [one.ordinal for one in state.hierarchy.members if known.ordinal in one.path]
                assert balance.subtree.remaining == sum(family.remaining[one] for one in below)
                assert balance.subtree.consumed == sum(family.consumed[one] for one in below)
            root = buckets[usage_type, 0]
            assert root.subtree.granted == root.subtree.own == family.granted_total
            assert sum(one.bucket.own for one in told if one.usage_type == usage_type) == family.granted_total


def _check_limits(db, state):
    told = {
        (limit.ordinal, limit.usage_type): limit
        for limit in limits.limits_under(db, None, None, PERIOD, ALL_TYPES, resources=True)
    }
    known = {}
    for usage_type, by_member in state.limits.by_type.items():
        for ordinal in by_member:
            limit = state.limits.of(ordinal, usage_type, PERIOD)
            if limit is not None:
                known[ordinal, usage_type] = limit
    assert told.keys() == known.keys()
    for at, limit in told.items():
        ordinal, usage_type = at
        assert (limit.quantity, tuple(limit.thresholds)) == (known[at].quantity, known[at].thresholds)
        family = state.families.get((usage_type, PERIOD))
        assert limit.used == (family.used[ordinal] if family else 0)
        fired = state.limits.fired.get((usage_type, PERIOD, ordinal), 0)
        assert max((crossing.percent for crossing in limit.crossed), default=0) == fired


def _check_usage(db, made):
    state = made.state
    told = usages.usages_page(db, 1_000)
    by_status = {status: [usage for usage in told if usage.status == status] for status in usages.STATUSES}
    assert {status: len(rows) for status, rows in by_status.items()} == state.charging.counts
    totals = [invoices.invoice(db, period) for period in state.contracts.periods]
    assert sum(total.total for total in totals) == state.charging.amount_total
    assert sum(total.records for total in totals) == state.charging.counts["charged"]
    assert sum(usage.amount for usage in told) == state.charging.amount_total
    for total in totals:
        assert total.total == sum(line.amount for node in total.nodes for line in node.lines)
        for node in total.nodes:
            assert all(line.billed == line.from_allowance + line.overage for line in node.lines)


@pytest.fixture
def busy(enterprise):
    """An enterprise in which some of everything has happened."""
    made = enterprise().opened()
    made.do(Allocate("acme", "emea", "voice", "", 5_000))
    made.do(Allocate("emea", "sales", "voice", "", 1_000))
    made.do(Trade("emea", "apac", "voice", "", 500))
    made.do(Return("sales", "emea", "voice", "", 100))
    made.do(SetLimit("emea", "voice", 1_000, (50, 100)))
    made.use("r1", "voice", 540)
    made.use("r3", "data", 5_000)
    made.use("nobody", "voice", 60)
    made.use("r2", "voice", 480)
    made.use("r1", "voice", 6_000)
    made.use("r3", "voice", 200_000, "+331")
    made.do(MoveResource("r1", "apac", made.now))
    made.use("r1", "voice", 60, at=made.now + 1_000_000)
    made.commit()
    catch_up(made.isolation, made.tenant)
    return made


@pytest.mark.parametrize(
    ("chunk", "by"), [(1, "native"), (2, "native"), (3, "python"), (7, "native"), (5_000, "python")]
)
def test_the_views_do_not_depend_on_how_the_log_is_cut_nor_on_who_counts(busy, enterprise, chunk, by):
    again = enterprise()
    with again.isolation.transaction(busy.tenant, "app") as db:
        columns = "seq, topic, state, recorded_at, command_key, leaf_hash"
        rows = db.execute(f"SELECT {columns} FROM events ORDER BY seq").fetchall()
    with again.isolation.transaction(again.tenant, "app") as db:
        db.execute("INSERT INTO log_heads (tenant_id, seq) VALUES (%s, %s)", (again.tenant, len(rows)))
        db.cursor().executemany(
            f"INSERT INTO events (tenant_id, {columns}) "
            "VALUES (current_setting('app.tenant')::uuid, %s, %s, %s, %s, %s, %s)",
            rows,
        )
    with using.python_only() if by == "python" else nullcontext():
        assert catch_up(again.isolation, again.tenant, chunk=chunk) == len(rows)
    assert dumped(again) == dumped(busy)


def test_usage_of_a_period_is_paged_across_blocks_of_the_log(busy, monkeypatch):
    with reading(busy) as db:
        whole = usages.usages_page(db, 100, wanted=usages.UsageFilter(period=PERIOD))
        blocks = db.execute("SELECT period, block, usages FROM usage_periods ORDER BY 1").fetchall()
        assert blocks == [("", 0, 1), (PERIOD, 0, len(whole))]
        assert [one.period for one in whole] == [PERIOD] * len(whole)
    monkeypatch.setattr(usages, "BLOCK_BITS", 1)
    with busy.isolation.transaction(busy.tenant, "projector") as db:
        db.execute("DELETE FROM usage_periods")
        db.execute(
            "INSERT INTO usage_periods (period, block, usages) "
            "SELECT period, seq >> 1, count(*) FROM usages GROUP BY 1, 2"
        )
        pages, before = [], None
        while page := usages.usages_page(db, 2, before, usages.UsageFilter(period=PERIOD)):
            pages += page
            before = page[-1].seq
        assert pages == whole


def test_a_balance_tells_own_handed_on_and_used_apart(busy):
    with reading(busy) as db:
        emea = balances.balance_of(db, "emea", PERIOD, ["voice"])[0]
    assert (emea.received, emea.allocated, emea.traded) == (5_000, 900, -500)
    assert emea.bucket.own == 5_000 - 900 - 500
    assert (emea.subtree.own, emea.subtree.granted) == (4_500, 0)
    assert (emea.used, emea.charges, emea.rejected, emea.used_own) == (540, 1, 2, 0)


def test_a_tree_of_balances_stops_at_its_depth_and_counts_what_is_below(busy):
    with reading(busy) as db:
        told = balances.balances_under(db, "acme", 1, PERIOD, ["voice", "money"])
        nothing = balances.balances_under(db, "unheard of", None, PERIOD)
    assert [(one.id, one.depth, one.usage_type) for one in told] == [
        ("acme", 0, "voice"),
        ("acme", 0, "money"),
        ("emea", 1, "voice"),
        ("emea", 1, "money"),
        ("apac", 1, "voice"),
        ("apac", 1, "money"),
    ]
    assert told[0].subtree.granted == 100_000
    assert nothing == []


def test_a_limit_tells_which_thresholds_fired(busy):
    with reading(busy) as db:
        (limit,) = limits.limits_of(db, "emea", PERIOD)
    assert (limit.quantity, limit.used) == (1_000, 540)
    assert [(crossing.percent, crossing.used) for crossing in limit.crossed] == [(50, 540)]


@pytest.mark.parametrize(
    ("wanted", "reasons"),
    [
        (usages.UsageFilter(), ["", "", "limit_exceeded", "limit_exceeded", "unknown_line", "", ""]),
        (usages.UsageFilter(status="charged"), ["", "", "", ""]),
        (usages.UsageFilter(status="rejected"), ["limit_exceeded", "limit_exceeded"]),
        (usages.UsageFilter(reason="unknown_line"), ["unknown_line"]),
        (usages.UsageFilter(under="emea"), ["limit_exceeded", "limit_exceeded", ""]),
        (usages.UsageFilter(under="emea", status="charged"), [""]),
        (usages.UsageFilter(under="r1"), ["", "limit_exceeded", ""]),
        (usages.UsageFilter(under="acme", usage_type="data"), [""]),
        (usages.UsageFilter(period="2026-10"), []),
        (usages.UsageFilter(period=PERIOD), ["", "", "limit_exceeded", "limit_exceeded", "", ""]),
        (usages.UsageFilter(period=PERIOD, status="charged", usage_type="voice"), ["", "", ""]),
        (usages.UsageFilter(period=PERIOD, status="rejected"), ["limit_exceeded", "limit_exceeded"]),
        (usages.UsageFilter(period=""), ["unknown_line"]),
        (usages.UsageFilter(under="unheard of"), []),
        (usages.UsageFilter(status="unheard of"), []),
    ],
)
def test_usages_are_found_by_what_is_known_of_them(busy, wanted, reasons, monkeypatch):
    with reading(busy) as db:
        told = usages.usages_page(db, 10, wanted=wanted)
        monkeypatch.setattr(paging, "PLACES_MAX", 0)
        assert usages.usages_page(db, 10, wanted=wanted) == told
    assert [usage.reason for usage in told] == reasons


def test_pages_of_usages_meet_without_gap_or_overlap(busy):
    with reading(busy) as db:
        everything = usages.usages_page(db, 100)
        pages, before = [], None
        while page := usages.usages_page(db, 2, before, usages.UsageFilter(under="acme")):
            pages += page
            before = page[-1].seq
        assert pages == [usage for usage in everything if usage.node is not None]
        assert [usages.usage(db, usage.usage_id) for usage in everything] == everything
        seqs = [usage.seq for usage in everything]
        assert seqs == sorted(set(seqs), reverse=True)
        assert suspense.suspense_counts(db) == {"unknown_line": 1}


def test_the_timeline_shows_both_sides_and_not_every_ancestor(busy):
    events = dict(enumerate(busy.log.read(), 1))
    with reading(busy) as db:
        topics = {
            ident: [events[seq].topic for seq in reversed(timeline.member_page(db, ident, 100))]
            for ident in ("emea", "apac", "r1")
        }
        without = timeline.member_page(db, "r1", 100, usage=False)
        paged = timeline.member_page(db, "r1", 2) + timeline.member_page(
            db, "r1", 100, timeline.member_page(db, "r1", 2)[-1]
        )
        assert paged == timeline.member_page(db, "r1", 100)
        (usage,) = usages.usages_page(db, 1)
        assert timeline.record_page(db, usage.usage_id, 10) == [usage.seq]
    assert "usage.charged" not in topics["emea"]
    assert topics["emea"].count("bucket.transferred") == 4
    assert "limit.threshold_crossed" in topics["emea"]
    assert topics["apac"][-2:] == ["hierarchy.resource_moved", "usage.charged"]
    assert topics["r1"] == [
        "hierarchy.resource_added",
        "usage.charged",
        "usage.rejected",
        "hierarchy.resource_moved",
        "usage.charged",
    ]
    assert [events[seq].topic for seq in without] == ["hierarchy.resource_moved", "hierarchy.resource_added"]


def test_earlier_usage_stays_with_the_cost_centre_it_was_charged_to(busy):
    with reading(busy) as db:
        bill = invoices.invoice(db, PERIOD)
        assert members.member(db, "r1").parent_id == "apac"
        assert [ancestor.id for ancestor in members.ancestors(db, "r1")] == ["acme", "apac"]
    assert [(node.id, node.records) for node in bill.nodes] == [("sales", 1), ("apac", 3)]
    assert (bill.name, bill.currency, bill.total) == ("Acme", "EUR", busy.state.charging.amount_total)
    assert bill.total > 0


def test_an_invoice_of_nothing_is_empty(busy):
    with reading(busy) as db:
        bill = invoices.invoice(db, "2026-12")
    assert (bill.nodes, bill.records, bill.total) == ([], 0, 0)


def test_limits_hold_from_their_period_and_a_plan_for_later_stands(enterprise):
    made = enterprise().opened()
    made.do(SetLimit("emea", "voice", 100, (), "2026-11"))
    made.do(SetLimit("emea", "voice", 200, (), "2026-12"))
    made.do(SetLimit("emea", "voice", 300, (), "2026-11"))
    made.do(SetLimit("apac", "voice", 1, ()))
    made.do(SetLimit("apac", "voice", None, ()))
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        periods = ("2026-10", "2026-11", "2026-12")
        told = {period: limits.limits_under(db, None, None, period) for period in periods}
    assert {period: [(one.id, one.quantity) for one in found] for period, found in told.items()} == {
        "2026-10": [],
        "2026-11": [("emea", 300)],
        "2026-12": [("emea", 200)],
    }


def test_a_period_counts_only_its_own_charges(enterprise):
    made = enterprise().opened()
    made.do(SignContract("d", "2026-10-01", (Grant("voice", 100),)))
    made.use("r1", "voice", 60, at=made.now - 20 * 86_400_000_000)
    made.use("r1", "voice", 120)
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        periods = [period.period for period in balances.periods(db)]
        used = {period: balances.balance_of(db, "r1", period, ["voice"])[0].used for period in periods}
    assert used == {"2026-10": 60, "2026-11": 120}


def test_what_was_answered_as_of_a_seq_is_answered_ever_after(enterprise):
    made = enterprise().opened()
    answers = {}
    for turn in range(4):
        made.do(Allocate("acme", "sales", "voice", "", 100 + turn))
        made.do(AddNode(f"x{turn}", "sales", "Another", "group"))
        made.do(MoveResource("r2", ("apac", "sales")[turn % 2], made.now + turn))
        made.use("r2", "voice", 60 * (turn + 1))
        seq = made.commit()
        catch_up(made.isolation, made.tenant)
        with reading(made) as db:
            answers[seq] = _answers(db)
    for seq, answered in answers.items():
        with past(made.isolation, made.tenant, seq, [view.name for view in VIEWS]) as db:
            assert _answers(db) == answered
    with reading(made) as db:
        assert _answers(db) == answers[seq]


def _answers(db):
    return (
        members_under(db, resources=True),
        balances.balances_under(db, None, None, PERIOD, resources=True),
        limits.limits_under(db, None, None, PERIOD),
        usages.usages_page(db, 100),
        invoices.invoice(db, PERIOD),
        timeline.member_page(db, "r2", 100),
    )


@pytest.mark.parametrize("resources", [True, False])
@pytest.mark.parametrize("depth", [0, 1, None])
def test_sums_of_subtrees_are_the_same_whichever_way_they_are_found(busy, depth, resources, monkeypatch):
    busy.do(Allocate("apac", "r3", "voice", "", 100))
    busy.do(Allocate("sales", "r2", "voice", "", 50))
    busy.do(MoveResource("r2", "apac", busy.now))
    busy.commit()
    catch_up(busy.isolation, busy.tenant)
    with reading(busy) as db:
        check_columns(db, PERIOD, (None, "emea"))
        asked = [(db, root, depth, PERIOD) for root in MEMBERS if root not in ("added", "r4")]
        usual = [balances.balances_under(*one, resources=resources) for one in asked]
        monkeypatch.setattr(subtrees, "FEW", 0)
        monkeypatch.setattr(subtrees, "HIGH", -1)
        check_columns(db, PERIOD, (None, "emea"))
        assert [balances.balances_under(*one, resources=resources) for one in asked] == usual
        monkeypatch.setattr(subtrees, "HIGH", 64)
        assert [balances.balances_under(*one, resources=resources) for one in asked] == usual


class Explained:
    """A connection that notes the plan of everything it is asked, with sequential scans forbidden."""

    def __init__(self, db):
        self.db = db
        self.plans = []
        for way in ("seqscan", "bitmapscan", "indexonlyscan"):
            db.execute(f"SET LOCAL enable_{way} = off")

    def execute(self, statement, values=None, **options):
        self.plans.append("\n".join(row[0] for row in self.db.execute(f"EXPLAIN {statement}", values)))
        return self.db.execute(statement, values, **options)


def _sums_below(db):
    asked = {"period": PERIOD, "usage_types": ["voice"], "root": 1, "depth": 1, "resources": False}
    return db.execute(subtrees._BELOW, asked)


@pytest.mark.untouched_database  # Emptied tables keep their pages, which the planner counts.
@pytest.mark.parametrize(
    ("ask", "condition"),
    [
        (lambda db: members.member(db, "r1"), r"members_id .*\n *Index Cond: \(\(tenant_id = .*\(id ="),
        (lambda db: usages.usage(db, b"k" * 16), r"events_command_key .*\n *Index Cond: .*\(command_key ="),
        (lambda db: usages.suspense_page(db, 9), r"suspense_waits .*\n *Index Cond: .*\(seq <"),
        (lambda db: usages.suspense_page(db, 9), r"usages_\w+ on usages .*\n *Index Cond: .*\(seq ="),
        (lambda db: suspense.waiting_page(db, 9), r"suspense_waits .*\n *Index Cond: .*\(seq <"),
        (lambda db: suspense.origin_of(db, 9), r"suspense_settled .*\n *Index Cond: .*\(settled_seq ="),
        (lambda db: suspense.steps_of(db, b"x"), r"suspense_steps_of .*\n *Index Cond: .*\(waiting ="),
        (lambda db: usages.usages_page(db, 9, 5), r"usages_pkey .*\n *Index Cond: .*\(seq <"),
        (
            lambda db: usages.usages_page(db, 9, wanted=usages.UsageFilter(under="r1")),
            r"usages_ordinal .*\n *Index Cond: .*\(ordinal = .*\(seq <",
        ),
        (
            lambda db: usages.usages_page(db, 9, wanted=usages.UsageFilter(under="emea")),
            r"usages_node .*\n *Index Cond: .*\(node = .*\(seq <",
        ),
        (
            lambda db: usages.usages_page(db, 9, wanted=usages.UsageFilter(period=PERIOD)),
            r"usages_pkey .*\n *Index Cond: .*\(seq >= .*\(seq <",
        ),
        (
            # Block by block: sorted as a whole, a page of a period would cost what the period holds.
            lambda db: usages.usages_page(db, 9, wanted=usages.UsageFilter(period=PERIOD)),
            r"(?s)Limit.*Incremental Sort.*usage_periods_pkey .*\n *Index Cond: .*\(period = .*\(block <=",
        ),
        (lambda db: sessions.sessions_page(db, 9, 5), r"sessions_seq .*\n *Index Cond: .*\(seq <"),
        (
            lambda db: sessions.sessions_page(db, 9, under="r1"),
            r"sessions_ordinal .*\n *Index Cond: .*\(ordinal = .*\(seq <",
        ),
        (
            lambda db: sessions.sessions_page(db, 9, under="emea"),
            r"sessions_node .*\n *Index Cond: .*\(node = .*\(seq <",
        ),
        (
            lambda db: sessions.sessions_page(db, 9, status="open"),
            r"sessions_open .*\n *Index Cond: .*\(seq <",
        ),
        (
            members.tree,
            r"members_parent .*\n *Index Cond: .*\(parent = .*\(is_node",
        ),
        (
            lambda db: balances.balance_of(db, "emea", PERIOD),
            r"balances_pkey .*\n *Index Cond: .*\(period = .*\(usage_type = .*\(ordinal =",
        ),
        (
            lambda db: balances.balance_of(db, "emea", PERIOD),
            r"balances_buckets .*\n *Index Cond: .*\(period = .*\(usage_type =",
        ),
        (
            lambda db: limits.limits_of(db, "emea", PERIOD),
            r"limits_pkey .*\n *Index Cond: .*\(ordinal = .*\(usage_type = .*\(from_period <=",
        ),
        (
            lambda db: timeline.member_page(db, "r1", 9),
            r"member_events_pkey .*\n *Index Cond: .*\(ordinal = .*\(seq <",
        ),
        (
            lambda db: consumption.days_of(db, 1, PERIOD, "voice"),
            r"consumption_by_day_pkey .*\n *Index Cond: .*\(period = .*\(block = .*\(usage_type =",
        ),
        (
            lambda db: consumption.days_of(db, 1, PERIOD, MONEY),
            r"consumption_by_day_pkey .*\n *Index Cond: .*\(period = .*\(block =",
        ),
        (
            lambda db: consumption.days_of_resource(db, 4, PERIOD, "voice"),
            r"usages_ordinal .*\n *Index Cond: .*\(ordinal =",
        ),
        (
            lambda db: consumption.used_by_period(db, [1], [PERIOD], ["voice"]),
            r"usage_counters_pkey .*\n *Index Cond: .*\(period = .*\(usage_type = .*\(block =",
        ),
        (
            lambda db: balances.balances_under(db, None, None, PERIOD),
            r"balances_of_resources .*\n *Index Cond: .*\(period = .*\(usage_type =",
        ),
        (
            _sums_below,
            r"balances_buckets .*\n *Index Cond: .*\(period = .*\(usage_type = .*\(ordinal = w.ordinal",
        ),
        (
            lambda db: consumers.resources_of(db, members.member(db, "emea"), PERIOD, "voice", 5, 0),
            r"usage_counters_pkey .*\n *Index Cond: .*\(period = .*\(usage_type = .*\(block =",
        ),
        (
            lambda db: consumers.resources_of(db, members.member(db, "acme"), PERIOD, "voice", 5, 0),
            r"usage_counters_pkey .*\n *Index Cond: .*\(period = .*\(usage_type =",
        ),
        (
            lambda db: inventory.inventory_page(db, 5, 0, PERIOD, 0, inventory.InventoryFilter()),
            r"usage_counters_pkey .*\n *Index Cond: .*\(period = .*\(block =",
        ),
        (
            lambda db: consumers.resources_of(db, members.member(db, "emea"), PERIOD, "voice", 5, 0),
            r"members_parent .*\n *Index Cond: .*\(parent = .*\(is_node = false",
        ),
    ],
)
def test_hot_queries_use_their_indexes_under_row_level_security(busy, ask, condition):
    with reading(busy) as db:
        explained = Explained(db)
        ask(explained)
    assert re.search(condition, "\n".join(explained.plans)), "\n".join(explained.plans)


# --- tables --------------------------------------------------------------------------------------


def test_every_table_is_as_the_views_write_it(isolation, enterprise):
    # What the version before still writes is there until no such version can be at work any more.
    made, retired = enterprise(), {"balances": ("used_own", "used", "overage", "charges")}
    with reading(made) as db:
        for view in VIEWS:
            for table in view.tables:
                columns = [
                    name for name in _columns(db, table.name) if name not in retired.get(table.name, ())
                ]
                assert columns == ["tenant_id", *table.columns]
                assert _key(db, table.name) == ["tenant_id", *table.key]


def test_every_table_binds_its_owner_too(database):
    with psycopg.connect(database) as db:
        open_ones = db.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'allotment'::regnamespace AND relkind = 'r' "
            "AND NOT (relrowsecurity AND relforcerowsecurity) AND relname <> 'alembic_version'"
        ).fetchall()
    assert open_ones == []


def _columns(db, table):
    found = db.execute(
        "SELECT attname::text FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table,),
    )
    return [row[0] for row in found]


def _key(db, table):
    found = db.execute(
        "SELECT a.attname::text FROM pg_index i "
        "CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place) "
        "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
        "WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY k.place",
        (table,),
    )
    return [row[0] for row in found]


@pytest.mark.parametrize(
    ("pack", "kind", "values"),
    [
        (int8_array, "bigint", []),
        (int8_array, "bigint", [0, 1, -1, 2**63 - 1, -(2**63)]),
        (int8_array, "bigint", [None, 5, None]),
        (text_array, "text", ["", "a", "a", "ünï", None, '{"\\}']),
        (bytea_array, "bytea", [b"", b"\x00\xff", None]),
    ],
)
def test_packed_arrays_arrive_as_they_were(database, pack, kind, values):
    with psycopg.connect(database) as db:
        (arrived,) = db.execute(f"SELECT %s::{kind}[]", (pack(values),)).fetchone()
    assert arrived == values
