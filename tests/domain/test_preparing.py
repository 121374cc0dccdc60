"""Large tariff versions, made ready beside the writer: what is decided is what would be decided anyway."""

import pytest
from msgspec.structs import replace

from allotment.domain.preparing import AHEAD, LARGE, Prepared, cold, is_worth_while
from allotment.domain.rating.amending import Amendment, AmendTariff, WithdrawTariff
from allotment.domain.rating.language import Rate
from allotment.domain.rating.overriding import Discount, OverrideRates, Overrides
from allotment.domain.refusals import Refused
from allotment.domain.tariff import PublishTariff, Tariffs
from allotment.domain.usage import USAGE_TYPES
from allotment.domain.versioning import LATE_MAX, About, decide_versions

NOW = 10**15
ABOUT = About("EUR", USAGE_TYPES, "Europe/Berlin")
MANY = tuple(Rate("voice", f"z{n}", "0.02", 60, f"+{1_000_000 + n}") for n in range(LARGE + 1))
SHEET = AmendTariff((Amendment(1, NOW, (), MANY), Amendment(2, NOW + 1, (0,))), 1, "a sheet")
BASE = PublishTariff("base", 0, "EUR", (Rate("voice", "world", "0.1", 60, "+"),))
HALF = OverrideRates(Overrides((), (Discount("voice", 5000),)), NOW)


def tariffs(*commands):
    made = Tariffs()
    for command in (BASE, *commands):
        carry_out(made, command)
    return made


def carry_out(made, command, ready=None, now=NOW):
    made.prepared = ready
    told = decide_versions(made, command, ABOUT, now)
    for event in told:
        made.apply(event)
    made.prepared = None
    return told


def figures(made):
    return [(one.published, one.sources) for one in made.versions]


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ((), SHEET),
        ((), replace(BASE, rates=MANY)),
        ((HALF,), replace(SHEET, seen=2, changes=SHEET.changes[:1])),
        ((replace(BASE, rates=MANY),), replace(HALF, valid_from=NOW + 5)),
        ((replace(BASE, rates=MANY, valid_from=NOW + 9),), WithdrawTariff(2)),
    ],
)
def test_what_was_prepared_is_what_would_be_decided(before, command):
    plain, ahead = tariffs(*before), tariffs(*before)
    assert is_worth_while(command, ahead)
    ready = Prepared(command, ABOUT, ahead.copied(), NOW)
    assert carry_out(ahead, command, ready) == carry_out(plain, command)
    assert figures(ahead) == figures(plain)
    assert not cold(ahead, NOW, AHEAD)
    made = ahead.at(NOW + 10).find("voice", "outbound", "+1000001")
    expected = plain.at(NOW + 10).find("voice", "outbound", "+1000001")
    assert (made.num, made.index, made.prefix) == (expected.num, expected.index, expected.prefix)


def test_its_versions_are_there_and_compiled_when_the_writer_takes_them():
    made = tariffs()
    ready = Prepared(SHEET, ABOUT, made.copied(), NOW)
    assert len(made.versions) == 1  # nothing has happened yet
    carry_out(made, SHEET, ready)
    assert [one.is_compiled for one in made.versions] == [False, True, True]


def test_what_was_prepared_for_other_versions_is_decided_anew():
    made = tariffs()
    ready = Prepared(SHEET, ABOUT, made.copied(), NOW)
    carry_out(made, replace(BASE, valid_from=NOW - 1))
    with pytest.raises(Refused, match="tariffs_changed"):
        carry_out(made, SHEET, ready)
    other = tariffs(HALF)
    carry_out(other, WithdrawTariff(2), now=NOW - 1)
    again = replace(SHEET, seen=2, changes=SHEET.changes[:1])
    stale = Prepared(again, ABOUT, tariffs(HALF).copied(), NOW)
    plain = tariffs(HALF)
    carry_out(plain, WithdrawTariff(2), now=NOW - 1)
    assert carry_out(other, again, stale) == carry_out(plain, again)


def test_what_was_prepared_for_another_command_is_not_taken():
    made = tariffs()
    ready = Prepared(SHEET, ABOUT, made.copied(), NOW)
    told = carry_out(made, replace(SHEET, note="another"), ready)
    assert {event.note for event in told} == {"another"}


def test_a_refusal_is_prepared_as_well():
    made = tariffs()
    twice = replace(SHEET, changes=(Amendment(1, NOW, (), (*MANY, MANY[0])),))
    ready = Prepared(twice, ABOUT, made.copied(), NOW)
    with pytest.raises(Refused, match="bad_"):
        carry_out(made, twice, ready)
    assert len(made.versions) == 1


def test_what_waited_too_long_holds_in_the_past_by_then():
    made = tariffs()
    ready = Prepared(SHEET, ABOUT, made.copied(), NOW)
    with pytest.raises(Refused, match="holds_in_the_past"):
        carry_out(made, SHEET, ready, now=NOW + LATE_MAX + 1)


@pytest.mark.parametrize(
    ("now", "ahead", "versions"),
    [(0, 0, []), (0, 10, []), (NOW - 11, 10, []), (NOW - 10, 10, [2]), (NOW - 10, 11, [2, 3]), (NOW, 0, [2])],
)
def test_large_versions_are_compiled_when_they_hold_or_are_about_to(now, ahead, versions):
    assert [one.published.version for one in cold(tariffs(SHEET), now, ahead)] == versions


def test_small_changes_of_small_tariffs_are_not_worth_it():
    made = tariffs()
    assert not is_worth_while(HALF, made)
    assert not is_worth_while(replace(SHEET, changes=SHEET.changes[1:]), made)
    assert not is_worth_while(object(), tariffs(SHEET))
