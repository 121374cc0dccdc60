"""What a usage costs that is not so much a unit: each element of the language, worked out by hand."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.rating.basis import Basis
from allotment.domain.rating.language import Band
from allotment.domain.rating.rate import EXACT_MAX
from allotment.domain.rating.sessions import begun_before, has_ended
from allotment.domain.rating.working import working
from allotment.domain.refusals import Refused
from allotment.domain.tariff import NOTHING, PublishTariff, Rate, Tariff, check_tariff, published_as

CENT = 10_000
MIB = 1_048_576


def found(rate: Rate, **attributes: str):
    command = PublishTariff("t", 0, "EUR", (rate,))
    check_tariff(command)
    tariff = Tariff(published_as(command, 1, "UTC"))
    return tariff.find(rate.usage_type, "outbound", "+44", 0, "", tuple(attributes.items()))


def cost(rate, quantity, taken=0):
    """Billed units, and the exact cost in micro-units."""
    billed = rate.billed(quantity)
    rated = rate.rate(billed, taken)
    assert sum((one.exact for one in working(rate, billed, taken)), Fraction()) == Fraction(*rated.exact)
    return billed, Fraction(*rated.exact)


# A minute costs 0.12 (2000 a second), by the minute; after three minutes 0.06 (1000), by the second.
CHEAPER = Rate("voice", "z", "0.12", 60, increment=60, bands=(Band(180, "0.06", 60),))
# The first minute is free, the second dear, then nothing again.
THREE = Rate("voice", "z", "0", bands=(Band(60, "1", 60), Band(120, "0")))
# By the minute until 1:30: the second minute begins in time and is billed as a whole.
UNEVEN = Rate("voice", "z", "0.12", 60, increment=60, bands=(Band(90, "0.06", 60),))
# Whoever goes on after a minute pays half a minute at least, then by six seconds.
MINIMUM = Rate("voice", "z", "0.06", 60, bands=(Band(60, "0.12", 60, 6, 30),))
TWENTY = Rate("voice", "z", "0.06", 60, bands=(Band(60, "0.12", 60, 6, 20),))


@pytest.mark.parametrize(
    ("rate", "quantity", "billed", "exact"),
    [
        (CHEAPER, 0, 0, 0),
        (CHEAPER, 1, 60, 120_000),
        (CHEAPER, 59, 60, 120_000),
        (CHEAPER, 60, 60, 120_000),
        (CHEAPER, 61, 120, 240_000),
        (CHEAPER, 179, 180, 360_000),
        (CHEAPER, 180, 180, 360_000),
        (CHEAPER, 181, 181, 361_000),
        (CHEAPER, 240, 240, 420_000),
        (CHEAPER, 3_600, 3_600, 3_780_000),
        (THREE, 60, 60, 0),
        (THREE, 61, 61, Fraction(1_000_000, 60)),
        (THREE, 119, 119, Fraction(59_000_000, 60)),
        (THREE, 120, 120, 1_000_000),
        (THREE, 121, 121, 1_000_000),
        (UNEVEN, 89, 120, 240_000),
        (UNEVEN, 90, 120, 240_000),
        (UNEVEN, 91, 120, 240_000),
        (UNEVEN, 120, 120, 240_000),
        (UNEVEN, 121, 121, 241_000),
        (MINIMUM, 59, 59, 59_000),
        (MINIMUM, 60, 60, 60_000),
        (MINIMUM, 61, 90, 120_000),
        (MINIMUM, 90, 90, 120_000),
        (MINIMUM, 91, 96, 132_000),
        (MINIMUM, 97, 102, 144_000),
        (TWENTY, 61, 84, 108_000),
        (TWENTY, 85, 90, 120_000),
    ],
)
def test_bands_inside_a_call(rate, quantity, billed, exact):
    assert cost(found(rate), quantity) == (billed, exact)


@pytest.mark.parametrize(
    ("taken", "exact"),
    [(0, 420_000), (1, 418_000), (60, 300_000), (179, 62_000), (180, 60_000), (181, 59_000), (240, 0)],
)  # fmt: skip
def test_an_allowance_takes_the_first_units_and_the_rest_costs_what_it_costs_there(taken, exact):
    assert cost(found(CHEAPER), 240, taken) == (240, exact)


FEE = Rate("voice", "z", "0", connect_fee="0.15")
LEAST = Rate("voice", "z", "0.12", 60, minimum_charge="0.50")
MOST = Rate("voice", "z", "0.12", 60, connect_fee="0.10", maximum_charge="1")
BOTH = Rate("voice", "z", "0.12", 60, minimum_charge="0.50", maximum_charge="0.50")


@pytest.mark.parametrize(
    ("rate", "quantity", "taken", "exact"),
    [
        # Flat: so much for each use, however long; nothing used is nothing charged.
        (FEE, 0, 0, 0),
        (FEE, 1, 0, 150_000),
        (FEE, 9_999, 0, 150_000),
        (FEE, 10, 9, 150_000),
        (FEE, 10, 10, 0),
        (LEAST, 0, 0, 0),
        (LEAST, 1, 0, 500_000),
        (LEAST, 249, 0, 500_000),
        (LEAST, 250, 0, 500_000),
        (LEAST, 251, 0, 502_000),
        # What the allowance pays for costs nothing, and then there is no minimum.
        (LEAST, 60, 60, 0),
        (LEAST, 60, 59, 500_000),
        (MOST, 449, 0, 998_000),
        (MOST, 450, 0, 1_000_000),
        (MOST, 451, 0, 1_000_000),
        (MOST, 36_000, 0, 1_000_000),
        (MOST, 36_000, 35_999, 102_000),
        (BOTH, 1, 0, 500_000),
        (BOTH, 9_999, 0, 500_000),
    ],
)
def test_fees_minimum_and_maximum_charge(rate, quantity, taken, exact):
    assert cost(found(rate), quantity, taken)[1] == exact


PERCENT = Rate("voice", "z", "0", percent="2.5", minimum_charge="0.50", maximum_charge="3", included=False)


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        ("0", 500_000),
        ("19.99", 500_000),
        ("20", 500_000),
        ("20.01", 500_250),
        ("100", 2_500_000),
        ("119.999999", 2_999_999_975 * Fraction(1, 1000)),
        ("120", 3_000_000),
        ("999999999", 3_000_000),
    ],
)
def test_a_percentage_of_a_stated_value(value, exact):
    assert cost(found(PERCENT, value=value), 1) == (1, exact)


@pytest.mark.parametrize("value", ["", "-1", "1,50", "1e3", "NaN", "1234567890"])
def test_a_value_that_is_none_is_refused(value):
    with pytest.raises(Refused) as refused:
        found(PERCENT, value=value)
    assert refused.value.code == "no_value"


def test_a_value_that_is_missing_is_refused():
    with pytest.raises(Refused) as refused:
        found(PERCENT)
    assert refused.value.facts["attribute"] == "value"


SMS = Rate("messaging", "z", "0.04", times="segments")
MEETING = Rate("video", "z", "0.06", 60, increment=60, times="participants", bands=(Band(120, "0.03", 60),))


@pytest.mark.parametrize(
    ("rate", "times", "quantity", "taken", "billed", "exact"),
    [
        (SMS, {}, 1, 0, 1, 40_000),
        (SMS, {"segments": "1"}, 1, 0, 1, 40_000),
        (SMS, {"segments": "3"}, 1, 0, 3, 120_000),
        (SMS, {"segments": "3"}, 1, 2, 3, 40_000),
        (SMS, {"segments": "3"}, 0, 0, 0, 0),
        (SMS, {"segments": "3"}, 2, 0, 6, 240_000),
        # Three people: each minute counts three times, and the band begins for all of them at once.
        (MEETING, {"participants": "3"}, 1, 0, 180, 180_000),
        (MEETING, {"participants": "3"}, 120, 0, 360, 360_000),
        (MEETING, {"participants": "3"}, 121, 0, 363, 361_500),
        (MEETING, {"participants": "3"}, 121, 360, 363, 1_500),
        (MEETING, {"participants": "3"}, 121, 361, 363, 1_000),
    ],
)
def test_what_is_billed_for_each_segment_or_participant(rate, times, quantity, taken, billed, exact):
    assert cost(found(rate, **times), quantity, taken) == (billed, exact)


@pytest.mark.parametrize("said", ["", "0", "-1", "1.5", "three", "10001", "٣", "99999999999999999999"])
def test_a_number_of_segments_that_is_none_is_refused(said):
    with pytest.raises(Refused) as refused:
        found(SMS, segments=said)
    assert refused.value.code == "bad_multiple"


@pytest.mark.parametrize(
    ("quantity", "billed", "exact"),
    [
        (0, 0, 0), (1, MIB, CENT), (MIB - 1, MIB, CENT), (MIB, MIB, CENT), (MIB + 1, 2 * MIB, 2 * CENT),
        (5 * 1024 * MIB, 5 * 1024 * MIB, 5_120 * CENT),
        (5 * 1024 * MIB + 1, 5 * 1024 * MIB + 1024, 5_120 * CENT + Fraction(CENT, 2048)),
    ],
)  # fmt: skip
def test_data_in_blocks_with_a_cheaper_band(quantity, billed, exact):
    rate = Rate("data", "z", "0.01", MIB, increment=MIB, bands=(Band(5 * 1024 * MIB, "0.005", MIB, 1024),))
    assert cost(found(rate), quantity) == (billed, exact)


def test_the_components_say_what_each_part_costs():
    rate = found(
        Rate(*("voice", "z", "0.12", 60), increment=60, connect_fee="0.05", bands=(Band(180, "0.06", 60),),
             maximum_charge="0.40")
    )  # fmt: skip
    told = [(one.kind, one.begins, one.ends, one.band, one.blocks, one.exact) for one in working(rate, 240)]
    assert told == [
        ("usage", 0, 180, 0, 3, 360_000),
        ("usage", 180, 240, 1, 60, 60_000),
        ("connect_fee", 0, 0, 0, 0, 50_000),
        ("maximum_charge", 0, 0, 0, 0, -70_000),
    ]


def last_unit(rate, covered, most=1_000):
    """How much a session may use until its maximum charge ends it, `covered` units being paid for."""
    fits = [unit for unit in range(1, most) if has_ended(rate, begun_before(rate, unit), covered, 0) is None]
    return max(fits)


@pytest.mark.parametrize(
    ("covered", "last"),
    # 0.12 a minute and 0.10 to connect: at 450 paid seconds it is 1.00, in the eighth minute.
    [(0, 480), (30, 480), (31, 540), (60, 540)],
)
def test_a_session_ends_with_the_increment_that_reaches_the_maximum(covered, last):
    row = Rate("voice", "z", "0.12", 60, increment=60, connect_fee="0.10", maximum_charge="1", ends=True)
    assert last_unit(found(row), covered) == last


@pytest.mark.parametrize(
    ("row", "last"),
    [
        # Half a minute at least, then by ten seconds from the second minute on; 0.01 a second.
        (Rate("voice", "z", "0.01", minimum=30, maximum_charge="0.30"), 30),
        (Rate("voice", "z", "0.01", minimum=30, maximum_charge="0.31"), 31),
        (Rate("voice", "z", "0.01", bands=(Band(60, "0.01", 1, 10),), maximum_charge="0.60"), 60),
        (Rate("voice", "z", "0.01", bands=(Band(60, "0.01", 1, 10),), maximum_charge="0.61"), 70),
        (Rate("voice", "z", "0.01", bands=(Band(60, "0.01", 1, 10, 25),), maximum_charge="0.61"), 90),
        (Rate("voice", "z", "0", maximum_charge="1"), 999),  # never reached, it ends nothing
    ],
)
def test_the_last_increment_may_be_a_minimum_or_a_band_s(row, last):
    assert last_unit(found(row), 0) == last


def test_a_contract_s_own_price_replaces_that_of_every_band():
    rate = found(CHEAPER).priced(Rate("voice", "z", "0.6", 60))
    assert cost(rate, 240) == (240, 2_400_000)
    assert [one.price for one in working(rate, 240)] == ["0.6", "0.6"]


def test_what_a_charge_was_rated_on_is_enough_to_rate_it_again():
    rate = found(MEETING, participants="3")
    assert rate.basis == Basis("", "", 3, "")
    tariff = Tariff(published_as(PublishTariff("t", 0, "EUR", (MEETING,)), 1, "UTC"))
    assert tariff.rate_of(0, "", rate.basis).rate(363, 361) == rate.rate(363, 361)


def test_what_nothing_can_count_is_told_apart():
    rate = found(Rate("voice", "z", "999999999", bands=(Band(60, "999999999"),)))
    assert max(rate.rate(2**53).exact) >= EXACT_MAX


BANDED = st.builds(
    lambda price, starts, prices, increments, minimum: Rate(
        *("voice", "z", price, 60), increment=increments[0], minimum=minimum,
        bands=tuple(map(Band, starts, prices, [60, 60, 60], increments[1:])),
    ),
    st.sampled_from(["0", "0.05", "0.123456789", "7"]),
    st.sets(st.sampled_from(range(100, 5_000, 100)), min_size=3, max_size=3).map(sorted),
    st.lists(st.sampled_from(["0", "0.01", "0.3"]), min_size=3, max_size=3),
    st.lists(st.sampled_from([1, 6, 30, 60]), min_size=4, max_size=4),
    st.integers(0, 90),
)  # fmt: skip


@given(BANDED, st.integers(1, 6_000), st.lists(st.integers(0, 7_000), max_size=5))
def test_any_split_of_a_usage_costs_what_the_whole_costs(row, quantity, cuts):
    rate = found(row)
    billed = rate.billed(quantity)
    places = sorted({0, billed, *(cut for cut in cuts if cut < billed)})
    parts = [rate.rate(end, begin) for begin, end in pairwise(places)]
    assert sum((Fraction(*part.exact) for part in parts), Fraction()) == Fraction(*rate.rate(billed).exact)
    assert sum(part.overage for part in parts) == billed


@given(BANDED, st.integers(0, 6_000), st.integers(0, 6_000))
def test_what_is_billed_covers_what_was_used_and_never_falls(row, quantity, more):
    rate = found(row)
    assert quantity <= rate.billed(quantity) <= rate.billed(quantity + more)
    assert rate.billed(rate.billed(quantity)) == rate.billed(quantity)
    assert rate.rate(0) == NOTHING
