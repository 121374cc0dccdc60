"""A customer's own rates over a base: what they replace, what they add, and what a discount leaves."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.domain.decks.comparing import compare, flat, unit_price
from allotment.domain.rating.language import Band, Rate, Zone
from allotment.domain.rating.overriding import (
    Discount,
    Overrides,
    Source,
    check_against,
    check_overrides,
    compose,
    discounted,
)
from allotment.domain.refusals import Refused

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")


def rate(zone, price, prefix="", **more):
    return Rate("voice", zone, price, 60, prefix, **more)


ZONES = (Zone("UK mobile", ("+447", "+4475")),)
BASE = (
    rate("UK", "0.02", "+44"),
    rate("France", "0.03", "+33"),
    rate("France", "0.03", "+331"),
    rate("UK mobile", "0.05"),
    rate("UK mobile", "0.01", window="night"),
    Rate("messaging", "any", "0.10", included=False),
)


def prices(overrides):
    """What the composed tariff says, by prefix and window."""
    made = compose(BASE, ZONES, overrides)
    return {
        (key[0], key[2], key[4]): (one.price, one.per) for key, one in flat(made.rates, made.zones).items()
    }


BEFORE = prices(Overrides())


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        (Overrides(), {}),
        (Overrides((rate("UK", "0.01", "+44"),)), {("voice", "+44", ""): ("0.01", 60)}),
        # A row for a zone is for all its prefixes; a row for a prefix goes before it.
        (
            Overrides((rate("France", "0.02"),)),
            {("voice", "+33", ""): ("0.02", 60), ("voice", "+331", ""): ("0.02", 60)},
        ),
        (
            Overrides((rate("France", "0.02"), rate("Paris", "0.01", "+331"))),
            {("voice", "+33", ""): ("0.02", 60), ("voice", "+331", ""): ("0.01", 60)},
        ),
        (
            Overrides((rate("UK mobile", "0.04"),)),
            {("voice", "+447", ""): ("0.04", 60), ("voice", "+4475", ""): ("0.04", 60)},
        ),
        (
            Overrides((rate("UK mobile", "0", window="night"),)),
            {("voice", "+447", "night"): ("0", 60), ("voice", "+4475", "night"): ("0", 60)},
        ),
        # Of a zone's prefixes only one.
        (Overrides((rate("a friend", "0", "+4475"),)), {("voice", "+4475", ""): ("0", 60)}),
        (Overrides((rate("Peru", "1", "+51"),)), {("voice", "+51", ""): ("1", 60)}),
        (
            Overrides((rate("Peru", "1"),), zones=(Zone("Peru", ("+51", "+511")),)),
            {("voice", "+51", ""): ("1", 60), ("voice", "+511", ""): ("1", 60)},
        ),
        # A discount is on the rest of the zone.
        (
            Overrides((rate("Paris", "0.01", "+331"),), (Discount("voice", 1000, "France"),)),
            {("voice", "+33", ""): ("0.027", 60), ("voice", "+331", ""): ("0.01", 60)},
        ),
        (
            Overrides((), (Discount("voice", 5000), Discount("voice", 1000, "France"))),
            {
                ("voice", "+44", ""): ("0.01", 60),
                ("voice", "+33", ""): ("0.027", 60),
                ("voice", "+331", ""): ("0.027", 60),
                ("voice", "+447", ""): ("0.025", 60),
                ("voice", "+4475", ""): ("0.025", 60),
                ("voice", "+447", "night"): ("0.005", 60),
                ("voice", "+4475", "night"): ("0.005", 60),
            },
        ),
        (Overrides((), (Discount("messaging", 10_000),)), {("messaging", "", ""): ("0", 1)}),
    ],
)
def test_what_is_laid_over_a_base_changes_that_and_nothing_else(overrides, changed):
    check_against(BASE, ZONES, overrides)
    assert prices(overrides) == BEFORE | changed


def test_each_rate_says_where_it_comes_from():
    own = Overrides(
        (rate("Peru", "1", "+51"), rate("UK", "0.01", "+44")), (Discount("voice", 1000, "France"),)
    )
    assert compose(BASE, ZONES, own).sources == {
        0: Source("own", 0, None),
        1: Source("own", 1, 0),
        2: Source("discount", 0, 1),
        3: Source("discount", 0, 2),
    }


@pytest.mark.parametrize(
    ("price", "per", "hundredths", "exact"),
    [
        *(("0.02", 60, 1, Fraction(19998, 60 * 10**6)), ("0.02", 60, 10_000, Fraction(0))),
        ("0.000000000001", 1, 1, Fraction(9999, 10**16)),
        ("9999.999999999999", 1, 10, Fraction("9999.999999999999") * Fraction(9990, 10_000)),
        ("0", 1, 500, Fraction(0)),
    ],
)
def test_a_discount_is_exact(price, per, hundredths, exact):
    made = discounted(Rate("voice", "x", price, per), Discount("voice", hundredths))
    assert unit_price(made) == exact


def test_a_discount_that_no_price_can_state_is_refused():
    with pytest.raises(Refused):
        discounted(Rate("voice", "x", "999999999.999999999999"), Discount("voice", 1))


def test_a_discount_lowers_bands_and_fees_where_it_says_so():
    one = Rate("voice", "x", "1", connect_fee="0.5", bands=(Band(180, "0.5", 60),))
    assert discounted(one, Discount("voice", 5000)).bands == (Band(180, "0.25", 60),)
    assert discounted(one, Discount("voice", 5000)).connect_fee == "0.5"
    assert discounted(one, Discount("voice", 5000, fees=True)).connect_fee == "0.25"


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (Overrides((rate("Frnace", "0.02"),)), "rates[0].zone"),
        (Overrides((rate("UK", "0.02", direction="outbound"),)), "rates[0].zone"),
        (Overrides((), (Discount("voice", 1, "Frnace"),)), "discounts[0].zone"),
        (Overrides((), (Discount("voice", 0),)), "discounts[0].hundredths"),
        (Overrides((), (Discount("voice", 10_001),)), "discounts[0].hundredths"),
        (Overrides((), (Discount("fax", 1),)), "discounts[0].usage_type"),
        (Overrides((), (Discount("voice", 1, direction="up"),)), "discounts[0].direction"),
        (Overrides((), (Discount("voice", 1), Discount("voice", 2))), "discounts[1].zone"),
    ],
)
def test_what_names_nothing_is_refused(overrides, field):
    def check():
        check_overrides(overrides, ("voice", "messaging"))
        check_against(BASE, ZONES, overrides)

    with pytest.raises(Refused) as refusal:
        check()
    assert (refusal.value.code, refusal.value.facts["field"]) == ("bad_override", field)


_PREFIX = st.sampled_from(["+44", "+33", "+331", "+1", "+7"])
_OWN = st.lists(
    st.builds(rate, st.sampled_from(["UK", "own"]), st.sampled_from(["0.5", "0.02"]), _PREFIX),
    unique_by=lambda one: one.prefix,
)


@settings(max_examples=60)
@given(_OWN, st.sampled_from(["", "UK", "France"]), st.integers(1, 10_000))
def test_the_difference_to_the_base_is_exactly_what_was_laid_over(own, zone, hundredths):
    overrides = Overrides(tuple(own), (Discount("voice", hundredths, zone),))
    made = compose(BASE, ZONES, overrides)
    changes = compare(flat(BASE, ZONES), flat(made.rates, made.zones))
    told = {
        change.key[2]: change.after
        for change in changes
        if change.kind != "unchanged" and change.key[0] == "voice"
    }
    by_prefix = {one.prefix: one for one in own}
    for prefix, after in told.items():
        before = flat(BASE, ZONES).get(("voice", "", prefix, "", ""))
        assert after == by_prefix.get(prefix) or (before is not None and zone in ("", before.zone))
    for prefix, one in by_prefix.items():
        assert flat(made.rates, made.zones)["voice", "", prefix, "", ""] == one
        assert prefix in told or one in BASE
    for change in changes:
        of_voice = change.before is not None and change.key[0] == "voice"
        if of_voice and change.key[2] not in by_prefix and zone in ("", change.before.zone):
            share = Fraction(10_000 - hundredths, 10_000)
            assert unit_price(change.after) == unit_price(change.before) * share
