"""Limits as a sheet: what its cells say, what is refused, and that a sheet says what it was made from."""

import pytest

from allotment.domain.limit import SetAnyLimit, SetLimit
from allotment.domain.limit_sheet import COLUMNS, as_set, limits_of, row_of, together
from allotment.domain.limits_at_once import LIMITS_MAX
from allotment.domain.raising import MayRaise
from allotment.domain.refusals import Refused
from allotment.domain.sheet import rows_of
from allotment.domain.window import PERIOD

HEAD = "node,usage_type,quantity,window,kind,thresholds,from_period,note\n"
NOW = 1_794_000_000_000_000


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ("emea,voice,90000,,,,,", SetAnyLimit("emea", "voice", 90_000)),
        ("emea,Data,2 GB,day,soft,,,", SetAnyLimit("emea", "data", 2_000_000_000, window="day", kind="soft")),
        ("emea,voice,none,,,,,", SetAnyLimit("emea", "voice", None)),
        ("emea,voice,0,,hard,none,,", SetAnyLimit("emea", "voice", 0, ())),
        (
            "emea,voice,10 h,,,50% 100% 90min,2026-12,winter",
            SetAnyLimit("emea", "voice", 36_000, (50, 100), "2026-12", quantities=(5_400,), note="winter"),
        ),
        ("emea,voice,1,,,600,,", SetAnyLimit("emea", "voice", 1, (), quantities=(600,))),
    ],
)
def test_a_row_says_a_limit(row, limit):
    assert limits_of(HEAD + row) == (limit,)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("emea,voice,,,,,,", "bad_quantity"),
        ("emea,voice,much,,,,,", "bad_quantity"),
        ("emea,voice,-1,,,,,", "bad_quantity"),
        ("emea,voice,1,,rigid,,,", "bad_kind"),
        ("emea,voice,1,,,eighty%,,", "bad_thresholds"),
        ("emea,voice,1,,,²%,,", "bad_thresholds"),
        ("emea,voice,1,,,soon,,", "bad_quantity"),
        ("emea,voice,1", "bad_row"),
    ],
)
def test_a_row_that_says_none_is_told_with_its_number(row, code):
    with pytest.raises(Refused) as refused:
        limits_of(HEAD + "apac,voice,1,,,,,\n" + row)
    assert refused.value.code == "bad_lines"
    assert [(bad["line"], bad["code"]) for bad in refused.value.facts["lines"]] == [(2, code)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_heading"),
        ("node,usage_type\n", "bad_heading"),
        ("node,usage_type,quantity,colour\n", "bad_heading"),
        ("node,usage_type,quantity\n" + "emea,voice,1\n" * (2 * LIMITS_MAX + 1), "too_many_lines"),
    ],
)
def test_a_text_that_is_no_such_sheet_is_refused(text, code):
    with pytest.raises(Refused) as refused:
        limits_of(text)
    assert refused.value.code == code


def test_a_note_is_for_the_rows_that_have_none():
    text = "quantity;note;node;usage_type\n1;;emea;voice\n2;mine;apac;voice\n"
    assert [limit.note for limit in limits_of(text, "all")] == ["all", "mine"]


def test_who_may_raise_a_limit_stays_as_it_is(acme):
    acme.do(SetAnyLimit("emea", "voice", 10, may_raise=(MayRaise("manager", 120, 0),)))
    given = (*limits_of(HEAD + "emea,voice,20,,,,,\nnobody,voice,1,,,,,\n"), SetAnyLimit("apac", "voice", 5))
    command = together(given, acme.tenant, NOW, ("auditor",))
    assert [limit.may_raise for limit in command.lines] == [(MayRaise("manager", 120, 0),), (), ()]
    assert {limit.roles for limit in command.limits} == {("auditor",)}
    assert acme.refusal(command)[0] == "lines_refused"


def test_what_is_in_force_sets_itself_again(acme):
    limits = (
        SetLimit("emea", "voice", 100),
        SetAnyLimit("emea", "voice", 50, (80,), window="day", kind="soft", quantities=(7,)),
        SetAnyLimit("apac", "data", 0, ()),
    )
    for limit in limits:
        acme.do(limit)
    ordinal, held = acme.tenant.hierarchy.by_id, acme.tenant.limits
    told = []
    for limit in limits:
        window = getattr(limit, "window", PERIOD)
        in_force = held.of(ordinal[limit.node].ordinal, limit.usage_type, "2026-11", None, window)
        told.append(as_set(limit.usage_type, in_force))
    sheet = "".join(rows_of(COLUMNS, map(row_of, told)))
    assert limits_of(sheet) == tuple(told)
    assert [(limit.node, limit.usage_type, limit.quantity, limit.thresholds) for limit in told] == [
        (limit.node, limit.usage_type, limit.quantity, limit.thresholds) for limit in limits
    ]
