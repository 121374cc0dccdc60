"""The tally against a naive count of the same charges; counters against a dictionary."""

from collections import Counter, defaultdict
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.domain.charging import CORPORATE, UsageCharged
from allotment.domain.days import day_of
from allotment.domain.policy import PERSONAL
from allotment.domain.usage import MONEY
from allotment.projections.balances import BALANCES
from allotment.projections.tables import BY_INDEX
from allotment.projections.tally import BEGINNING, tally

ZONE = ZoneInfo("Europe/Berlin")
NOVEMBER = 1_793_491_200_000_000
DAY = 86_400_000_000
PATHS = ((7, 3, 1, 0), (8, 3, 1, 0), (9, 4, 1, 0), (10, 5, 2, 0), (7, 5, 2, 0), (11, 0))


@st.composite
def charges(draw):
    path = draw(st.sampled_from(PATHS))
    parts = draw(st.dictionaries(st.sampled_from(path), st.integers(1, 50), max_size=3))
    overage = draw(st.sampled_from([0, 0, 5, 90]))
    amount = draw(st.sampled_from([0, 0, 12, 70]))
    credit = draw(st.dictionaries(st.sampled_from(path), st.integers(1, 6), max_size=2)) if amount else {}
    return UsageCharged(
        draw(st.sampled_from(["pbx", "core"])),
        "a record",
        path,
        draw(st.sampled_from(["voice", "data"])),
        draw(st.sampled_from(["2026-11", "2026-12"])),
        NOVEMBER + draw(st.integers(0, 3 * DAY)),
        draw(st.sampled_from(["outbound", "inbound"])),
        draw(st.integers(0, 100)),
        sum(parts.values()) + overage,
        draw(st.integers(1, 2)),
        draw(st.integers(0, 2)),
        "+44",
        draw(st.sampled_from(["national", ""])),
        draw(st.sampled_from([CORPORATE, CORPORATE, CORPORATE, PERSONAL])),
        "default",
        tuple(parts.items()),
        overage,
        amount,
        (amount, 1),
        b"",
        tuple(credit.items()),
    )


def shown(rows):
    return {key: row for key, row in rows.items() if any(row)}


@settings(max_examples=150, deadline=None, database=None)
@given(given_charges=st.lists(charges(), max_size=25), reverse=st.booleans())
def test_a_tally_is_what_counting_each_charge_on_each_node_gives(given_charges, reverse):
    told = tally(given_charges[::-1] if reverse else given_charges, ZONE)
    used, lines, days, sources = (defaultdict(Counter), *(defaultdict(lambda: [0] * 7) for _ in range(3)))
    for one in given_charges:
        add(sources[one.source, one.usage_type], (1, one.amount))
        if one.payer == CORPORATE:
            count(one, used, lines, days)
    assert {of: figures_of(figures) for of, figures in told.used.items()} == {
        of: {figure: much for figure, much in counted.items() if much} for of, counted in used.items()
    }
    assert shown(told.lines) == lines
    assert {key: [*row, 0, 0] for key, row in shown(told.days).items()} == shown(days)
    assert {key: [*row, *[0] * 5] for key, row in told.sources.items()} == sources
    others = sorted((one for one in given_charges if one.payer != CORPORATE), key=repr)
    assert sorted(told.others, key=repr) == others
    assert told.since == min((one.started_at for one in given_charges), default=0)


def figures_of(used):
    paid = used.paid()
    assert paid["ordinal"] == sorted(set(paid["ordinal"]))
    assert dict(zip(*paid.values(), strict=True)) == used.consumed
    return {
        (ordinal, name): much
        for name in used.__slots__
        for ordinal, much in getattr(used, name).items()
        if much
    }


def count(one, used, lines, days):
    """As the views did it before there was a tally: each charge by itself, on every node of its path."""
    period, kind, day = one.period, one.usage_type, day_of(one.started_at, ZONE)
    counted = [(kind, one.billed, one.overage)] + [(MONEY, one.amount, 0)] * bool(one.amount)
    for of, much, overage in counted:
        figures = used[period, of]
        figures[one.path[0], "used_own"] += much
        for ordinal in one.path:
            add_to(figures, ordinal, used=much, overage=overage, charges=1)
    for of, parts in ((kind, one.drawn), (MONEY, one.credit)):
        for ordinal, part in parts:
            used[period, of][ordinal, "consumed"] += part
            for above in one.path[one.path.index(ordinal) :]:
                # A resource has days of its own in money only.
                on = day if above != one.path[0] or of == MONEY else BEGINNING
                days[period, above, of, on][4] += part
    credit = sum(part for _, part in one.credit)
    allowed = one.billed - one.overage
    key = (period, one.path[1], kind, one.direction, one.zone, one.tariff, one.rate)
    add(lines[key], (1, one.quantity, one.billed, allowed, one.overage, one.amount, credit))
    for node in one.path[1:]:
        add(days[period, node, kind, day], (one.billed, one.overage, one.amount, 1))


def add_to(figures, ordinal, **more):
    for name, much in more.items():
        figures[ordinal, name] += much


def add(row, figures):
    for place, much in enumerate(figures):
        row[place] += much


@pytest.mark.parametrize("size", [1, 7, 500])
def test_counters_add_up_however_many_rows_have_a_period_in_common(enterprise, size):
    made, rest = enterprise(), [0] * (len(BALANCES.figures) - 5)
    expected = defaultdict(lambda: [0] * len(BALANCES.figures))
    with made.isolation.transaction(made.tenant, "projector") as db:
        db.execute(BY_INDEX)
        for turn in range(3):
            # Each turn meets rows of the turn before, and some that are new.
            sums = {
                (period, kind, turn * size // 2 + place): [place, 0, turn, 1, -place, *rest]
                for place in range(size)
                for kind in ("voice", "data")[: 1 + turn]
                for period in ("2026-11", "2026-12")
            }
            for key, figures in sums.items():
                add(expected[key], figures)
                add(expected[key], figures)
            BALANCES.add(db, sums, by=("period", "usage_type"))
            BALANCES.add(db, sums)
        columns = ", ".join(BALANCES.columns)
        found = db.execute(f"SELECT {columns} FROM balances").fetchall()
        assert {row[:3]: list(row[3:]) for row in found} == expected


def test_counters_are_found_by_their_whole_key_in_a_table_that_was_never_analysed(enterprise):
    """Said once, as a constant, a period is thought to leave one row: each added one met each held one."""
    made = enterprise()
    with made.isolation.transaction(made.tenant, "projector") as db:
        db.execute(BY_INDEX)
        keys = [("2026-11", "voice", place) for place in range(3_000)]
        figures = [1] * len(BALANCES.figures)
        BALANCES.add(db, dict.fromkeys(keys, figures), by=("period", "usage_type"))
        columns = dict(zip(BALANCES.key, zip(*keys, strict=True), strict=True))
        columns["consumed"] = [1] * len(keys)
        statement = "EXPLAIN " + BALANCES._change(tuple(columns))
        plan = db.execute(statement, BALANCES._arrays(columns), prepare=False).fetchall()
    condition = next(line for (line,) in plan if "Index Cond" in line)
    assert all(f"({name} = " in condition for name in BALANCES.key)
