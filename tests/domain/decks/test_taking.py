"""What a sheet makes of a tariff: what changes, from when on, and what it would have cost."""

from datetime import UTC, date, datetime, time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.domain.decks.comparing import applied, by_zone, compare, counted, flat, percent_of
from allotment.domain.decks.composing import Given, Terms, lane_of, settled, steps_of
from allotment.domain.decks.layout import Layout
from allotment.domain.decks.reading import read_sheet
from allotment.domain.decks.report import Charged, moved, take
from allotment.domain.rating.amending import rates_after, zones_after
from allotment.domain.rating.language import Rate, Zone
from allotment.domain.refusals import Refused

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")


def at(day):
    return int(datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()) * 1_000_000


NOW = at("2026-11-15")
DECEMBER, JANUARY = at("2026-12-01"), at("2027-01-01")


def minute(zone, price, prefix="", **more):
    return Rate("voice", zone, price, 60, prefix, "outbound", **more)


UK = (minute("UK", "0.02", "+44"), minute("UK mobile", "0.05", "+447"), minute("France", "0.03", "+33"))
STANDARD = Given(1, 0, (*UK, Rate("voice", "called", "0", direction="inbound"), Rate("data", "any", "1")), ())


def terms(**more):
    return Terms(NOW, lambda day: at(day.isoformat()), **more)


def sheet(*rows, heading="destination,prefix,price,effective date,end date,status,increment", **layout):
    return read_sheet("\n".join([heading, *rows]), Layout(**layout), "EUR")


def told(steps):
    """Each step in a word: day, and kind of change by prefix."""
    return [
        (
            datetime.fromtimestamp(step.at / 1_000_000, UTC).date().isoformat(),
            {
                change.key[2]: change.kind
                for change in compare(
                    {("", "", p, "", ""): rate for p, rate in step.before.items()},
                    {("", "", p, "", ""): rate for p, rate in step.after.items()},
                )
                if change.kind != "unchanged"
            },
        )
        for step in steps
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Nothing changes but the way it is written.
        (["UK,44,0.020,2026-12-01,,,", "UK mobile,447,0.05,2026-12-01,,,1/1", "France,33,0.03,,,,"], []),
        (
            ["UK,44,0.03,2026-12-01,,,", "UK mobile,447,0.04,2026-12-01,,,", "Spain,34,1,2026-12-01,,,"],
            [("2026-12-01", {"+44": "raised", "+447": "lowered", "+34": "new", "+33": "removed"})],
        ),
        (
            ["UK,44,0.03,2026-12-01,,,", "UK mobile,447,0.04,2027-01-01,,,", "France,33,0.03,2020-01-01,,,"],
            [("2026-12-01", {"+44": "raised"}), ("2027-01-01", {"+447": "lowered"})],
        ),
        (
            [
                "UK,44,0.03,2026-12-01,2026-12-31,,",
                "UK,44,0.04,2027-01-01,,,",
                "UK mobile,447,0.05,,,,",
                "France,33,0.03,,,,",
            ],
            [("2026-12-01", {"+44": "raised"}), ("2027-01-01", {"+44": "raised"})],
        ),
        (
            [
                "UK,44,0.02,2026-01-01,2026-12-31,,",
                "UK mobile,447,,2026-12-01,,blocked,",
                "France,33,0.03,,,,60/60",
            ],
            [("2026-12-01", {"+447": "blocked", "+33": "changed"}), ("2027-01-01", {"+44": "removed"})],
        ),
    ],
)
def test_each_moment_at_which_something_changes_is_a_step(rows, expected):
    assert told(steps_of(sheet(*rows), [STANDARD], terms())) == expected


def test_a_part_of_a_sheet_leaves_the_rest_as_it_is():
    steps = steps_of(sheet("UK,44,0.03,2026-12-01,,,", whole=False), [STANDARD], terms())
    assert told(steps) == [("2026-12-01", {"+44": "raised"})]


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ("refuse", "bad_deck"),
        ("from_now_on", [("2026-11-15", {"+44": "raised"}), ("2026-12-01", {"+33": "lowered"})]),
        ("supersede", [("2026-11-01", {"+44": "raised"}), ("2026-12-01", {"+33": "lowered"})]),
    ],
)
def test_another_price_in_the_past_needs_a_word(past, expected):
    rows = ["UK,44,0.03,2026-11-01,,,", "France,33,0.01,2026-12-01,,,", "UK mobile,447,0.05,2026-11-01,,,"]
    if isinstance(expected, str):
        with pytest.raises(Refused) as refusal:
            steps_of(sheet(*rows), [STANDARD], terms(past=past))
        assert refusal.value.code == expected
        assert [(bad["line"], bad["field"]) for bad in refusal.value.facts["lines"]] == [(2, "starts_on")]
    else:
        assert told(steps_of(sheet(*rows), [STANDARD], terms(past=past))) == expected


def test_without_any_date_to_come_somebody_must_say_from_when():
    undated = sheet("UK,44,0.03,,,,", whole=False)
    with pytest.raises(Refused) as refusal:
        steps_of(undated, [STANDARD], terms())
    assert refusal.value.code == "bad_sheet"
    assert told(steps_of(undated, [STANDARD], terms(starts_at=JANUARY))) == [
        ("2027-01-01", {"+44": "raised"})
    ]


def test_a_version_that_is_scheduled_gets_the_sheet_too():
    scheduled = Given(2, JANUARY, (*UK, Rate("data", "any", "2")), ())
    taken = take(sheet("UK,44,0.04,2026-12-01,,,", whole=False), [STANDARD, scheduled], terms())
    assert [(change.of, change.valid_from) for change in taken.changes] == [(1, DECEMBER), (2, JANUARY)]
    assert rates_after(scheduled.rates, taken.changes[1])[2:] == (
        Rate("data", "any", "2"),
        minute(
            "UK",
            "0.04",
            "+44",
        ),
    )


def test_prefixes_of_a_destination_become_a_zone_with_one_rate():
    rows = [f"Peru,51{n},0.1,2026-12-01,,," for n in range(10)]
    (change,) = take(sheet(*rows, whole=False), [STANDARD], terms()).changes
    assert change.rates == (minute("Peru", "0.1"),)
    assert change.zones == (Zone("Peru", tuple(f"+51{n}" for n in range(10))),)
    # Next month only its price changes: the log does not tell the prefixes again.
    after = Given(2, DECEMBER, rates_after(STANDARD.rates, change), zones_after((), change))
    rows = [f"Peru,51{n},0.2,2027-01-01,,," for n in range(10)]
    (change,) = take(sheet(*rows, whole=False), [STANDARD, after], terms()).changes
    assert (change.of, change.rates, change.zones) == (2, (minute("Peru", "0.2"),), ())


def test_a_zone_that_something_else_speaks_of_keeps_its_prefixes():
    roaming = Rate("data", "Peru", "1")
    base = Given(1, 0, (roaming,), (Zone("Peru", ("+51",), ("716",)),))
    (change,) = take(sheet("Peru,511-512,0.1,2026-12-01,,,", whole=False), [base], terms()).changes
    assert change.zones == ()
    assert [rate.prefix for rate in change.rates] == ["+511", "+512"]


def test_rates_for_an_origin_or_a_window_are_not_the_sheets_to_change():
    night = minute("UK", "0.01", "+44", window="night")
    base = Given(1, 0, (*UK, night), ())
    (change,) = take(sheet("UK,44,0.04,2026-12-01,,,"), [base], terms()).changes
    assert night in rates_after(base.rates, change)
    assert len(rates_after(base.rates, change)) == 2


def test_a_status_that_says_otherwise_is_told():
    rows = [
        "UK,44,0.01,2026-12-01,,increase,",
        "France,33,0.04,2026-12-01,,new,",
        "Peru,51,1,2026-12-01,,deleted,",
    ]
    report = take(sheet(*rows, whole=False), [STANDARD], terms()).report
    assert [one.line for one in report.surprises] == [2, 3, 4]


# --- comparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        *(
            ("0.02", "0.03", "+50"),
            ("0.03", "0.02", "-33.33"),
            ("3", "4", "+33.33"),
            ("1", "1", "+0"),
            ("0", "1", ""),
        ),
        *(("0.05", "0.05625", "+12.5"), ("2000", "2000.1", "+0.01"), ("1", "0", "-100")),
    ],
)
def test_percent(before, after, percent):
    assert percent_of(Fraction(before), Fraction(after)) == percent


def test_the_same_price_per_another_number_of_units_is_no_change():
    changes = compare(
        flat([minute("UK", "0.06", "+44")]), flat([Rate("voice", "UK", "0.001", 1, "+44", "outbound")])
    )
    assert [change.kind for change in changes] == ["changed"]


_PREFIX = st.sampled_from(["+4", "+44", "+447", "+33", "+331", "+1", "+7"])
_RATES = st.dictionaries(
    st.tuples(st.just("voice"), st.sampled_from(["outbound", ""]), _PREFIX, st.just(""), st.just("")),
    st.builds(
        minute,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["0.1", "0.10", "0.2", "1"]),
        increment=st.sampled_from([1, 60]),
        blocked=st.booleans(),
    ),
)


@settings(max_examples=50)
@given(_RATES, _RATES)
def test_the_changes_from_one_tariff_to_another_make_the_one_of_the_other(before, after):
    changes = compare(before, after)
    assert applied(before, changes) == after
    assert sum(counted(changes).values()) == len(changes) == len({*before, *after})
    assert sorted(prefix for zone in by_zone(changes) for prefix in zone.prefixes) == sorted(
        change.key[2] for change in changes
    )


_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["UK", "UK mobile", "France", "Peru"]),
        st.sampled_from(["44", "447", "33", "51", "511", "512"]),
        st.sampled_from(["0.02", "0.05", "0.1"]),
        st.sampled_from(["2026-12-01", "2027-01-01", "2027-02-01"]),
        st.sampled_from(["", "2027-02-01"]),
        st.sampled_from(["", "blocked"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: (row[1], row[3]),
)
_SCHEDULED = st.lists(
    st.tuples(
        st.sampled_from([DECEMBER, JANUARY, at("2027-01-15")]), st.lists(st.sampled_from(UK), unique=True)
    ),
    max_size=2,
    unique_by=lambda one: one[0],
)


@settings(max_examples=40)
@given(_ROWS, _SCHEDULED, st.booleans())
def test_what_holds_after_a_sheet_is_what_a_reader_of_it_would_say(rows, scheduled, whole):
    """Day by day, prefix by prefix, in the plainest way."""
    try:
        read = sheet(*(",".join((*row, "")) for row in rows), whole=whole)
    except Refused:
        return  # An end that runs into the next row.
    versions = [
        STANDARD,
        *(Given(n, start, tuple(r), ()) for n, (start, r) in enumerate(sorted(scheduled), 2)),
    ]
    changes = take(read, versions, terms()).changes
    made = {given.number: given for given in versions}
    for change in changes:
        of = made[change.of]
        number = len(made) + 1
        made[number] = Given(
            number, change.valid_from, rates_after(of.rates, change), zones_after(of.zones, change)
        )
    first, read = min(at(row[3]) for row in rows), settled(read, versions)
    for day in (
        "2026-11-20",
        "2026-12-01",
        "2027-01-01",
        "2027-01-20",
        "2027-02-01",
        "2027-02-02",
        "2027-06-01",
    ):
        base = lane_of(
            max((g for g in versions if g.valid_from <= at(day)), key=lambda g: g.valid_from), read.layout
        )
        then = max(
            (g for g in made.values() if g.valid_from <= at(day)), key=lambda g: (g.valid_from, g.number)
        )
        lane = lane_of(then, read.layout)
        for prefix in ("44", "447", "33", "51", "511", "512"):
            own = [row for row in rows if row[1] == prefix]
            begun = sorted((row for row in own if row[3] <= day), key=lambda row: row[3])
            kept = base.get(f"+{prefix}")
            if not own:
                expected = None if whole and at(day) >= first else (kept.price if kept else None)
            elif not begun:
                expected = kept.price if kept else None
            elif begun[-1][4] and begun[-1][4] < day:
                expected = None
            else:
                expected = "blocked" if begun[-1][5] else begun[-1][2]
            found = lane.get(f"+{prefix}")
            assert (found and ("blocked" if found.blocked else found.price)) == expected, (day, prefix)


# --- money --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "rows", "difference", "exact"),
    [
        # 600 s of overage at 0.02 a minute were 0.20; at 0.03 they are 0.10 more.
        ((UK[0], ("+44",), 10, 600, 600), ["UK,44,0.03,2026-12-01,,,"], 100_000, True),
        ((UK[0], ("+44",), 10, 600, 300), ["UK,44,0.03,2026-12-01,,,"], 50_000, True),
        ((UK[0], ("+44",), 10, 600, 600), ["UK,44,0.02,2026-12-01,,,"], 0, True),
        ((UK[0], ("+44",), 10, 600, 600), ["UK,44,0.02,2026-12-01,,,60/60"], 0, False),
        (
            (UK[0], ("+44",), 10, 600, 600),
            ["UK,44,0.02,2026-12-01,,,", "UK z,4420,9,2026-12-01,,,"],
            0,
            False,
        ),
        ((UK[0], ("+44",), 10, 600, 600), ["UK,44,,2026-12-01,,blocked,"], -200_000, False),
        ((UK[0], ("+44",), 10, 600, 600), ["World,4,0.05,2026-12-01,,,"], 300_000, True),
    ],
)
def test_what_it_would_have_cost(used, rows, difference, exact):
    rate, prefixes, records, billed, overage = used
    read = sheet(*rows)
    (step,) = steps_of(read, [Given(1, 0, (), ())], terms())
    charged = Charged(rate, prefixes, records, billed, overage, overage * 20_000 // 60)
    (told,) = moved([charged], step.after, settled(read, []).layout)
    assert (Fraction(*told.difference), told.exact) == (difference, exact)
